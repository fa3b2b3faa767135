import {
  loadPackageDefinition,
  type ClientDuplexStream,
  type ClientReadableStream,
  type ServiceClientConstructor,
  type ServiceError,
} from '@grpc/grpc-js';
import { loadSync, type PackageDefinition } from '@grpc/proto-loader';
import { expect } from 'chai';
import { protoPath as healthProto } from 'grpc-health-check';
import { once } from 'node:events';
import { join } from 'node:path';
import { plaintext } from '../../client/grpc.ts';
import { NodeHome, NodeProcess } from '../support/node-process.ts';

const reflectionProto = join(
  import.meta.dirname,
  '../../node_modules/@grpc/reflection/build/proto/grpc/reflection/v1/reflection.proto',
);

interface HealthClient {
  check(
    request: { service: string },
    done: (error: ServiceError | null, answer?: { status: string }) => void,
  ): unknown;
  watch(request: { service: string }): ClientReadableStream<{ status: string }>;
  close(): void;
}

interface ReflectionClient {
  serverReflectionInfo(): ClientDuplexStream<object, Record<string, unknown>>;
  close(): void;
}

/** A client of a standard service, as any tool that knows nothing of this software would make it. */
function clientOf(definition: PackageDefinition, path: readonly string[], address: string): unknown {
  const found = path.reduce<unknown>(
    (inner, name) => (inner as Record<string, unknown>)[name],
    loadPackageDefinition(definition),
  );
  return new (found as ServiceClientConstructor)(address, plaintext());
}

describe('standard services of a node', () => {
  const home = new NodeHome();
  let node: NodeProcess;
  before(async () => {
    node = await NodeProcess.start({ home, flags: { 'drain-serve-ms': '3000' } });
  });
  after(async () => {
    await node[Symbol.asyncDispose]();
    home[Symbol.dispose]();
  });

  it('list and describe the API by reflection', async () => {
    const definition = loadSync(reflectionProto);
    const path = ['grpc', 'reflection', 'v1', 'ServerReflection'];
    const client = clientOf(definition, path, node.clientAddress) as ReflectionClient;
    const call = client.serverReflectionInfo();
    const ask = async (request: object): Promise<Record<string, unknown>> => {
      call.write(request);
      const [answer] = (await once(call, 'data')) as [Record<string, unknown>];
      return answer;
    };
    const { listServicesResponse } = await ask({ listServices: '' });
    const services = (listServicesResponse as { service: { name: string }[] }).service.map(
      ({ name }) => name,
    );
    expect(services).to.include.members(['kvstore.KeyValueStore', 'grpc.health.v1.Health']);
    const { fileDescriptorResponse } = await ask({ fileContainingSymbol: 'kvstore.KeyValueStore' });
    const files = (fileDescriptorResponse as { fileDescriptorProto: Buffer[] }).fileDescriptorProto;
    const text = Buffer.concat(files).toString('latin1');
    for (const name of ['PutRequest', 'ttl_ms', 'DescribeCluster']) expect(text).to.contain(name);
    call.end();
    client.close();
  });

  it('report health as readiness changes, to the end', async () => {
    const definition = loadSync(healthProto, { enums: String });
    const client = clientOf(
      definition,
      ['grpc', 'health', 'v1', 'Health'],
      node.clientAddress,
    ) as HealthClient;
    const check = (service: string): Promise<unknown> =>
      new Promise((resolve) => {
        client.check({ service }, (error, answer) => resolve(error === null ? answer?.status : error.code));
      });
    const seen: string[] = [];
    const watch = client.watch({ service: 'kvstore.KeyValueStore' });
    watch.on('data', ({ status }: { status: string }) => seen.push(status));
    watch.on('error', () => undefined);
    expect([await check(''), await check('kvstore.KeyValueStore'), await check('other')]).to.deep.equal([
      'NOT_SERVING',
      'NOT_SERVING',
      5,
    ]);
    await node.joinAlone();
    await once(watch, 'data');
    expect(await check('kvstore.KeyValueStore')).to.equal('SERVING');
    const left = once(watch, 'data');
    const exit = node.kill('SIGTERM');
    await left;
    expect(seen).to.deep.equal(['NOT_SERVING', 'SERVING', 'NOT_SERVING']);
    watch.cancel();
    client.close();
    expect(await exit).to.deep.equal({ code: 0, signal: null });
  });
});
