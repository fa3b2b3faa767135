import { expect } from 'chai';
import {
  type AskedFor,
  History,
  type Outcome,
  type Read,
  UNKNOWN_MAY_COME_MS,
  valueOf,
  violations,
  type Write,
} from './history.ts';

const KEY = 'key';

/** A history of one key, told in order; every step takes a millisecond and begins when the one before has ended. */
class Story {
  readonly history = new History();
  private nowMs = 0;

  write(
    kind: Write['kind'],
    outcome: Outcome,
    at: number | undefined,
    consistency: AskedFor = 'QUORUM',
  ): Write {
    const write = this.history.begin({ key: KEY, kind, consistency, startedMs: this.tick() });
    write.outcome = outcome;
    write.endedMs = this.tick();
    if (at !== undefined) write.version = version(at);
    return write;
  }

  read(found: Read['found'], consistency: Read['consistency'] = 'QUORUM'): void {
    const [startedMs, endedMs] = [this.tick(), this.tick()];
    this.history.reads.push({ key: KEY, consistency, where: 'n', startedMs, endedMs, found });
  }

  wait(ms: number): void {
    this.nowMs += ms;
  }

  private tick(): number {
    this.nowMs += 1;
    return this.nowMs;
  }
}

const version = (wallMs: number) => ({ wallMs, counter: 0, writer: 1 });
const found = (write: Write, at: number): Read['found'] => ({ value: valueOf(write), version: version(at) });

const stories: readonly {
  readonly name: string;
  readonly tell: (story: Story) => void;
  /** What the only violation says; undefined: there is none. */
  readonly violation?: RegExp;
}[] = [
  {
    name: 'a write that is read',
    tell: (story) => story.read(found(story.write('put', 'acknowledged', 1), 1)),
  },
  {
    name: 'an acknowledged write that is lost',
    tell: (story) => {
      story.write('put', 'acknowledged', 1);
      story.read(undefined);
    },
    violation: /finds nothing, after put 1/,
  },
  {
    name: 'an acknowledged write that is not yet everywhere, at ONE',
    tell: (story) => {
      story.write('put', 'acknowledged', 1);
      story.read(undefined, 'ONE');
    },
  },
  {
    name: 'a write acknowledged by all that is not found at ONE',
    tell: (story) => {
      story.write('put', 'acknowledged', 1, 'ALL');
      story.read(undefined, 'ONE');
    },
    violation: /at ONE .* finds nothing/,
  },
  {
    name: 'an acknowledged overwrite that is lost',
    tell: (story) => {
      const first = story.write('put', 'acknowledged', 1);
      story.write('put', 'acknowledged', 2);
      story.read(found(first, 1));
    },
    violation: /finds put 1 .* after put 2/,
  },
  {
    name: 'a deleted key that comes back',
    tell: (story) => {
      const put = story.write('put', 'acknowledged', 1);
      story.write('delete', 'acknowledged', 2);
      story.read(found(put, 1), 'settled');
    },
    violation: /finds put 1 .* after delete 2/,
  },
  {
    name: 'a deleted key that stays deleted',
    tell: (story) => {
      story.write('put', 'acknowledged', 1);
      story.write('delete', 'acknowledged', 2);
      story.read(undefined);
    },
  },
  {
    name: 'a read that goes back behind another one',
    tell: (story) => {
      const first = story.write('put', 'acknowledged', 1);
      const second = story.write('put', 'unknown', undefined);
      story.read(found(second, 2));
      story.read(found(first, 1));
    },
    violation: /finds put 1 .* after a read/,
  },
  {
    name: 'a write of unknown outcome that is not there, then there',
    tell: (story) => {
      const put = story.write('put', 'unknown', undefined);
      story.read(undefined);
      story.read(found(put, 5));
    },
  },
  {
    name: 'a delete of unknown outcome that came after all',
    tell: (story) => {
      story.write('delete', 'unknown', undefined);
      story.write('put', 'acknowledged', 2);
      story.read(undefined);
    },
  },
  {
    name: 'a delete of unknown outcome that is long over',
    tell: (story) => {
      story.write('delete', 'unknown', undefined);
      story.wait(UNKNOWN_MAY_COME_MS);
      story.write('put', 'acknowledged', 2);
      story.read(undefined);
    },
    violation: /finds nothing, after put 2/,
  },
  {
    name: 'a refused write that is there',
    tell: (story) => story.read(found(story.write('put', 'refused', undefined), 1), 'ONE'),
    violation: /put 1 of key, which was refused/,
  },
  {
    name: 'a refused delete that was applied',
    tell: (story) => {
      story.write('put', 'acknowledged', 1);
      story.write('delete', 'refused', undefined);
      story.read(undefined);
    },
    violation: /finds nothing/,
  },
  {
    name: "another key's value",
    tell: (story) => story.read({ value: valueOf({ key: 'other', number: 1 }), version: version(1) }, 'ONE'),
    violation: /that nobody wrote to it: other#1/,
  },
  {
    name: 'half a value',
    tell: (story) => {
      const put = story.write('put', 'acknowledged', 1);
      story.read({ value: valueOf(put).slice(0, -1), version: version(1) }, 'ONE');
    },
    violation: /that nobody wrote/,
  },
  {
    name: 'a later write with the lower version',
    tell: (story) => {
      story.write('put', 'acknowledged', 2);
      story.write('put', 'acknowledged', 1);
    },
    violation: /put 2 .* not above that of put 1/,
  },
  {
    name: 'a write that was sent again and is there twice',
    tell: (story) => story.read(found(story.write('put', 'acknowledged', 1), 2)),
  },
  {
    name: 'a write that was sent again and comes back over a later one',
    tell: (story) => {
      const first = story.write('put', 'acknowledged', 1);
      story.write('put', 'acknowledged', 2);
      story.read(found(first, 3));
    },
    violation: /finds put 1 of key again, at version 3.* over put 2/,
  },
];

describe('the judge of a history', () => {
  for (const { name, tell, violation } of stories) {
    it(`${violation === undefined ? 'accepts' : 'refuses'} ${name}`, () => {
      const story = new Story();
      tell(story);
      const result = violations(story.history);
      if (violation === undefined) expect(result).to.deep.equal([]);
      else {
        expect(result).to.have.length(1);
        expect(result[0]).to.match(violation);
      }
    });
  }

  it('accepts writes and reads at the same time in either order', () => {
    const { history } = new Story();
    const first = history.begin({ key: KEY, kind: 'put', consistency: 'QUORUM', startedMs: 1 });
    const second = history.begin({ key: KEY, kind: 'put', consistency: 'QUORUM', startedMs: 2 });
    Object.assign(first, { outcome: 'acknowledged', endedMs: 10, version: version(7) });
    Object.assign(second, { outcome: 'acknowledged', endedMs: 9, version: version(6) });
    const read = { key: KEY, consistency: 'QUORUM', where: 'n' } as const;
    // The second one was acknowledged first, and the first one was there before it was acknowledged.
    history.reads.push({ ...read, startedMs: 3, endedMs: 8, found: found(first, 7) });
    history.reads.push({ ...read, startedMs: 3, endedMs: 11, found: undefined });
    expect(violations(history)).to.deep.equal([]);
  });
});
