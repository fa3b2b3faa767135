import { Client, credentials, type ServiceError } from '@grpc/grpc-js';
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader';
import { join } from 'node:path';

const TIMEOUT_MS = 30_000;

/** The service of a .proto file of this benchmark. */
export function serviceOf(file: string, service: string): ServiceDefinition {
  const path = join(import.meta.dirname, '..', file);
  const definition = loadSync(path, { keepCase: true, longs: Number })[service];
  if (definition === undefined) throw new Error(`${file} has no service ${service}`);
  return definition as ServiceDefinition;
}

/** One unary method over one or several connections, taken in turn. */
export class UnaryClient {
  private readonly clients: readonly Client[];
  private readonly service: ServiceDefinition;
  private turn = 0;

  constructor(endpoints: readonly string[], service: ServiceDefinition) {
    this.service = service;
    this.clients = endpoints.map(
      (endpoint) =>
        new Client(endpoint, credentials.createInsecure(), {
          'grpc.enable_http_proxy': 0,
          'grpc.use_local_subchannel_pool': 1,
          'grpc.max_receive_message_length': 64 * 1024 * 1024,
        }),
    );
  }

  /** @throws the gRPC status as grpc-js gives it. */
  call<Response extends object>(name: string, request: object): Promise<Response> {
    const method = this.service[name];
    const client = this.clients[(this.turn = (this.turn + 1) % this.clients.length)];
    if (method === undefined || client === undefined) throw new Error(`no method ${name}, or no endpoint`);
    return new Promise((resolve, reject) => {
      client.makeUnaryRequest(
        method.path,
        method.requestSerialize,
        method.responseDeserialize,
        request,
        { deadline: Date.now() + TIMEOUT_MS },
        (error: ServiceError | null, response?: object) => {
          if (error === null && response !== undefined) resolve(response as Response);
          else reject(error ?? new Error('no response'));
        },
      );
    });
  }

  close(): void {
    for (const client of this.clients) client.close();
  }
}
