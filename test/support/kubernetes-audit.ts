import { createReadStream, statSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { auditLogPath } from '../cluster/layout.ts';

/** One finished request to the API server, as its audit log has it. */
export interface AuditEvent {
  auditID: string;
  stage: 'ResponseStarted' | 'ResponseComplete' | 'Panic';
  verb: string;
  requestURI: string;
  userAgent?: string;
  user: { username: string; groups?: string[] };
  impersonatedUser?: { username: string };
  objectRef?: {
    apiGroup?: string;
    resource: string;
    subresource?: string;
    namespace?: string;
    name?: string;
  };
  responseStatus?: { code?: number; reason?: string; message?: string };
  /** When the request came, ISO 8601 in microseconds. */
  requestReceivedTimestamp: string;
  /** `authorization.k8s.io/decision` is `allow` or `forbid`. */
  annotations?: Record<string, string>;
}

const writes = new Set(['create', 'update', 'patch', 'delete', 'deletecollection']);

/** A place in the audit log: what was logged before it is not looked at. */
export type AuditMark = number;

/** The place where the next event will be. Writes that were answered before this call lie before it. */
export function auditMark(): AuditMark {
  return statSync(auditLogPath).size;
}

/**
 * The events after the mark, in the order they were logged: every write (but Leases of the node), and every read of
 * a service account outside kube-system. Watches appear when they start and when they end.
 */
export async function auditEvents(since: AuditMark = 0): Promise<AuditEvent[]> {
  const end = auditMark();
  if (end <= since) return [];
  const lines = createInterface({ input: createReadStream(auditLogPath, { start: since, end: end - 1 }) });
  const events: AuditEvent[] = [];
  for await (const line of lines) {
    const event = parse(line);
    if (event !== undefined) events.push(event);
  }
  return events;
}

/** undefined for a line whose end is not written yet. */
function parse(line: string): AuditEvent | undefined {
  try {
    return JSON.parse(line) as AuditEvent;
  } catch {
    return undefined;
  }
}

export const isWrite = (event: AuditEvent): boolean => writes.has(event.verb);

/** User name of a service account, as events have it. */
export const serviceAccountUser = (namespace: string, name: string): string =>
  `system:serviceaccount:${namespace}:${name}`;

/** One line for messages: who did what to which object, and the answer's code. */
export function describeEvent(event: AuditEvent): string {
  const { objectRef: object } = event;
  const kind = [object?.resource, object?.subresource].filter(Boolean).join('/');
  const name = [object?.namespace, object?.name].filter(Boolean).join('/');
  return `${event.user.username} ${event.verb} ${kind} ${name} (${event.responseStatus?.code ?? '?'})`;
}
