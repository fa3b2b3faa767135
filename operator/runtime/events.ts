import type { Clock } from '../../common/clock.ts';
import { messageOf } from '../../common/errors.ts';
import type { Logger } from '../../common/log.ts';
import type { KubernetesApi, KubernetesObject } from './api.ts';
import { pathOf, resources } from './resource.ts';

export interface EventContent {
  readonly type: 'Normal' | 'Warning';
  /** In CamelCase, for programs. */
  readonly reason: string;
  /** For people. */
  readonly message: string;
}

export interface EventRecorderOptions {
  readonly api: KubernetesApi;
  readonly clock: Clock;
  readonly log: Logger;
  /** Which operator process speaks. */
  readonly instance: string;
}

const MAX_MESSAGE_LENGTH = 1024;

/** Tells what happened to an object, for `kubectl describe`. A failure is logged and changes nothing else. */
export class EventRecorder {
  private readonly options: EventRecorderOptions;

  constructor(options: EventRecorderOptions) {
    this.options = options;
  }

  async record(about: KubernetesObject, content: EventContent, signal: AbortSignal): Promise<void> {
    const { api, clock, log, instance } = this.options;
    const { name, namespace = 'default', uid, resourceVersion } = about.metadata;
    const now = new Date(clock.wallMs()).toISOString();
    const event = {
      apiVersion: resources.events.apiVersion,
      kind: resources.events.kind,
      metadata: { generateName: `${name}.`, namespace },
      involvedObject: {
        apiVersion: about.apiVersion,
        kind: about.kind,
        name,
        namespace,
        uid,
        resourceVersion,
      },
      type: content.type,
      reason: content.reason,
      message: content.message.slice(0, MAX_MESSAGE_LENGTH),
      source: { component: 'kvcluster-operator' },
      reportingComponent: 'kvcluster.io/operator',
      reportingInstance: instance,
      firstTimestamp: now.replace(/\.\d+Z$/, 'Z'),
      lastTimestamp: now.replace(/\.\d+Z$/, 'Z'),
      count: 1,
    };
    try {
      await api.request({
        method: 'POST',
        path: pathOf(resources.events, { namespace }),
        body: event,
        signal,
      });
    } catch (error) {
      if (!signal.aborted)
        log.warn({ reason: messageOf(error), event: content.reason }, 'could not record an event');
    }
  }
}
