/** What a pod's parent process and its workers tell each other, over the channel that the parent opened. */

/** How a worker stands. */
export interface WorkerState {
  /** Its ports are open. */
  readonly listening: boolean;
  /** Why clients should be sent elsewhere; undefined when ready. */
  readonly notReadyReason?: string | undefined;
  /** Why the process should be replaced; undefined when it is well. */
  readonly unhealthyReason?: string | undefined;
  /** Members of the pod by the cluster map that it holds; none without a map. */
  readonly podMembers: readonly string[];
}

export type FromWorker =
  /** Sent at every change, and again and again: silence says that the event loop does not turn. */
  | { readonly kind: 'state'; readonly state: WorkerState }
  | { readonly kind: 'metrics'; readonly id: number; readonly text: string };

export type ToWorker =
  /** Comes with a connection of a client, which is the worker's from then on. */
  { readonly kind: 'client' } | { readonly kind: 'metrics'; readonly id: number };

/** How often a worker says how it stands at least, milliseconds. */
export const STATE_EVERY_MS = 1000;
