import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import {
  Agent as HttpsAgent,
  type AgentOptions,
  type RequestOptions,
  request as httpsRequest,
} from 'node:https';
import { createInterface } from 'node:readline';
import { KubeConfig } from '@kubernetes/client-node';
import { abortReason, type Scheduler } from '../../common/clock.ts';
import { ApiError, type KubernetesApi, type KubernetesCall, type WatchEvent } from './api.ts';

export type {
  V1Affinity,
  V1Container,
  V1CronJob,
  V1Job,
  V1OwnerReference,
  V1PersistentVolumeClaim,
  V1PersistentVolumeClaimSpec,
  V1Pod,
  V1PodDisruptionBudget,
  V1PodSecurityContext,
  V1PodSpec,
  V1ResourceRequirements,
  V1SecurityContext,
  V1Service,
  V1StatefulSet,
  V1Toleration,
  V1TopologySpreadConstraint,
  V1Volume,
} from '@kubernetes/client-node';

const DEFAULT_TIMEOUT_MS = 15_000;

/**
 * Connects to the API server named by `kubeconfig` (a file), by $KUBECONFIG or, in a pod, by the service account. Credentials, certificates and
 * their renewal are client-node's; bodies go out and come in as raw JSON, because its typed serializers drop fields
 * that they do not know.
 *
 * @throws when there is no configuration to be found.
 */
export function connectToKubernetes(scheduler: Scheduler, kubeconfig?: string): KubernetesApi {
  const config = new KubeConfig();
  if (kubeconfig === undefined) config.loadFromDefault();
  else config.loadFromFile(kubeconfig);
  const cluster = config.getCurrentCluster();
  if (cluster === null) throw new Error('no Kubernetes cluster: neither $KUBECONFIG nor a service account');
  return new HttpKubernetesApi(config, cluster.server, scheduler);
}

/** The namespace of the service account or of the kubeconfig's context; `default` when neither names one. */
export function namespaceOfConfig(): string {
  const config = new KubeConfig();
  config.loadFromDefault();
  const context = config.getContextObject(config.getCurrentContext());
  return context?.namespace ?? 'default';
}

class HttpKubernetesApi implements KubernetesApi {
  private readonly config: KubeConfig;
  private readonly server: string;
  private readonly scheduler: Scheduler;
  /** Kept connections, replaced when the certificates change. */
  private agent: { key: string; agent: HttpAgent | HttpsAgent } | undefined;

  constructor(config: KubeConfig, server: string, scheduler: Scheduler) {
    this.config = config;
    this.server = server;
    this.scheduler = scheduler;
  }

  async request<T>(call: KubernetesCall): Promise<T> {
    const timeoutMs = call.timeoutMs ?? DEFAULT_TIMEOUT_MS;
    const expiry = new AbortController();
    const timer = this.scheduler.after(timeoutMs, () => {
      expiry.abort(
        new ApiError(0, 'Timeout', `${call.method} ${call.path} took longer than ${timeoutMs} ms`),
      );
    });
    const signal = call.signal === undefined ? expiry.signal : AbortSignal.any([call.signal, expiry.signal]);
    try {
      const response = await this.send(call, signal);
      const text = await readText(response, signal);
      if ((response.statusCode ?? 0) >= 300) throw ApiError.fromBody(response.statusCode ?? 0, text);
      return JSON.parse(text) as T;
    } finally {
      timer.cancel();
    }
  }

  async *watch(
    path: string,
    query: Record<string, string>,
    signal: AbortSignal,
  ): AsyncGenerator<WatchEvent, void, undefined> {
    const response = await this.send({ method: 'GET', path, query: { ...query, watch: 'true' } }, signal);
    if ((response.statusCode ?? 0) >= 300) {
      throw ApiError.fromBody(response.statusCode ?? 0, await readText(response, signal));
    }
    // A cut connection ends the lines without an error; the stream's own error tells it apart from a regular end.
    let failure: Error | undefined;
    response.on('error', (error) => (failure = error));
    const lines = createInterface({ input: response, crlfDelay: Infinity });
    try {
      for await (const line of lines) {
        if (line !== '') yield JSON.parse(line) as WatchEvent;
      }
    } finally {
      lines.close();
      response.destroy();
    }
    if (signal.aborted) throw abortReason(signal);
    if (failure !== undefined) throw failure;
  }

  private async send(call: KubernetesCall, signal: AbortSignal): Promise<IncomingMessage> {
    const url = new URL(this.server.replace(/\/$/, '') + call.path);
    for (const [name, value] of Object.entries(call.query ?? {})) url.searchParams.set(name, value);
    const body = call.body === undefined ? undefined : Buffer.from(JSON.stringify(call.body));
    const options: RequestOptions = {};
    await this.config.applyToHTTPSOptions(options);
    const headers: Record<string, string | number> = {
      ...(options.headers as Record<string, string> | undefined),
      accept: 'application/json',
      'user-agent': 'kvcluster-operator',
      ...(body === undefined
        ? {}
        : { 'content-type': call.contentType ?? 'application/json', 'content-length': body.length }),
    };
    const agent = this.agentFor(url.protocol, options);
    return new Promise((resolve, reject) => {
      const start = url.protocol === 'http:' ? httpRequest : httpsRequest;
      const request = start(url, { ...options, agent, method: call.method, headers, signal });
      request.on('response', resolve);
      request.on('error', (error) => reject(signal.aborted ? abortReason(signal) : error));
      request.end(body);
    });
  }

  private agentFor(protocol: string, options: RequestOptions): HttpAgent | HttpsAgent {
    const credentials = credentialsOf(options);
    const key = JSON.stringify(credentials);
    if (this.agent?.key !== key) {
      const settings = { keepAlive: true, maxFreeSockets: 16 };
      const agent =
        protocol === 'http:' ? new HttpAgent(settings) : new HttpsAgent({ ...settings, ...credentials });
      this.agent?.agent.destroy();
      this.agent = { key, agent };
    }
    return this.agent.agent;
  }
}

/** What a connection depends on, so that a renewed certificate is noticed. */
function credentialsOf(options: RequestOptions): AgentOptions {
  const { ca, cert, key, servername, rejectUnauthorized } = options;
  const given = Object.entries({ ca, cert, key, servername, rejectUnauthorized });
  return Object.fromEntries(given.filter(([, value]) => value !== undefined));
}

async function readText(response: IncomingMessage, signal: AbortSignal): Promise<string> {
  response.setEncoding('utf8');
  let text = '';
  try {
    for await (const chunk of response) text += chunk as string;
  } catch (error) {
    throw signal.aborted ? abortReason(signal) : error;
  }
  return text;
}
