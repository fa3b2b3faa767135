import { expect } from 'chai';
import { ReadResult_Outcome } from '../../../proto/gen/peer.ts';
import { HybridClock } from '../../../node/replication/hybrid-clock.ts';
import { OwnLog } from '../../../node/replication/own-log.ts';
import { Repairs } from '../../../node/replication/repairs.ts';
import { RequestHandler } from '../../../node/replication/request-handler.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
} from '../../../node/replication/requests/request-index.ts';
import { liveRecord } from '../../../node/storage/record.ts';
import { PARTITIONS, ReplicaCluster } from '../../support/replica-cluster.ts';
import { PartitionSet } from '../../../node/cluster/partition-set.ts';

const never = (): never => {
  throw new Error('nobody asks for this here');
};

describe('what a replica answers to its peers', () => {
  let cluster: ReplicaCluster;
  let handler: RequestHandler;
  let readable = true;
  const key = Buffer.from('a');
  const record = liveRecord(key, Buffer.from('1'), { wallMs: 10, counter: 0, writer: 7 });

  beforeEach(async () => {
    cluster = new ReplicaCluster(1);
    await cluster.start(0);
    const store = cluster.store(0);
    readable = true;
    handler = new RequestHandler({
      store,
      ownLog: new OwnLog(store),
      clock: new HybridClock({
        clock: cluster.time.clock(),
        store,
        writer: () => 1,
        skewBoundMs: 2000,
        ceilingStepMs: 500,
      }),
      topology: {
        partitionOf: () => 0,
        holds: () => true,
        serves: () => readable,
      },
      horizonMs: () => 0,
      mayApply: () => true,
      repairs: new Repairs({
        store,
        index: new RequestIndex(cluster.time.clock(), DEFAULT_REQUEST_INDEX_SETTINGS),
        isReadable: () => true,
        mayApply: () => true,
      }),
      index: new RequestIndex(cluster.time.clock(), DEFAULT_REQUEST_INDEX_SETTINGS),
      onShown: () => undefined,
      forwarded: { answer: never },
      digests: never,
      leaves: never,
      lookup: never,
    });
  });

  afterEach(() => cluster.end());

  const read = async (): Promise<unknown> => {
    const reply = await cluster.time.run(
      handler.answer({ $case: 'read', value: { id: 3, keys: [key], stored: false } }),
    );
    return reply.$case === 'readReply' ? reply.value.results[0]?.outcome : undefined;
  };

  it('is absent, then the record once it is synced', async () => {
    expect(await read()).to.equal(ReadResult_Outcome.ABSENT);
    const repair = handler.answer({
      $case: 'repair',
      value: {
        id: 4,
        records: [{ key, record: record.bytes, horizonMs: 0 }],
        returned: false,
        finished: undefined,
        forRead: false,
        returnedWrites: [],
      },
    });
    expect(cluster.store(0).get(key), 'not before the sync').to.equal(undefined);
    expect(await cluster.time.run(repair)).to.deep.equal({ $case: 'repairReply', value: { id: 4 } });
    expect(await read()).to.equal(ReadResult_Outcome.RECORD);
    expect(cluster.store(0).head, 'not an entry of its own').to.equal(0);
  });

  it('is never "absent" and never an empty page while it is not readable', async () => {
    readable = false;
    expect(await read()).to.equal(ReadResult_Outcome.WRONG_REPLICA);
    const nothing = Buffer.alloc(0);
    const list = {
      id: 5,
      prefix: nothing,
      startAfter: nothing,
      from: nothing,
      before: nothing,
      limit: 10,
      maxBytes: 1000,
      partitions: PartitionSet.of([0], PARTITIONS).toBytes(),
      withRecords: false,
    };
    const reply = await cluster.time.run(handler.answer({ $case: 'list', value: list }));
    expect(reply).to.deep.equal({
      $case: 'listReply',
      value: { id: 5, wrongReplica: true, keys: [], more: false },
    });
  });

  it('logs entries that were given back as its own again', async () => {
    await cluster.time.run(
      handler.answer({
        $case: 'repair',
        value: {
          id: 6,
          records: [{ key, record: record.bytes, horizonMs: 0 }],
          returned: true,
          finished: undefined,
          forRead: false,
          returnedWrites: [],
        },
      }),
    );
    expect(cluster.store(0).head).to.be.greaterThan(0);
  });
});
