import { expect } from 'chai';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { plaintext } from '../../client/grpc.ts';
import { decodeChunk, decodeManifest, MANIFEST_NAME } from '../../common/backup-format.ts';
import { compareVersions } from '../../model/version.ts';
import { KeyValueStoreService, type BackupResponse, type PingResponse } from '../../proto/gen/kvstore.ts';
import { Client, status } from '../../node/rpc/grpc.ts';
import { NodeHome, NodeProcess } from '../support/node-process.ts';
import { PlainClient, unary, type WireError } from '../support/unary.ts';
import { waitFor } from '../support/wait.ts';

describe('a node', () => {
  const home = new NodeHome();
  let node: NodeProcess;
  let client: PlainClient;
  before(async () => {
    node = await NodeProcess.startAlone({ home, flags: { 'max-value-bytes': '65536' } });
    client = new PlainClient(node.client());
  });
  after(async () => {
    client[Symbol.dispose]();
    await node[Symbol.asyncDispose]();
    home[Symbol.dispose]();
  });

  describe('operations', () => {
    it('stores, overwrites, reads and deletes', async () => {
      expect(await client.get('a')).to.equal(undefined);
      expect(await client.put('a', 'one')).to.deep.include({ oldFound: false, oldValue: Buffer.alloc(0) });
      expect(await client.put('a', '')).to.deep.include({ oldFound: true, oldValue: Buffer.from('one') });
      expect(await client.get('a')).to.equal('');
      expect(await client.put('a', 'two')).to.deep.include({ oldFound: true, oldValue: Buffer.alloc(0) });
      expect(await client.delete('a')).to.equal(true);
      expect(await client.delete('a')).to.equal(false);
      expect(await client.get('a')).to.equal(undefined);
    });

    it('gives each write of a key a higher version', async () => {
      const first = await client.put('versioned', '1');
      const second = await client.put('versioned', '2');
      // Often within the same millisecond.
      expect(compareVersions(second.version!, first.version!)).to.be.greaterThan(0);
    });

    it('forgets a value when its time to live is over, and says how long that takes', async () => {
      await client.put('fleeting', 'x', { ttlMs: 400 });
      const request = { key: Buffer.from('fleeting'), consistency: 0 as const, minVersion: undefined };
      const answer = await unary<{ remainingTtlMs?: number | undefined }>((metadata, options, done) =>
        client.stub.get(request, metadata, options, done),
      );
      expect(answer.remainingTtlMs).to.be.within(0, 400);
      await waitFor(
        { what: 'the value to expire', timeoutMs: 3000, intervalMs: 20 },
        async () => (await client.get('fleeting')) === undefined,
      );
      expect((await client.list({ prefix: 'fleeting' })).keys).to.deep.equal([]);
      expect(await client.delete('fleeting')).to.equal(false);
    });

    it('lists keys in order, by prefix, after a key, and in pages', async () => {
      const keys = Array.from({ length: 25 }, (_, index) => `list/${String(index).padStart(2, '0')}`);
      await Promise.all(keys.toReversed().map((key) => client.put(key, 'v')));
      await client.put('lisu', 'v');
      expect(await client.list({ prefix: 'list/' })).to.deep.equal({ keys, nextPageToken: Buffer.alloc(0) });
      expect((await client.list({ prefix: 'list/', startAfter: 'list/22' })).keys).to.deep.equal(
        keys.slice(23),
      );
      const collected: string[] = [];
      let pages = 0;
      for (let pageToken = Buffer.alloc(0); ; pages += 1) {
        const page = await client.list({ prefix: 'list/', pageSize: 10, pageToken });
        expect(page.keys.length).to.be.at.most(10);
        collected.push(...page.keys);
        pageToken = Buffer.from(page.nextPageToken);
        if (pageToken.length === 0) break;
      }
      expect(collected).to.deep.equal(keys);
      expect(pages).to.equal(2);
    });

    it('answers Ping with who it is', async () => {
      const answer = await unary<PingResponse>((metadata, options, done) =>
        client.stub.ping({}, metadata, options, done),
      );
      expect(answer).to.include({ message: 'OK', nodeId: 'sample-0', epoch: 1 });
      expect(answer.clusterId).to.match(/^[0-9a-f]{32}$/);
      expect(answer.version).to.match(/^\d+\.\d+\.\d+/);
    });

    it('describes the cluster', async () => {
      const { map } = await unary<{ map: { members: { nodeId: string }[] } | undefined }>(
        (metadata, options, done) => client.stub.describeCluster({}, metadata, options, done as never),
      );
      expect(map?.members.map(({ nodeId }) => nodeId)).to.deep.equal(['sample-0']);
    });
  });

  describe('snapshots', () => {
    const take = (): Promise<BackupResponse> =>
      unary<BackupResponse>((metadata, options, done) => client.stub.backup({}, metadata, options, done));
    const snapshots = (): string[] => readdirSync(join(home.dataDir('sample-0'), 'backups')).sort();

    it('hold every record with its key, and verify', async () => {
      await client.put('in-snapshot', 'v');
      const { success, message, name, records } = await take();
      expect({ success, records: records > 0 }).to.deep.equal({ success: true, records: true });
      expect(message).to.contain(name);
      const directory = join(home.dataDir('sample-0'), 'backups', name);
      const manifest = decodeManifest(readFileSync(join(directory, MANIFEST_NAME), 'utf8'));
      expect(manifest).to.include({ kind: 'node', clusterName: 'sample', records });
      const keys: string[] = [];
      for (const chunk of manifest.chunks) {
        const decoded = await decodeChunk(readFileSync(join(directory, chunk.name)), chunk);
        keys.push(...decoded.map(({ key }) => key.toString()));
      }
      expect(keys).to.have.length(records);
      expect(keys).to.include('in-snapshot');
    });

    it('are made one at a time, and the newest two are kept', async () => {
      const names = (await Promise.all([take(), take(), take(), take()])).map(({ name }) => name);
      expect(new Set(names).size).to.equal(2);
      expect(snapshots()).to.deep.equal([...new Set(names)].sort());
    });
  });

  describe('bad requests', () => {
    const plain = {
      key: Buffer.from('k'),
      consistency: 0 as const,
      requestId: undefined,
      condition: undefined,
    };
    const put = (change: object) =>
      KeyValueStoreService.put.requestSerialize({
        ...plain,
        value: Buffer.alloc(1),
        ttlMs: undefined,
        ...change,
      });
    const get = (change: object) =>
      KeyValueStoreService.get.requestSerialize({ ...plain, minVersion: undefined, ...change });
    const remove = (change: object) => KeyValueStoreService.delete.requestSerialize({ ...plain, ...change });
    const empty = Buffer.alloc(0);
    const list = (change: object) =>
      KeyValueStoreService.listKeys.requestSerialize({
        prefix: empty,
        startAfter: empty,
        pageSize: 0,
        pageToken: empty,
        consistency: 0,
        ...change,
      });
    const long = Buffer.alloc(1025, 'k');
    const id = { clientId: Buffer.alloc(15), number: 1, clientStartMs: 1, attempt: 0 };
    /** Tag and value of a field that no version knows yet. */
    const unknownField = (field: number): Buffer => Buffer.from([(field << 3) | 2, 0]);

    const cases: readonly [string, keyof typeof KeyValueStoreService, Buffer, status, string][] = [
      [
        'put: empty key',
        'put',
        put({ key: empty }),
        status.INVALID_ARGUMENT,
        'key is empty: give 1 to 1024 bytes',
      ],
      [
        'put: long key',
        'put',
        put({ key: long }),
        status.INVALID_ARGUMENT,
        'key has 1025 bytes: give at most 1024',
      ],
      [
        'put: large value',
        'put',
        put({ value: Buffer.alloc(65_537) }),
        status.INVALID_ARGUMENT,
        'value has 65537 bytes: this cluster takes at most 65536',
      ],
      [
        'put: very large value',
        'put',
        put({ value: Buffer.alloc(4_000_000) }),
        status.INVALID_ARGUMENT,
        'at most 65536',
      ],
      [
        'put: ttl 0',
        'put',
        put({ ttlMs: 0 }),
        status.INVALID_ARGUMENT,
        'ttl_ms is 0: give 1 to 315360000000 (10 years)',
      ],
      ['put: negative ttl', 'put', put({ ttlMs: -1 }), status.INVALID_ARGUMENT, 'ttl_ms is -1'],
      [
        'put: ttl above 10 years',
        'put',
        put({ ttlMs: 315_360_000_001 }),
        status.INVALID_ARGUMENT,
        'ttl_ms is 315360000001',
      ],
      [
        'put: ttl beyond 2^53',
        'put',
        Buffer.concat([put({}), Buffer.from('18ffffffffffffffff7f', 'hex')]),
        status.INVALID_ARGUMENT,
        'the request is malformed',
      ],
      [
        'put: unknown consistency',
        'put',
        put({ consistency: 9 }),
        status.INVALID_ARGUMENT,
        'consistency 9 is unknown: give ONE (1), QUORUM (2, the default) or ALL (3)',
      ],
      [
        'put: short client id',
        'put',
        put({ requestId: id }),
        status.INVALID_ARGUMENT,
        'request_id.client_id has 15 bytes: give 16',
      ],
      [
        'put: condition',
        'put',
        put({ condition: {} }),
        status.UNIMPLEMENTED,
        'conditional operations (compare-and-set) are not supported',
      ],
      [
        'put: condition of the future',
        'put',
        Buffer.concat([put({}), unknownField(7)]),
        status.UNIMPLEMENTED,
        'nothing was executed',
      ],
      [
        'put: cut message',
        'put',
        put({}).subarray(0, 2),
        status.INVALID_ARGUMENT,
        'the request is malformed',
      ],
      [
        'put: not a message',
        'put',
        Buffer.from([0xff, 0xff, 0xff]),
        status.INVALID_ARGUMENT,
        'the request is malformed',
      ],
      ['get: empty key', 'get', get({ key: empty }), status.INVALID_ARGUMENT, 'key is empty'],
      ['get: long key', 'get', get({ key: long }), status.INVALID_ARGUMENT, 'key has 1025 bytes'],
      [
        'get: unknown consistency',
        'get',
        get({ consistency: 4 }),
        status.INVALID_ARGUMENT,
        'consistency 4 is unknown',
      ],
      [
        'get: impossible version',
        'get',
        get({ minVersion: { wallMs: 2 ** 48, counter: 0, writer: 1 } }),
        status.INVALID_ARGUMENT,
        'min_version is not a version that a node answered',
      ],
      [
        'get: field of the future',
        'get',
        Buffer.concat([get({}), unknownField(4)]),
        status.UNIMPLEMENTED,
        'not supported',
      ],
      ['delete: empty key', 'delete', remove({ key: empty }), status.INVALID_ARGUMENT, 'key is empty'],
      [
        'delete: unknown consistency',
        'delete',
        remove({ consistency: 77 }),
        status.INVALID_ARGUMENT,
        'consistency 77 is unknown',
      ],
      [
        'delete: condition',
        'delete',
        remove({ condition: {} }),
        status.UNIMPLEMENTED,
        'leave the condition out',
      ],
      [
        'delete: condition of the future',
        'delete',
        Buffer.concat([remove({}), unknownField(15)]),
        status.UNIMPLEMENTED,
        'not supported',
      ],
      [
        'list: long prefix',
        'listKeys',
        list({ prefix: long }),
        status.INVALID_ARGUMENT,
        'prefix has 1025 bytes',
      ],
      [
        'list: long start',
        'listKeys',
        list({ startAfter: long }),
        status.INVALID_ARGUMENT,
        'start_after has 1025 bytes',
      ],
      [
        'list: large page',
        'listKeys',
        list({ pageSize: 10_001 }),
        status.INVALID_ARGUMENT,
        'page_size is 10001: give 1 to 10000, or 0 for everything at once',
      ],
      [
        'list: bad token',
        'listKeys',
        list({ pageToken: Buffer.from('nonsense') }),
        status.INVALID_ARGUMENT,
        'page_token is not one',
      ],
      [
        'list: short token',
        'listKeys',
        list({ pageToken: Buffer.from([1]) }),
        status.INVALID_ARGUMENT,
        'page_token is not one',
      ],
      [
        'list: unknown consistency',
        'listKeys',
        list({ consistency: 5 }),
        status.INVALID_ARGUMENT,
        'consistency 5 is unknown',
      ],
    ];
    for (const [what, method, bytes, code, words] of cases) {
      it(`${what} is answered ${status[code]}`, async () => {
        const error = await refused(method, bytes);
        expect({ code: error.code, details: error.details }).to.deep.equal({ code, details: error.details });
        expect(error.details).to.contain(words);
        expect(error.metadata.get('kv-retryable')).to.deep.equal(['false']);
      });
    }

    it('refuses the token of another listing', async () => {
      await Promise.all(['tok/a', 'tok/b', 'tol/a'].map((key) => client.put(key, 'v')));
      const { nextPageToken } = await client.list({ prefix: 'tok/', pageSize: 1 });
      expect(
        (await client.list({ prefix: 'tok/', pageSize: 1, pageToken: nextPageToken })).keys,
      ).to.deep.equal(['tok/b']);
      const error = await client
        .list({ prefix: 'tol/', pageToken: nextPageToken })
        .catch((thrown: unknown) => thrown);
      expect(error).to.include({ code: status.INVALID_ARGUMENT });
    });

    it('stored nothing for any of them', async () => {
      expect(await client.get('k')).to.equal(undefined);
    });

    async function refused(method: keyof typeof KeyValueStoreService, bytes: Buffer): Promise<WireError> {
      const raw = new Client(node.clientAddress, plaintext());
      try {
        await new Promise((resolve, reject) => {
          const same = (buffer: Buffer): Buffer => buffer;
          raw.makeUnaryRequest(KeyValueStoreService[method].path, same, same, bytes, (error, answer) => {
            if (error === null) resolve(answer);
            else reject(error);
          });
        });
      } catch (error) {
        return error as WireError;
      } finally {
        raw.close();
      }
      throw new Error('the request was accepted');
    }
  });

  it('refuses to list everything when that is too much, and lists it in pages', async () => {
    const keys = Array.from({ length: 3500 }, (_, index) =>
      `big/${String(index).padStart(5, '0')}/`.padEnd(1000, 'x'),
    );
    for (let at = 0; at < keys.length; at += 500) {
      await Promise.all(keys.slice(at, at + 500).map((key) => client.put(key, '')));
    }
    const error = (await client.list({ prefix: 'big/' }).catch((thrown: unknown) => thrown)) as WireError;
    expect(error).to.include({ code: status.RESOURCE_EXHAUSTED });
    expect(error.details).to.contain('ask for pages with page_size');
    const collected: string[] = [];
    for (let pageToken = Buffer.alloc(0); ;) {
      const page = await client.list({ prefix: 'big/', pageSize: 10_000, pageToken });
      collected.push(...page.keys);
      pageToken = Buffer.from(page.nextPageToken);
      if (pageToken.length === 0) break;
    }
    expect(collected).to.deep.equal(keys);
  });
});
