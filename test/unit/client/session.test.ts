import { expect } from 'chai';
import { Session } from '../../../client/session.ts';

const at = (wallMs: number) => ({ wallMs, counter: 0, writer: 1 });

describe('what a client has seen', () => {
  let nowMs = 0;
  const clock = { wallMs: () => nowMs, monotonicMs: () => nowMs };
  const begin = (mostKeys: number): Session => {
    nowMs = 1000;
    return new Session(clock, mostKeys);
  };

  it('asks for the newest version of a key that it wrote or read, and for nothing of others', () => {
    const session = begin(10);
    session.note('a', at(5));
    session.note('a', at(7));
    session.note('a', at(6));
    expect(session.floorOf('a')).to.deep.equal({ kind: 'version', version: at(7) });
    expect(session.floorOf('b')).to.deep.equal({ kind: 'version', version: undefined });
  });

  it('remembers a version for a minute at least, and for two at most', () => {
    const session = begin(10);
    session.note('a', at(1));
    nowMs += 60_000;
    session.note('b', at(2));
    expect(session.floorOf('a')).to.deep.equal({ kind: 'version', version: at(1) });
    nowMs += 60_000;
    session.note('c', at(3));
    expect(session.floorOf('a')).to.deep.equal({ kind: 'version', version: undefined });
    expect(session.floorOf('b')).to.deep.equal({ kind: 'version', version: at(2) });
  });

  it('asks a quorum for a minute after it had to forget early, but for what it still knows', () => {
    const session = begin(4);
    for (const [index, name] of ['a', 'b', 'c', 'd', 'e'].entries()) session.note(name, at(index + 1));
    expect(session.floorOf('a')).to.deep.equal({ kind: 'quorum' });
    expect(session.floorOf('never')).to.deep.equal({ kind: 'quorum' });
    expect(session.floorOf('e')).to.deep.equal({ kind: 'version', version: at(5) });
    nowMs += 60_000;
    expect(session.floorOf('a')).to.deep.equal({ kind: 'version', version: undefined });
  });

  it('never keeps more keys than it may', () => {
    const session = begin(100);
    for (let index = 0; index < 10_000; index += 1) session.note(`k${index}`, at(index + 1));
    let known = 0;
    for (let index = 0; index < 10_000; index += 1) {
      const floor = session.floorOf(`k${index}`);
      if (floor.kind === 'version' && floor.version !== undefined) known += 1;
    }
    expect(known).to.be.within(50, 100);
  });
});
