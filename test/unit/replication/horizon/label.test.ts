import { expect } from 'chai';
import { sealMap, type ClusterMap, type Member } from '../../../../model/cluster-map.ts';
import { Disturbances } from '../../../../node/replication/horizon/label.ts';
import { memberNamed } from '../../../support/member.ts';

const mapOf = (epoch: number, states: Partial<Record<string, Member['state']>> = {}): ClusterMap => {
  const members = ['kv-0', 'kv-1', 'kv-2'].map((name) => ({
    ...memberNamed(name),
    state: states[name] ?? ('active' as const),
  }));
  return sealMap({
    clusterId: 'c0ffee00c0ffee00c0ffee00c0ffee00',
    namespace: 'default',
    name: 'kv',
    epoch,
    partitions: 1,
    replicationFactor: 3,
    initialised: true,
    members,
    retired: [],
    assignment: [[0, 1, 2]],
  });
};

describe('the label of what has happened to the members', () => {
  const volumes = { 'kv-0': 100, 'kv-1': 101, 'kv-2': 102 };
  const knowing = (self: keyof typeof volumes, unclean: Partial<typeof volumes> = {}): Disturbances => {
    const volumeOf = (name: keyof typeof volumes) => ({
      incarnation: volumes[name],
      uncleanBoot: unclean[name] ?? 0,
    });
    const disturbances = new Disturbances({ nodeId: self, volume: () => volumeOf(self) });
    for (const name of Object.keys(volumes) as (keyof typeof volumes)[]) {
      if (name !== self) disturbances.heard(name, volumeOf(name));
    }
    return disturbances;
  };
  const labelOf = (disturbances: Disturbances, map = mapOf(3), announced = map.epoch): string => {
    const label = disturbances.label(map, () => announced);
    return label.kind === 'known' ? label.bytes.toString('hex') : `${label.member} ${label.why}`;
  };

  it('is the same at members that know the same', () => {
    expect(labelOf(knowing('kv-0'))).to.equal(labelOf(knowing('kv-2')));
    expect(labelOf(knowing('kv-0'))).to.match(/^[0-9a-f]{32}$/);
  });

  it('changes with the epoch, an incarnation and an unclean start of any member', () => {
    const labels = [
      labelOf(knowing('kv-0')),
      labelOf(knowing('kv-0'), mapOf(4)),
      labelOf(knowing('kv-0', { 'kv-1': 9 })),
      labelOf(knowing('kv-0', { 'kv-0': 9 })),
    ];
    const replaced = knowing('kv-0');
    replaced.heard('kv-2', { incarnation: 777, uncleanBoot: 0 });
    labels.push(labelOf(replaced));
    expect(new Set(labels).size).to.equal(labels.length);
  });

  it('does not change with an unclean start when freezeAfterUncleanStart is switched off', () => {
    const labels = [0, 9].map((uncleanBoot) =>
      labelOf(
        new Disturbances({
          nodeId: 'kv-0',
          volume: () => ({ incarnation: 100, uncleanBoot }),
          rules: { freezeAfterUncleanStart: false },
        }),
        sealMap({ ...mapOf(3), members: [memberNamed('kv-0')], assignment: [[0]] }),
      ),
    );
    expect(labels[0]).to.match(/^[0-9a-f]{32}$/);
    expect(labels[1]).to.equal(labels[0]);
  });

  it('is unknown until every member has been heard of since this start', () => {
    const disturbances = new Disturbances({
      nodeId: 'kv-0',
      volume: () => ({ incarnation: 1, uncleanBoot: 0 }),
    });
    disturbances.heard('kv-1', { incarnation: 2, uncleanBoot: 0 });
    expect(labelOf(disturbances)).to.match(/^kv-2 has not been heard of/);
  });

  it('is unknown until every member that is not down has the map', () => {
    const late = (name: string): number => (name === 'kv-1' ? 2 : 3);
    const label = knowing('kv-0').label(mapOf(3), late);
    expect(label).to.deep.include({ kind: 'unknown', member: 'kv-1' });
    expect(knowing('kv-0').label(mapOf(3, { 'kv-1': 'down' }), late).kind).to.equal('known');
  });

  it('names the member of an incarnation', () => {
    expect(knowing('kv-0').memberOf(102)).to.equal('kv-2');
    expect(knowing('kv-0').memberOf(100)).to.equal('kv-0');
    expect(knowing('kv-0').memberOf(5)).to.equal(undefined);
  });
});
