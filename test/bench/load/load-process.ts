/**
 * A process of its own that puts load on one system: the clients' garbage, histograms and sockets are nobody else's. It
 * does what it is told over IPC and ends with its parent.
 */
import { type Driver, type DriverTarget, openDriver } from './driver.ts';
import { type DataSet, fill } from './fill.ts';
import { runWork } from './run-work.ts';
import type { Measurement, Work } from './work.ts';

export type LoadRequest =
  { readonly kind: 'fill'; readonly data: DataSet } | { readonly kind: 'run'; readonly work: Work };
export type LoadAnswer =
  | { readonly kind: 'filled'; readonly seconds: number }
  | { readonly kind: 'measured'; readonly measurement: Measurement }
  | { readonly kind: 'failed'; readonly message: string };

const target = JSON.parse(process.argv[2] ?? '') as DriverTarget;
const drivers: Driver[] = [];

async function answer(request: LoadRequest): Promise<LoadAnswer> {
  const clients = request.kind === 'run' ? request.work.clients : 1;
  while (drivers.length < clients) drivers.push(await openDriver(target));
  if (request.kind === 'run') {
    return { kind: 'measured', measurement: await runWork(drivers.slice(0, clients), request.work) };
  }
  const [driver] = drivers;
  if (driver === undefined) throw new Error('no driver was opened');
  return { kind: 'filled', seconds: await fill(driver, request.data) };
}

process.on('message', (request: LoadRequest) => {
  answer(request)
    .catch((error: unknown): LoadAnswer => {
      return { kind: 'failed', message: error instanceof Error ? error.message : String(error) };
    })
    .then((message) => process.send?.(message))
    .catch(() => process.exit(1));
});
// Ctrl-C reaches the whole group; the parent decides when this one ends, which also is when it is gone.
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(0));
