import { expect } from 'chai';
import { type AskedNode, availabilityOf } from '../../../operator/availability.ts';
import { StoreState } from '../../../proto/gen/peer.ts';
import { answerOf, demoMap, members, peersOf } from '../../support/operator-fixtures.ts';

type Answer = Parameters<typeof answerOf>[1] | null;

/** Nodes in order, with changed answers; null: no answer. */
function asked(changes: Readonly<Record<string, Answer>> = {}, running = true): readonly AskedNode[] {
  return members.map((nodeId) => {
    const change = changes[nodeId];
    return { nodeId, running, answer: change === null ? undefined : answerOf(nodeId, change) };
  });
}

const statusOf = (changes: Readonly<Record<string, Answer>>): string =>
  availabilityOf(demoMap(), asked(changes)).status;
const blind = (nodeId: string) => ({ peers: peersOf(nodeId, [...members]) });

describe('availabilityOf', () => {
  it('is True when all members reach each other', () => {
    expect(statusOf({})).to.equal('True');
  });

  it('is True while one of three is gone', () => {
    const others = (nodeId: string) => ({ peers: peersOf(nodeId, ['demo-2']) });
    expect(statusOf({ 'demo-0': others('demo-0'), 'demo-1': others('demo-1'), 'demo-2': null })).to.equal(
      'True',
    );
  });

  it('is False when three members that answer cannot reach each other', () => {
    expect(
      statusOf({ 'demo-0': blind('demo-0'), 'demo-1': blind('demo-1'), 'demo-2': blind('demo-2') }),
    ).to.equal('False');
  });

  it('is False when each pair is cut in one direction', () => {
    const cut = (nodeId: string, other: string) => ({ peers: peersOf(nodeId, [other]) });
    const ring = {
      'demo-0': cut('demo-0', 'demo-1'),
      'demo-1': cut('demo-1', 'demo-2'),
      'demo-2': cut('demo-2', 'demo-0'),
    };
    expect(statusOf(ring)).to.equal('False');
  });

  it('is True when one member cannot reach another but a quorum is whole', () => {
    expect(statusOf({ 'demo-0': { peers: peersOf('demo-0', ['demo-1']) } })).to.equal('True');
  });

  it('is False when two of three are rebuilding, blank or about to stop', () => {
    for (const change of [
      { state: StoreState.REBUILDING },
      { state: StoreState.BLANK },
      { draining: true },
    ]) {
      expect(statusOf({ 'demo-0': change, 'demo-1': change })).to.equal('False');
    }
  });

  it('takes the word of its peers for a member that does not answer the operator', () => {
    expect(statusOf({ 'demo-1': null, 'demo-2': null })).to.equal('True');
  });

  it('is Unknown when pods run but nobody answers, False when none runs', () => {
    const silent = { 'demo-0': null, 'demo-1': null, 'demo-2': null };
    expect(availabilityOf(demoMap(), asked(silent))).to.include({
      status: 'Unknown',
      reason: 'NodesUnreachable',
    });
    expect(availabilityOf(demoMap(), asked(silent, false))).to.include({
      status: 'False',
      reason: 'NoNodeRunning',
    });
  });

  it('is False before there is a map', () => {
    expect(availabilityOf(undefined, asked())).to.include({ status: 'False', reason: 'NoClusterMap' });
  });
});
