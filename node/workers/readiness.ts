import type { WorkerState } from './messages.ts';

/** A worker as its parent knows it; without a state it has not said anything yet, or does not run. */
export interface SeenWorker {
  readonly nodeId: string;
  readonly state: WorkerState | undefined;
}

/**
 * Why clients should be sent to another pod; undefined when this one is ready: at least one worker serves, and so does
 * everyone that a cluster map lists. One that no map lists yet, because the pods of a live cluster get more workers, holds
 * nothing that anybody could miss: were it waited for, the first pod that has it could never be followed by the next.
 */
export function podNotReadyReason(workers: readonly SeenWorker[]): string | undefined {
  const listed = new Set(workers.flatMap(({ state }) => state?.podMembers ?? []));
  const waiting = workers.filter(({ state }) => state === undefined || state.notReadyReason !== undefined);
  const missed =
    waiting.length === workers.length ? waiting : waiting.filter(({ nodeId }) => listed.has(nodeId));
  if (missed.length === 0) return undefined;
  return missed
    .map(
      ({ nodeId, state }) =>
        `${nodeId}: ${state === undefined ? 'not running' : (state.notReadyReason ?? '')}`,
    )
    .join('; ');
}

/** The workers that a client may be handed to: those that are ready, else those that can at least say why not. */
export function servingWorkers<Worker extends SeenWorker>(workers: readonly Worker[]): readonly Worker[] {
  const listening = workers.filter(({ state }) => state?.listening === true);
  const ready = listening.filter(({ state }) => state?.notReadyReason === undefined);
  return ready.length > 0 ? ready : listening;
}
