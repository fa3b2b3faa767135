import { expect } from 'chai';
import { KvError } from '../../../../common/errors.ts';
import type {
  PartitionWatchRequest,
  WatchPiece,
} from '../../../../node/replication/watch/partition-watch.ts';
import { DEFAULT_WATCH_SETTINGS } from '../../../../node/replication/watch/settings.ts';
import { decodeWatchToken, type WatchToken } from '../../../../node/replication/watch/token.ts';
import { type ToldBatch, WatchStream } from '../../../../node/replication/watch/watch-stream.ts';
import { liveRecord } from '../../../../node/storage/record.ts';
import { ManualTime } from '../../../support/manual-time.ts';

const PARTITIONS = 4;
const NO_PREFIX = Buffer.alloc(0);
/** A member that makes tokens large. */
const LONG = 'z'.repeat(600);
const NODES = ['a', 'b', 'c', LONG];

/** What a node is asked to tell, and the hand that tells it. */
interface Source {
  readonly nodeId: string;
  readonly request: PartitionWatchRequest;
  readonly queue: (WatchPiece | Error)[];
  taken: number;
  wake: () => void;
}

describe('a stream that others tell', () => {
  const time = new ManualTime();
  let sources: Source[] = [];
  let down: Set<string>;
  let damaged: boolean;
  let controller: AbortController;
  let batches: AsyncGenerator<ToldBatch, never, undefined>;

  async function* open(
    nodeId: string,
    request: PartitionWatchRequest,
    signal: AbortSignal,
  ): AsyncGenerator<WatchPiece, void, undefined> {
    const source: Source = { nodeId, request, queue: [], taken: 0, wake: () => undefined };
    sources.push(source);
    if (damaged) throw new KvError('DATA_LOSS', 'damaged');
    signal.addEventListener('abort', () => source.wake(), { once: true });
    for (;;) {
      const next = source.queue.shift();
      if (next instanceof Error) throw next;
      if (next === undefined) await new Promise<void>((resolve) => (source.wake = resolve));
      else {
        yield next;
        source.taken += 1;
      }
      if (signal.aborted) return;
    }
  }
  const tell = (source: Source | undefined, ...pieces: (WatchPiece | Error)[]): void => {
    if (source === undefined) throw new Error('nobody was asked');
    source.queue.push(...pieces);
    source.wake();
  };
  const piece = (
    sequence: number | undefined,
    records: readonly (readonly [string, number])[] = [],
    marks: readonly (readonly [number, number])[] = [],
  ): WatchPiece => ({
    incarnation: 1,
    sequence,
    records: records.map(([name, wallMs]) => {
      const key = Buffer.from(name);
      return { key, record: liveRecord(key, Buffer.from('v'), { wallMs, counter: 0, writer: 1 }) };
    }),
    marks: new Map(marks),
  });
  const begin = (token?: WatchToken, settings: Partial<typeof DEFAULT_WATCH_SETTINGS> = {}): void => {
    const stream = new WatchStream(
      {
        topology: {
          nodeId: 'a',
          setsOf: () => ({ write: [NODES], read: NODES, holders: NODES }),
          serves: () => !down.has('a'),
          isServing: (nodeId) => !down.has(nodeId),
        },
        partitions: PARTITIONS,
        clusterId: 'c0ffee',
        open,
        clock: time.clock(),
        scheduler: time.scheduler(),
        settings: { ...DEFAULT_WATCH_SETTINGS, ...settings },
        metrics: { count: () => undefined },
      },
      NO_PREFIX,
      token,
      controller.signal,
    );
    batches = stream.batches();
  };
  const next = async (): Promise<ToldBatch> => (await time.run(batches.next())).value;
  /** As `next`, while the test lets time pass. */
  const later = async (): Promise<ToldBatch> => (await batches.next()).value;
  const told = ({ records }: ToldBatch): string[] =>
    records.map(({ key, record }) => `${key.toString()}@${record.version.wallMs}`);
  const codeOf = async (promise: Promise<unknown>): Promise<string | undefined> => {
    const error: unknown = await promise.catch((thrown: unknown) => thrown);
    return error instanceof KvError ? error.code : undefined;
  };
  const newest = (nodeId: string): Source | undefined =>
    sources.findLast((source) => source.nodeId === nodeId);
  const gone = new KvError('UNAVAILABLE', 'gone');
  const resumed: WatchToken = {
    clusterId: 'c0ffee',
    told: [
      {
        place: { nodeId: 'b', incarnation: 1, sequence: 50 },
        marks: new Map([0, 1, 2, 3].map((partition) => [partition, 7])),
      },
    ],
  };

  beforeEach(() => {
    sources = [];
    down = new Set([LONG]);
    damaged = false;
    controller = new AbortController();
  });

  afterEach(async () => {
    controller.abort(new KvError('ABORTED', 'enough'));
    await time.run(batches.next().catch(() => undefined));
  });

  it('begins at this node where it can, with a token when everything is told from then on', async () => {
    begin();
    const first = later();
    await time.advance(10);
    expect(sources.map(({ nodeId, request }) => [nodeId, request.start.kind])).to.deep.equal([['a', 'now']]);
    tell(newest('a'), piece(10));
    const { token, records } = await time.run(first);
    expect(records).to.deep.equal([]);
    expect(decodeWatchToken(NO_PREFIX, token, PARTITIONS).told[0]?.place).to.deep.equal({
      nodeId: 'a',
      incarnation: 1,
      sequence: 10,
    });
  });

  it('never goes back when a replica takes over that is behind in a key', async () => {
    begin();
    const first = later();
    await time.advance(10);
    tell(newest('a'), piece(10));
    await time.run(first);
    tell(newest('a'), piece(11, [['k', 5]]));
    expect(told(await next())).to.deep.equal(['k@5']);
    down.add('a');
    tell(newest('a'), gone);
    const more = later();
    await time.advance(300);
    expect(newest('b')?.request.start.kind).to.equal('state');
    tell(
      newest('b'),
      piece(undefined, [
        ['k', 3],
        ['l', 4],
      ]),
      piece(20),
      piece(21, [
        ['k', 5],
        ['k', 6],
      ]),
    );
    expect(told(await time.run(more))).to.deep.equal(['l@4']);
    expect(told(await next())).to.deep.equal(['k@6']);
  });

  it('ends, to be resumed, when a replica has to take over and more was told than is remembered', async () => {
    begin(undefined, { mostTold: 2 });
    const first = later();
    await time.advance(10);
    tell(newest('a'), piece(10));
    await time.run(first);
    tell(
      newest('a'),
      piece(11, [
        ['k', 5],
        ['l', 6],
        ['m', 7],
      ]),
    );
    await next();
    down.add('a');
    tell(newest('a'), gone);
    expect(await codeOf(next())).to.equal('UNAVAILABLE');
  });

  it('remembers only what lies above the marks', async () => {
    begin(undefined, { mostTold: 2 });
    const first = later();
    await time.advance(10);
    tell(newest('a'), piece(10));
    await time.run(first);
    tell(
      newest('a'),
      piece(
        11,
        [
          ['k', 5],
          ['l', 6],
        ],
        [
          [0, 7],
          [1, 7],
          [2, 7],
          [3, 7],
        ],
      ),
      piece(12, [
        ['m', 8],
        ['n', 9],
      ]),
    );
    expect(told(await next())).to.deep.equal(['k@5', 'l@6']);
    expect(told(await next())).to.deep.equal(['m@8', 'n@9']);
    down.add('a');
    tell(newest('a'), gone);
    const more = later();
    await time.advance(300);
    expect([...(newest('b')?.request.marks ?? [])]).to.deep.equal([
      [0, 7],
      [1, 7],
      [2, 7],
      [3, 7],
    ]);
    tell(
      newest('b'),
      piece(undefined, [
        ['m', 7],
        ['o', 9],
      ]),
    );
    expect(told(await time.run(more))).to.deep.equal(['o@9']);
  });

  it('goes on in the log of its token, and tries that twice before another replica takes over', async () => {
    begin(resumed);
    const first = later();
    await time.advance(10);
    const log = { kind: 'log', incarnation: 1, sequence: 50 };
    expect(sources.map(({ nodeId, request }) => [nodeId, request.start])).to.deep.equal([['b', log]]);
    tell(newest('b'), gone);
    await time.advance(300);
    expect(sources.map(({ nodeId, request }) => [nodeId, request.start.kind])).to.deep.equal([
      ['b', 'log'],
      ['b', 'log'],
    ]);
    tell(newest('b'), gone);
    await time.advance(300);
    expect(sources.at(-1)).to.deep.include({ nodeId: 'a' });
    expect(sources.at(-1)?.request.start.kind).to.equal('state');
    tell(newest('a'), piece(undefined, [['k', 9]]));
    const { token } = await time.run(first);
    // Until the log is told, the old place is the better one to resume at.
    expect(decodeWatchToken(NO_PREFIX, token, PARTITIONS).told[0]?.place?.sequence).to.equal(50);
    tell(newest('a'), piece(5));
    const place = decodeWatchToken(NO_PREFIX, (await next()).token, PARTITIONS).told[0]?.place;
    expect(place).to.deep.equal({ nodeId: 'a', incarnation: 1, sequence: 5 });
  });

  it('goes on at the earliest of several places in one log', async () => {
    const at = (nodeId: string, sequence: number, ...partitions: number[]) => ({
      place: { nodeId, incarnation: 1, sequence },
      marks: new Map(partitions.map((partition) => [partition, 7])),
    });
    begin({ clusterId: 'c0ffee', told: [at('b', 50, 0), at('c', 9, 3), at('b', 40, 1), at('b', 60, 2)] });
    const first = later();
    await time.advance(10);
    const begun = sources.map(({ nodeId, request }) => [nodeId, request.start, [...request.marks.keys()]]);
    expect(begun).to.deep.equal([
      ['b', { kind: 'log', incarnation: 1, sequence: 40 }, [0, 1, 2]],
      ['c', { kind: 'log', incarnation: 1, sequence: 9 }, [3]],
    ]);
    tell(newest('b'), piece(70));
    tell(newest('c'), piece(10));
    await time.run(first);
  });

  it('ends when every source fails, again and again', async () => {
    damaged = true;
    begin(resumed);
    let error: unknown;
    while (!(error instanceof Error)) error = await next().catch((thrown: unknown) => thrown);
    expect(error).to.include({ code: 'UNAVAILABLE' });
    expect(error.message).to.contain('damaged');
    expect(sources).to.have.length(10);
  });

  it('takes over at once when the log does not reach back to the token', async () => {
    begin(resumed);
    const first = later();
    await time.advance(10);
    tell(newest('b'), new KvError('OUT_OF_RANGE', 'trimmed'));
    await time.advance(300);
    expect(sources.map(({ nodeId, request }) => [nodeId, request.start.kind])).to.deep.equal([
      ['b', 'log'],
      ['a', 'state'],
    ]);
    tell(newest('a'), new KvError('OUT_OF_RANGE', 'collected'));
    expect(await codeOf(time.run(first))).to.equal('OUT_OF_RANGE');
  });

  it('asks a source for no more than the client takes', async () => {
    begin(undefined, { pieceBytes: 10 });
    const first = later();
    await time.advance(10);
    tell(newest('a'), piece(10));
    await time.run(first);
    const source = newest('a');
    tell(source, ...Array.from({ length: 20 }, (_, at) => piece(11 + at, [[`key-${at}`, at + 1]])));
    await time.advance(5000);
    expect(source?.taken).to.equal(1);
    expect(told(await next())).to.deep.equal(['key-0@1']);
    await time.advance(5000);
    expect(source?.taken).to.be.at.most(3);
  });

  it('finds a source for partitions that had none, and gives up after a while', async () => {
    for (const nodeId of ['a', 'b', 'c']) down.add(nodeId);
    begin();
    const first = later();
    await time.advance(5000);
    expect(sources).to.deep.equal([]);
    down.delete('c');
    await time.advance(300);
    tell(newest('c'), piece(1));
    await time.run(first);
    down.add('c');
    tell(newest('c'), gone);
    const began = time.monotonicMs;
    let error: string | undefined;
    while (error === undefined) error = await codeOf(next());
    expect(error).to.equal('UNAVAILABLE');
    expect(time.monotonicMs - began).to.be.within(10_000, 10_500);
  });

  it('gives large tokens less often, and says so by none', async () => {
    const marks = new Map([0, 1, 2, 3].map((partition) => [partition, 0]));
    down.clear();
    const place = { nodeId: LONG, incarnation: 1, sequence: 1 };
    begin({ clusterId: 'c', told: [{ place, marks }] });
    const first = later();
    await time.advance(10);
    tell(sources[0], piece(1));
    const tokens = [(await time.run(first)).token.length];
    for (let at = 2; at < 6; at += 1) {
      tell(sources[0], piece(at, [[`key-${at}`, at]]));
      tokens.push((await next()).token.length);
    }
    expect(tokens[0]).to.be.greaterThan(600);
    expect(tokens.slice(1)).to.deep.equal([0, 0, 0, 0]);
    await time.advance(1000);
    tell(sources[0], piece(6, [['key-6', 6]]));
    expect((await next()).token.length).to.be.greaterThan(600);
  });
});
