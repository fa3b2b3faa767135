import { expect } from 'chai';
import fc from 'fast-check';
import {
  type BootstrapDecision,
  type BootstrapInput,
  type ExpectedMember,
  type VolumeAnswer,
  decideBootstrap,
  newestMap,
  replicasOnAdoption,
  workersOnAdoption,
} from '../../../model/bootstrap.ts';
import type { ClusterMap } from '../../../model/cluster-map.ts';
import { firstMap, nextMap, withInitialised } from '../../../model/next-map.ts';
import { workerNames } from '../../../model/workers.ts';
import { memberNamed } from '../../support/member.ts';

const ID = 'a'.repeat(32);
const OTHER_ID = 'b'.repeat(32);
const blank: VolumeAnswer = { kind: 'blank' };
const silent: VolumeAnswer = { kind: 'unreachable', why: 'connection refused' };
const used = { clusterId: ID, initialised: true };
const minted = { clusterId: ID, initialised: false };

function mapOf(
  clusterId: string,
  epoch: number,
  names: readonly string[] = ['kv-0', 'kv-1', 'kv-2'],
  workers = 1,
): ClusterMap {
  const first = firstMap({
    clusterId,
    namespace: 'default',
    name: 'kv',
    partitions: 8,
    replicationFactor: 5,
    members: names.flatMap((pod) =>
      workerNames(pod, workers).map((nodeId) => ({ ...memberNamed(nodeId), pod })),
    ),
  });
  let map = first;
  while (map.epoch < epoch) map = nextMap(map, { initialised: true });
  return map;
}

function holds(clusterId: string, map?: ClusterMap): VolumeAnswer {
  return { kind: 'holds', clusterId, map };
}

function members(...answers: (VolumeAnswer | [VolumeAnswer, ExpectedMember['noted']])[]): ExpectedMember[] {
  return answers.map((entry, index) => {
    const [answer, noted] = Array.isArray(entry) ? entry : [entry, undefined];
    return { nodeId: `kv-${index}`, answer, noted };
  });
}

