import { writeFileSync } from 'node:fs';
import type { Operation } from './history.ts';
import { formatVersion } from '../../model/version.ts';
import type { PlantedRule } from './planted-bugs.ts';
import { simulate, type SimulationResult } from './simulate.ts';

const LAST_LINES = 120;
const MOST_OPERATIONS = 60;

export interface ReplayOptions {
  readonly seed: number;
  readonly broken?: PlantedRule | undefined;
  /** Where the whole history goes. */
  readonly historyFile?: string | undefined;
}

/** Runs one seed again and tells a person how it went wrong; false when it did. */
export async function replay({ seed, broken, historyFile }: ReplayOptions): Promise<boolean> {
  const result = await simulate({ seed, broken, keepTrace: true });
  const { settings, trace } = result.world;
  if (historyFile !== undefined) writeFileSync(historyFile, `${trace.lines.join('\n')}\n`);
  console.log(
    `seed ${seed}: ${settings.nodes} nodes, ${settings.partitions} partitions, faults: ${settings.faults.join(', ')}`,
  );
  if (result.violations.length > 0) tell(result);
  console.log(
    `${result.operations} operations, ${result.events} events, ${(result.simulatedMs / 1000).toFixed(1)} s of simulated time; trace ${result.hash}`,
  );
  console.log(result.violations.length === 0 ? 'every invariant held' : 'VIOLATED, as said above');
  return result.violations.length === 0;
}

function tell({ world, violations }: SimulationResult): void {
  const { trace, checker, members } = world;
  console.log('\nlast events (all nodes):');
  for (const line of trace.lines.filter((each) => !each.includes(' heartbeat ')).slice(-LAST_LINES))
    console.log(line);
  console.log('\nfaults:');
  for (const line of trace.lines
    .filter((each) => /fault:|rolled back|started|exited|faults end/.test(each))
    .slice(-LAST_LINES))
    console.log(line);
  for (const key of new Set(violations.flatMap((each) => each.key ?? []))) {
    console.log(`\noperations on ${key}:`);
    for (const operation of checker.operations.filter((each) => each.key === key).slice(-MOST_OPERATIONS))
      console.log(describe(operation));
    console.log(`\n${key} in the stores:`);
    for (const { nodeId, running } of members) {
      const record = running?.store.get(Buffer.from(key, 'latin1'));
      const held =
        record === undefined
          ? 'nothing'
          : `${record.tombstone ? 'deleted' : 'a value'} at ${formatVersion(record.version)}`;
      console.log(`${nodeId}: ${running === undefined ? 'does not run' : held}`);
    }
  }
  console.log('\nnodes:');
  for (const { nodeId, running } of members) {
    const status = running?.replica.status();
    console.log(
      `${nodeId}: ${status === undefined ? 'does not run' : JSON.stringify({ ...status, peers: undefined })}`,
    );
  }
  console.log('\nviolations:');
  for (const { invariant, what, atMs } of violations)
    console.log(`${atMs.toFixed(2)}  ${invariant}: ${what}`);
}

function describe(operation: Operation): string {
  const { id, client, kind, consistency, node, startMs, endMs, outcome, version, readFrom, ttlMs, detail } =
    operation;
  return [
    `#${id}`.padStart(6),
    `${startMs.toFixed(1)}-${endMs.toFixed(1)}`,
    `${client} ${kind} ${consistency} at ${node}: ${outcome}`,
    version === undefined ? '' : formatVersion(version),
    readFrom === undefined ? '' : `the value of #${readFrom}`,
    ttlMs === undefined ? '' : `for ${ttlMs} ms`,
    detail,
  ]
    .filter((part) => part !== '')
    .join(' ');
}
