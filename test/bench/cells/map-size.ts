import { deflateSync } from 'node:zlib';
import { mapToProto } from '../../../client/cluster-map-codec.ts';
import { canonicalJson, sealMap, type Member } from '../../../model/cluster-map.ts';
import { place } from '../../../model/placement.ts';
import { ClusterMap } from '../../../proto/gen/kvstore.ts';
import type { Bench } from '../bench.ts';

const NODES = 200;
const PARTITIONS = 4096;
const ZONES = 3;

/** How large the map of a large cluster is, and how long it takes to place. */
export function mapSize({ results }: Bench): void {
  const members = Array.from({ length: NODES }, (_, index): Member => {
    const nodeId = `large-${index}`;
    const ports = { clientPort: 50_051, peerPort: 50_052, httpPort: 9090 };
    return { nodeId, host: nodeId, ...ports, zone: `zone-${index % ZONES}`, state: 'active', pod: nodeId };
  });
  const startMs = performance.now();
  const assignment = place({ members, partitions: PARTITIONS, replicationFactor: 3 });
  const placedMs = performance.now();
  const map = sealMap({
    clusterId: '0'.repeat(32),
    namespace: 'default',
    name: 'large',
    epoch: 1,
    partitions: PARTITIONS,
    replicationFactor: 3,
    initialised: true,
    members,
    retired: [],
    assignment,
  });
  const json = canonicalJson(map);
  const about = `${NODES} nodes and ${PARTITIONS} partitions`;
  const figures = [
    { id: 'place-ms', title: `placing ${about} anew`, value: placedMs - startMs, unit: 'ms' },
    {
      id: 'map-json',
      title: `map of ${about} as JSON, as the operator stores it`,
      value: json.length / 1024,
      unit: 'KiB',
    },
    { id: 'map-deflated', title: `the same deflated`, value: deflateSync(json).length / 1024, unit: 'KiB' },
    {
      id: 'map-wire',
      title: `the same on the wire`,
      value: ClusterMap.encode(mapToProto(map)).finish().length / 1024,
      unit: 'KiB',
    },
  ];
  for (const figure of figures) results.addFigure(figure);
}
