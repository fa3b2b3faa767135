import { expect } from 'chai';
import { KvError } from '../../../common/errors.ts';
import type { AdminClient } from '../../../client/admin-client.ts';
import { publishMap } from '../../../client/publish-map.ts';
import { type ClusterMap, sealMap } from '../../../model/cluster-map.ts';
import { memberNamed } from '../../support/member.ts';

type Answer = 'accepts' | 'refuses' | 'is silent';

function mapOf(epoch: number, names: readonly string[], down: readonly string[] = []): ClusterMap {
  return sealMap({
    clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
    namespace: 'default',
    name: 'kv',
    epoch,
    partitions: 1,
    replicationFactor: 3,
    initialised: true,
    members: names.map((name) => ({
      ...memberNamed(name),
      state: down.includes(name) ? ('down' as const) : ('active' as const),
    })),
    retired: [],
    assignment: [[0, 1, 2]],
  });
}

describe('a map published without Kubernetes', () => {
  const asked: string[] = [];

  const publish = (
    answers: Readonly<Record<string, Answer>>,
    { names = Object.keys(answers), from = mapOf(4, ['kv-0', 'kv-1', 'kv-2']) } = {},
  ): Promise<void> => {
    asked.length = 0;
    const admin: Pick<AdminClient, 'proposeMap'> = {
      proposeMap: ({ nodeId }, map, expected) => {
        asked.push(nodeId);
        expect(expected).to.deep.equal({ epoch: from.epoch, hash: from.hash });
        if (answers[nodeId] === 'is silent') return Promise.reject(new KvError('UNAVAILABLE', 'no answer'));
        const accepted = answers[nodeId] === 'accepts';
        const message = accepted ? '' : 'the map of epoch 5 is newer';
        return Promise.resolve({ accepted, epoch: map.epoch, hash: map.hash, message });
      },
    };
    return publishMap({
      admin: admin as AdminClient,
      from,
      map: mapOf(5, names),
      targetOf: (nodeId) => ({ nodeId, address: nodeId }),
      signal: new AbortController().signal,
    });
  };
  const failure = async (attempt: Promise<void>): Promise<unknown> =>
    attempt.then(
      () => undefined,
      (error: unknown) => error,
    );

  it('counts when a majority of the members before it hold it', async () => {
    await publish({ 'kv-0': 'accepts', 'kv-1': 'accepts', 'kv-2': 'is silent' });
    expect([...asked].sort()).to.deep.equal(['kv-0', 'kv-1', 'kv-2']);
  });

  it('may or may not count when fewer answer, and says whom it lacks', async () => {
    const error = await failure(publish({ 'kv-0': 'accepts', 'kv-1': 'is silent', 'kv-2': 'is silent' }));
    expect(error).to.be.instanceOf(KvError).with.property('code', 'UNAVAILABLE');
    expect((error as KvError).message).to.match(/kv-1: .*kv-2: /);
  });

  it('gives way to one that somebody else has published meanwhile', async () => {
    const error = await failure(publish({ 'kv-0': 'accepts', 'kv-1': 'refuses', 'kv-2': 'refuses' }));
    expect(error).to.be.instanceOf(KvError).with.property('code', 'FAILED_PRECONDITION');
  });

  it('comes to new members only when it counts, and their answers do not make it count', async () => {
    const names = ['kv-0', 'kv-1', 'kv-2', 'kv-3', 'kv-4'];
    const few = { 'kv-0': 'accepts', 'kv-1': 'is silent', 'kv-2': 'is silent' } as const;
    const joining = { 'kv-3': 'accepts', 'kv-4': 'accepts' } as const;
    expect(await failure(publish({ ...few, ...joining }, { names }))).to.be.instanceOf(KvError);
    expect(asked).to.not.include('kv-3');
    await publish({ ...few, 'kv-1': 'accepts', ...joining }, { names });
    expect(asked).to.include.members(['kv-3', 'kv-4']);
  });

  it('needs no answer of members that are down', async () => {
    const from = mapOf(4, ['kv-0', 'kv-1', 'kv-2'], ['kv-1', 'kv-2']);
    await publish({ 'kv-0': 'accepts', 'kv-1': 'is silent', 'kv-2': 'is silent' }, { from });
    expect(asked).to.deep.equal(['kv-0']);
  });
});
