import { expect } from 'chai';
import { systemRandom } from '../../common/random.ts';
import { NodeHome, NodeProcess } from '../support/node-process.ts';
import { PlainClient } from '../support/unary.ts';

/** More rounds for a longer hunt: KVCLUSTER_KILL_ROUNDS=2000 npm run test:integration -- -- --grep 'kill -9'. */
const ROUNDS = Number(process.env['KVCLUSTER_KILL_ROUNDS'] ?? 100);
const KEYS = 300;
const WRITERS = 30;
/** The process is killed at a random moment of this time after its first acknowledgement of the round, milliseconds. */
const LOAD_MS = 120;

/** A value, or undefined for none. */
type State = string | undefined;

/** What is known of the keys from outside the process: the last acknowledged state, and what was under way since. */
class Ledger {
  readonly acked = new Map<string, State>();
  private readonly intended = new Map<string, State>();
  /** Acknowledgements so far. */
  count = 0;

  intend(key: string, state: State): void {
    this.intended.set(key, state);
  }

  acknowledge(key: string, state: State): void {
    this.intended.delete(key);
    this.acked.set(key, state);
    this.count += 1;
  }

  /** Compares with what the store holds; an operation under way at the kill may have been applied or not. */
  settle(key: string, found: State): string | undefined {
    const wasUnderWay = this.intended.has(key);
    const allowed = wasUnderWay ? [this.acked.get(key), this.intended.get(key)] : [this.acked.get(key)];
    if (!allowed.includes(found)) {
      return `${key} is ${found ?? 'missing'} and must be ${allowed.map((state) => state ?? 'missing').join(' or ')}`;
    }
    this.intended.delete(key);
    this.acked.set(key, found);
    return undefined;
  }
}

const keyNames = Array.from({ length: KEYS }, (_, index) => `key-${index}`);

/** Each writer has keys of its own, so that what is under way is one operation a key. */
async function write(
  client: PlainClient,
  ledger: Ledger,
  writer: number,
  round: number,
  stopped: () => boolean,
): Promise<void> {
  const own = keyNames.filter((_, index) => index % WRITERS === writer);
  for (let turn = 0; !stopped(); turn += 1) {
    const key = own[Math.floor(systemRandom.fraction() * own.length)] ?? '';
    const state = systemRandom.fraction() < 0.2 ? undefined : `${round}.${turn}.${'x'.repeat(turn % 700)}`;
    ledger.intend(key, state);
    try {
      if (state === undefined) await client.delete(key);
      else await client.put(key, state);
    } catch {
      return;
    }
    ledger.acknowledge(key, state);
  }
}

async function verify(client: PlainClient, ledger: Ledger, round: number): Promise<void> {
  const found = await Promise.all(keyNames.map(async (key) => [key, await client.get(key)] as const));
  const wrong = found.flatMap(([key, state]) => ledger.settle(key, state) ?? []);
  expect(wrong, `after ${round} kills and ${ledger.count} acknowledgements`).to.deep.equal([]);
}

describe('a node killed with kill -9 again and again', () => {
  it(`opens each of ${ROUNDS} times with everything it acknowledged`, async function () {
    this.timeout(Math.max(180_000, ROUNDS * 2000));
    using home = new NodeHome();
    const ledger = new Ledger();
    for (let round = 0; round <= ROUNDS; round += 1) {
      await using node = await NodeProcess.start({ home, flags: { 'log-level': 'error' } });
      await (round === 0 ? node.joinAlone() : node.ready());
      using client = new PlainClient(node.client());
      await verify(client, ledger, round);
      if (round === ROUNDS) break;
      let killed = false;
      const before = ledger.count;
      const writers = Array.from({ length: WRITERS }, (_, writer) =>
        write(client, ledger, writer, round, () => killed),
      );
      while (ledger.count === before) await new Promise((resolve) => setImmediate(resolve));
      await new Promise((resolve) => setTimeout(resolve, systemRandom.fraction() * LOAD_MS));
      const exit = node.kill('SIGKILL');
      killed = true;
      await Promise.all(writers);
      expect(await exit).to.deep.equal({ code: null, signal: 'SIGKILL' });
      expect(node.log, `errors in round ${round}`).to.deep.equal([]);
    }
    expect(ledger.count).to.be.greaterThan(ROUNDS * 10);
  });
});
