import { isDeepStrictEqual } from 'node:util';
import type { Socket } from 'node:net';
import type { Scheduler } from '../../common/clock.ts';
import { messageOf } from '../../common/errors.ts';
import type { Node } from '../node.ts';
import { type FromWorker, STATE_EVERY_MS, type ToWorker, type WorkerState } from './messages.ts';

/** How late a change may be told, milliseconds. */
const LOOK_EVERY_MS = 100;
const LOOKS_PER_STATE = STATE_EVERY_MS / LOOK_EVERY_MS;

type Linked = Pick<
  Node,
  'isListening' | 'notReadyReason' | 'unhealthyReason' | 'podMembers' | 'takeClient' | 'metricsText'
>;

/**
 * Makes this process a worker of the one that started it, if that one opened a channel: tells it how the node stands,
 * takes clients from it, and ends with it. Otherwise nothing happens.
 */
export function attachToPod(starting: Promise<Linked>, scheduler: Scheduler): void {
  if (process.send === undefined) return;
  let node: Linked | undefined;
  starting.then(
    (started) => {
      node = started;
    },
    () => undefined, // Told and acted upon by who started it.
  );
  process.once('disconnect', () => process.kill(process.pid, 'SIGTERM'));
  process.on('message', (message, handle) => void receive(node, message as ToWorker, handle as Socket));
  let told: WorkerState | undefined;
  let looks = 0;
  const look = (): void => {
    if (!process.connected) return;
    const state = stateOf(node);
    looks += 1;
    if (looks % LOOKS_PER_STATE === 0 || !isDeepStrictEqual(state, told)) send({ kind: 'state', state });
    told = state;
    scheduler.after(LOOK_EVERY_MS, look);
  };
  look();
}

function stateOf(node: Linked | undefined): WorkerState {
  if (node === undefined) return { listening: false, notReadyReason: 'starting', podMembers: [] };
  const { isListening: listening, notReadyReason, unhealthyReason, podMembers } = node;
  return { listening, notReadyReason, unhealthyReason, podMembers };
}

async function receive(node: Linked | undefined, message: ToWorker, connection?: Socket): Promise<void> {
  switch (message.kind) {
    case 'client':
      // The client may have gone while its connection was handed over.
      if (connection === undefined) return;
      if (node === undefined) connection.destroy();
      else node.takeClient(connection);
      return;
    case 'metrics': {
      const { id } = message;
      const text = await (node?.metricsText() ?? Promise.resolve('')).catch(
        (error: unknown) => `# ${messageOf(error)}\n`,
      );
      send({ kind: 'metrics', id, text });
    }
  }
}

/** The parent may go at any moment; that is seen by the end of the channel. */
function send(message: FromWorker): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => undefined);
}