describe('how a cluster starts', () => {
  const map1 = mapOf(ID, 1);
  const map4 = mapOf(ID, 4);
  const conflicting = nextMap(mapOf(ID, 3), { replicationFactor: 4 });
  const cases: { when: string; input: BootstrapInput; then: BootstrapDecision['kind']; detail?: object }[] = [
    {
      when: 'every member answers blank',
      input: { members: members(blank, blank, blank) },
      then: 'mint',
      detail: { clusterId: undefined },
    },
    {
      when: 'an id was noted and nothing written under it before the writer stopped',
      input: { members: members([blank, minted], [blank, minted], blank) },
      then: 'mint',
      detail: { clusterId: ID },
    },
    {
      when: 'a volume has an id and nobody a map',
      input: { members: members(holds(ID), blank, blank) },
      then: 'mint',
      detail: { clusterId: ID },
    },
    {
      when: 'one has not answered',
      input: { members: members(blank, silent, blank) },
      then: 'wait',
      detail: { waitingFor: ['kv-1'], why: 'kv-1: connection refused' },
    },
    {
      when: 'one has not answered while another holds a map',
      input: { members: members(holds(ID, map4), silent, blank) },
      then: 'wait',
      detail: { waitingFor: ['kv-1'] },
    },
    {
      when: 'the map names members that were not asked',
      input: {
        members: members(holds(ID, mapOf(ID, 2, ['kv-0', 'kv-1', 'kv-2', 'kv-3', 'kv-4'])), blank, blank),
      },
      then: 'wait',
      detail: { waitingFor: ['kv-3', 'kv-4'] },
    },
    {
      when: 'volumes hold maps of several epochs',
      input: { members: members(holds(ID, map1), holds(ID, map4), blank) },
      then: 'adopt',
      detail: { map: map4, blank: ['kv-2'] },
    },
    {
      when: 'a map was published and no node has it yet',
      input: { members: members([blank, minted], [silent, minted], blank), published: map1 },
      then: 'adopt',
      detail: { map: map1, blank: ['kv-0', 'kv-2'] },
    },
    {
      when: 'the published map is older than what nodes hold',
      input: { members: members(holds(ID, map4), silent, silent), published: map1 },
      then: 'adopt',
      detail: { map: map4 },
    },
    {
      when: 'volumes belong to two clusters',
      input: { members: members(holds(ID, map1), holds(OTHER_ID, mapOf(OTHER_ID, 1)), blank) },
      then: 'ambiguous',
      detail: { reason: 'several-clusters' },
    },
    {
      when: "a blank volume is noted as another cluster's",
      input: { members: members(holds(OTHER_ID, mapOf(OTHER_ID, 1)), [blank, minted], blank) },
      then: 'ambiguous',
      detail: { reason: 'several-clusters' },
    },
    {
      when: "a published map is another cluster's than the volumes",
      input: { members: members(holds(OTHER_ID, mapOf(OTHER_ID, 9)), blank, blank), published: map1 },
      then: 'ambiguous',
      detail: { reason: 'several-clusters' },
    },
    {
      when: 'a noted volume cannot be asked',
      input: { members: members(blank, [silent, used], blank) },
      then: 'ambiguous',
      detail: { reason: 'unreachable-volume' },
    },
    {
      when: 'two maps of the highest epoch differ',
      input: { members: members(holds(ID, map4), holds(ID, conflicting), blank) },
      then: 'ambiguous',
      detail: { reason: 'conflicting-maps' },
    },
    {
      when: 'a cluster in use has only blank volumes and no map',
      input: { members: members([blank, used], [blank, used], [blank, used]) },
      then: 'ambiguous',
      detail: { reason: 'data-lost' },
    },
  ];

  for (const { when, input, then, detail } of cases) {
    it(`answers ${then} when ${when}`, () => {
      const decision = decideBootstrap(input);
      expect(decision).to.deep.include({ kind: then, ...detail });
    });
  }

  const anyAnswer = fc.oneof(
    fc.constant(blank),
    fc.constant(silent),
    fc.constantFrom(ID, OTHER_ID).chain((id) =>
      fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined }).map((epoch) => {
        return holds(id, epoch === undefined ? undefined : mapOf(id, epoch));
      }),
    ),
  );
  const anyNote = fc.option(
    fc.record({ clusterId: fc.constantFrom(ID, OTHER_ID), initialised: fc.boolean() }),
    { nil: undefined },
  );
  const anyInput: fc.Arbitrary<BootstrapInput> = fc.record({
    members: fc
      .array(fc.tuple(anyAnswer, anyNote), { minLength: 1, maxLength: 4 })
      .map((entries) => members(...entries)),
    published: fc.option(fc.constantFrom(map1, map4), { nil: undefined }),
  });

  it('never mints when an answer has a map, a member is silent or a map was published', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        if (decideBootstrap(input).kind !== 'mint') return;
        expect(input.published).to.equal(undefined);
        for (const { answer } of input.members) {
          expect(answer.kind).to.not.equal('unreachable');
          if (answer.kind === 'holds') expect(answer.map).to.equal(undefined);
        }
      }),
    );
  });

  it('never chooses between two cluster ids, nor invents one where one is named', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const named = new Set(
          [
            input.published?.clusterId,
            ...input.members.flatMap(({ answer, noted }) => [
              noted?.clusterId,
              answer.kind === 'holds' ? answer.clusterId : undefined,
            ]),
          ].filter((id) => id !== undefined),
        );
        const decision = decideBootstrap(input);
        if (named.size > 1) expect(decision.kind).to.equal('ambiguous');
        if (decision.kind === 'mint') expect(decision.clusterId).to.equal([...named][0]);
        if (decision.kind === 'adopt') expect([...named]).to.deep.equal([decision.map.clusterId]);
      }),
    );
  });

  it('adopts no map older than one it was told of', () => {
    fc.assert(
      fc.property(anyInput, (input) => {
        const decision = decideBootstrap(input);
        if (decision.kind !== 'adopt') return;
        const epochs = input.members.map(({ answer }) =>
          answer.kind === 'holds' ? (answer.map?.epoch ?? 0) : 0,
        );
        expect(decision.map.epoch).to.be.at.least(Math.max(input.published?.epoch ?? 0, ...epochs));
      }),
    );
  });
});

describe('maps of a starting cluster', () => {
  it('orders members by ordinal and starts uninitialised at epoch 1', () => {
    const map = mapOf(ID, 1, ['kv-10', 'kv-2', 'kv-1', 'kv-1-w1']);
    expect(map.members.map(({ nodeId }) => nodeId)).to.deep.equal(['kv-1', 'kv-1-w1', 'kv-2', 'kv-10']);
    expect(map).to.include({ epoch: 1, initialised: false });
    expect(map.assignment).to.have.length(8);
  });

  it('says once that every member has acknowledged', () => {
    const first = mapOf(ID, 1);
    const second = withInitialised(first);
    expect(second).to.include({ epoch: 2, initialised: true, clusterId: ID });
    expect(second.hash).to.not.equal(first.hash);
    expect(withInitialised(second)).to.equal(second);
  });

  it('gives an adopted set as many pods as the map has', () => {
    const map = mapOf(ID, 1);
    expect([1, 3, 4].map((replicas) => replicasOnAdoption(replicas, map))).to.deep.equal([3, 3, 4]);
  });

  it('gives the pods of an adopted set as many workers as the map has', () => {
    const [single, double] = [mapOf(ID, 1), mapOf(ID, 1, ['kv-0', 'kv-1', 'kv-2'], 2)];
    expect([1, 3].map((workers) => workersOnAdoption(workers, single))).to.deep.equal([1, 3]);
    expect([1, 3].map((workers) => workersOnAdoption(workers, double))).to.deep.equal([2, 3]);
  });

  it('says by the map it has heard of whom it waits for who is not there yet', () => {
    const map = mapOf(ID, 3);
    const decision = decideBootstrap({ members: members(holds(ID, map), holds(ID, map)) });
    expect(decision).to.deep.include({ kind: 'wait', waitingFor: ['kv-2'], map });
  });

  it('knows no newest map among none', () => {
    expect(newestMap([])).to.equal(undefined);
  });
});
