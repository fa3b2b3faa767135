import {
  Client,
  Metadata,
  ResponderBuilder,
  Server,
  ServerCredentials,
  ServerInterceptingCall,
  logVerbosity,
  setLogVerbosity,
  status,
  type ClientDuplexStream,
  type MethodDefinition,
  type ServerDuplexStream,
  type ServerInterceptor,
  type ServerUnaryCall,
  type ServerWritableStream,
  type ServiceDefinition,
  type StatusObject,
  type UntypedServiceImplementation,
  type sendUnaryData,
} from '@grpc/grpc-js';
import { ReflectionService } from '@grpc/reflection';
import { loadSync } from '@grpc/proto-loader';
import { HealthImplementation, protoPath as healthProtoPath } from 'grpc-health-check';
import { join } from 'node:path';
import type { Socket } from 'node:net';
import { KvError } from '../../common/errors.ts';
import { hostPort } from './host-port.ts';

export { Client, hostPort, Metadata, status };
export type {
  ClientDuplexStream,
  MethodDefinition,
  ServerDuplexStream,
  ServerUnaryCall,
  ServerWritableStream,
  ServiceDefinition,
  StatusObject,
  UntypedServiceImplementation,
  sendUnaryData,
};

/** Bounds and habits of one listening port. */
export interface RpcServerOptions {
  /** Largest message in either direction, bytes. */
  readonly maxMessageBytes: number;
  /**
   * Connections are asked to go after this long, milliseconds, so that clients look their servers up again; undefined:
   * never. Clients of grpc-js see new pods only this way.
   */
  readonly maxConnectionAgeMs?: number;
  /** Told of calls that gRPC itself ends for the size of a message, in either direction: no handler hears of it. */
  readonly tooLarge?: (path: string) => void;
}

/** Calls in flight on one connection. */
const MAX_CONCURRENT_STREAMS = 8192;
const KEEPALIVE_MS = 30_000;
const KEEPALIVE_TIMEOUT_MS = 10_000;
/** How long calls may go on after their connection was asked to go, milliseconds. */
const CONNECTION_AGE_GRACE_MS = 30_000;
/** Window of HTTP/2 flow control: streams of records between nodes would otherwise wait for each 64 KiB. */
const FLOW_CONTROL_WINDOW_BYTES = 1024 * 1024;

/** One gRPC server on one port. */
export class RpcServer {
  private readonly server: Server;
  private boundTo: string | undefined;
  /** For connections that were accepted elsewhere; made with the first one. */
  private injector: ReturnType<Server['createConnectionInjector']> | undefined;
  private ended = false;

  constructor(options: RpcServerOptions) {
    // It writes to standard error what its callers are told anyway.
    setLogVerbosity(logVerbosity.NONE);
    this.server = new Server({
      'grpc.max_receive_message_length': options.maxMessageBytes,
      'grpc.max_send_message_length': options.maxMessageBytes,
      'grpc.max_concurrent_streams': MAX_CONCURRENT_STREAMS,
      // Counts that nobody reads.
      'grpc.enable_channelz': 0,
      'grpc.keepalive_time_ms': KEEPALIVE_MS,
      'grpc.keepalive_timeout_ms': KEEPALIVE_TIMEOUT_MS,
      'grpc-node.flow_control_window': FLOW_CONTROL_WINDOW_BYTES,
      ...(options.tooLarge === undefined ? {} : { interceptors: [noticeTooLarge(options.tooLarge)] }),
      ...(options.maxConnectionAgeMs === undefined
        ? {}
        : {
            'grpc.max_connection_age_ms': options.maxConnectionAgeMs,
            'grpc.max_connection_age_grace_ms': CONNECTION_AGE_GRACE_MS,
          }),
    });
  }

  addService(definition: ServiceDefinition, implementation: UntypedServiceImplementation): void {
    this.server.addService(definition, implementation);
  }

  /** Adds grpc.health.v1; statuses are set on what it returns. */
  addHealth(services: readonly string[]): HealthImplementation {
    const health = new HealthImplementation(
      Object.fromEntries(services.map((service) => [service, 'NOT_SERVING' as const])),
    );
    health.addToServer(this.server);
    return health;
  }

  /** Adds reflection (v1 and v1alpha) of the named .proto files of a directory, and of the health service. */
  addReflection(protoDirectory: string, files: readonly string[]): void {
    const definition = loadSync([...files.map((file) => join(protoDirectory, file)), healthProtoPath], {
      includeDirs: [protoDirectory],
      keepCase: true,
    });
    new ReflectionService(definition).addToServer(this.server);
  }

  /**
   * Listens; the result is the port that was bound.
   *
   * @throws KvError FAILED_PRECONDITION naming the address when it is taken or not ours.
   */
  bind(host: string, port: number): Promise<number> {
    return new Promise((resolve, reject) => {
      this.server.bindAsync(hostPort(host, port), ServerCredentials.createInsecure(), (error, bound) => {
        if (error !== null) {
          const reason = /(EADDRINUSE|EADDRNOTAVAIL|EACCES)/.exec(error.message)?.[1];
          const words = reason === undefined ? error.message : LISTEN_ERRORS[reason];
          reject(
            new KvError(
              'FAILED_PRECONDITION',
              `cannot listen on ${hostPort(host, port)}: ${words ?? reason}`,
            ),
          );
          return;
        }
        this.boundTo = hostPort(host, bound);
        resolve(bound);
      });
    });
  }

  /** Serves a connection that another process has accepted. After the end it is closed. */
  take(connection: Socket): void {
    if (this.ended) {
      connection.destroy();
      return;
    }
    this.injector ??= this.server.createConnectionInjector(ServerCredentials.createInsecure());
    this.injector.injectConnection(connection);
  }

  /** Asks all connections to go elsewhere (GOAWAY); calls under way may finish within `graceMs`, new connections are taken. */
  sendGoAway(graceMs: number): void {
    if (this.boundTo !== undefined) this.server.drain(this.boundTo, graceMs);
    this.injector?.drain(graceMs);
  }

  /** Stops listening and resolves when the last call has ended. */
  finish(): Promise<void> {
    this.ended = true;
    return new Promise((resolve) => {
      this.server.tryShutdown(() => resolve());
    });
  }

  /** Stops listening and cuts all connections. Idempotent. */
  kill(): void {
    this.ended = true;
    this.server.forceShutdown();
  }
}

/** Statuses of handlers come through the responder; gRPC gives its own to the call beneath. */
function noticeTooLarge(tooLarge: (path: string) => void): ServerInterceptor {
  return ({ path }, call) => {
    let answered = false;
    const send = call.sendStatus.bind(call);
    call.sendStatus = (result) => {
      if (!answered && result.code === status.RESOURCE_EXHAUSTED) tooLarge(path);
      answered = true;
      send(result);
    };
    const responder = new ResponderBuilder().withSendStatus((result, next) => {
      answered = true;
      next(result);
    });
    return new ServerInterceptingCall(call, responder.build());
  };
}

const LISTEN_ERRORS: Readonly<Record<string, string>> = {
  EADDRINUSE: 'the port is in use by another process',
  EADDRNOTAVAIL: 'this machine does not have that address',
  EACCES: 'this user may not listen there',
};

/** The same method with its messages left as bytes, for those who decode by themselves. */
export function bytesMethod(path: string): MethodDefinition<Buffer, Buffer> {
  const same = (bytes: Buffer): Buffer => bytes;
  return {
    path,
    requestStream: true,
    responseStream: true,
    requestSerialize: same,
    requestDeserialize: same,
    responseSerialize: same,
    responseDeserialize: same,
  };
}
