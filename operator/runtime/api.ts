/** What the operator needs of an API server: raw JSON calls and watches. */
export interface KubernetesApi {
  /** @throws ApiError for an answer of 300 and above, and (status 0) when the call takes too long. */
  request<T>(call: KubernetesCall): Promise<T>;
  /** Events until the server ends the watch; throws when the connection breaks. */
  watch(path: string, query: Record<string, string>, signal: AbortSignal): AsyncIterable<WatchEvent>;
}

export interface KubernetesCall {
  readonly method: 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE';
  /** From the server's root, such as `/api/v1/namespaces/default/pods`. */
  readonly path: string;
  readonly query?: Record<string, string>;
  readonly body?: unknown;
  /** @default application/json */
  readonly contentType?: string;
  readonly signal?: AbortSignal;
  /** @default 15000 */
  readonly timeoutMs?: number;
}

export interface WatchEvent {
  readonly type: 'ADDED' | 'MODIFIED' | 'DELETED' | 'BOOKMARK' | 'ERROR';
  readonly object: KubernetesObject & { readonly code?: number; readonly message?: string };
}

export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly generation?: number;
  readonly creationTimestamp?: string;
  readonly deletionTimestamp?: string;
  readonly labels?: Readonly<Record<string, string>>;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly ownerReferences?: readonly OwnerReference[];
}

export interface OwnerReference {
  readonly apiVersion: string;
  readonly kind: string;
  readonly name: string;
  readonly uid: string;
  readonly controller?: boolean;
  readonly blockOwnerDeletion?: boolean;
}

/** Any object, as JSON. */
export interface KubernetesObject {
  readonly apiVersion?: string;
  readonly kind?: string;
  readonly metadata: ObjectMeta;
}

/** client-node's types describe timestamps as Date; in JSON they are strings. */
export type Wire<T> = T extends Date
  ? string
  : T extends (infer Item)[]
    ? Wire<Item>[]
    : T extends object
      ? { [Key in keyof T]: Wire<T[Key]> }
      : T;

/** An object of a client-node type as JSON, rendered by us or read from the server. */
export type Json<T> = Omit<Wire<T>, 'metadata'> & { readonly metadata: ObjectMeta };

/** A refusal by the API server, or (status 0) no answer. */
export class ApiError extends Error {
  override readonly name = 'ApiError';
  /** HTTP status. */
  readonly status: number;
  /** Machine readable, such as `Conflict`, `Invalid`, `AlreadyExists`. */
  readonly reason: string;

  constructor(status: number, reason: string, message: string) {
    super(message);
    this.status = status;
    this.reason = reason;
  }

  static fromBody(status: number, body: string): ApiError {
    try {
      const { reason = '', message = '' } = JSON.parse(body) as { reason?: string; message?: string };
      return new ApiError(status, reason, message === '' ? `HTTP ${status}` : message);
    } catch {
      return new ApiError(status, '', `HTTP ${status}: ${body.slice(0, 200)}`);
    }
  }
}

/** Whether the object, or the whole resource, does not exist. */
export function isNotFound(error: unknown): boolean {
  return error instanceof ApiError && error.status === 404;
}

/** Whether somebody else was faster: the object exists already, has changed, or is another one than expected. */
export function isConflict(error: unknown): boolean {
  return error instanceof ApiError && error.status === 409;
}

/** Whether a list or watch must begin anew, because the server has forgotten the version asked for. */
export function isGone(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 410 || error.reason === 'Expired');
}

/** Whether the content was refused: sending the same again cannot help. */
export function isInvalid(error: unknown): boolean {
  return error instanceof ApiError && (error.status === 422 || error.status === 400);
}
