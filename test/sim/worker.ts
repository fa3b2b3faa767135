/** A process of a sweep: runs the seeds it is sent, one at a time, and reports each. */
import { rowsSeen } from './coverage.ts';
import type { SeedReport } from './progress.ts';
import { simulate } from './simulate.ts';
import type { SeedRequest } from './sweep.ts';

process.on('message', (request: SeedRequest) => {
  void report(request).then((answer) => process.send?.(answer));
});

async function report({ seed, broken }: SeedRequest): Promise<SeedReport> {
  const before = process.cpuUsage();
  const result = await simulate({ seed, broken });
  const { user, system } = process.cpuUsage(before);
  return {
    seed,
    hash: result.hash,
    violations: result.violations.map(({ invariant, what }) => ({ invariant, what })),
    rows: rowsSeen(result.seen),
    seen: [...result.seen.keys()],
    operations: result.operations,
    events: result.events,
    simulatedMs: result.simulatedMs,
    cpuMs: (user + system) / 1000,
  };
}
