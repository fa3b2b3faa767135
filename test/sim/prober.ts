import type { ScannedRecord } from '../../node/replication/engine.ts';
import type { Checker } from './checker.ts';
import type { Dice } from './dice.ts';
import type { Host, SimNetwork } from './network.ts';
import { SimProcess } from './process.ts';
import type { SimTime } from './time.ts';
import type { Trace } from './trace.ts';

export interface ProberOptions {
  readonly time: SimTime;
  readonly dice: Dice;
  readonly trace: Trace;
  readonly network: SimNetwork;
  readonly checker: Checker;
}

/** How likely a node is looked at after what it says in its log. */
const CHANCES: Readonly<Record<string, number>> = {
  'standing changed': 0.4,
  'cluster map adopted': 0.1,
  'a larger horizon is taken over from another replica': 0.02,
};
/** In one seed: a scan costs as much as dozens of reads. */
const MOST_SCANS = 40;
const TIMEOUT_MS = 500;
/** A node that is on probation, or lacks others, may serve a little later. */
const ATTEMPTS = 4;
const AGAIN_MS = 200;

/**
 * A client that reads everything at QUORUM just when a node begins to serve, or to serve something else: what such a node
 * lacks is soon made up for, and a client that asks for one key now and then would hardly ever be there in time.
 */
export class Prober {
  private readonly options: ProberOptions;
  private readonly process: SimProcess;
  private left = MOST_SCANS;

  constructor(options: ProberOptions) {
    this.options = options;
    this.process = new SimProcess(options.time);
  }

  /** A node has logged this. */
  onMessage(nodeId: string, message: string): void {
    const { dice, time } = this.options;
    const chance = CHANCES[message];
    if (chance === undefined || this.left === 0 || !dice.chance(chance)) return;
    this.left -= 1;
    time.after(dice.spread(0.1, 500), () => void this.scan(nodeId, ATTEMPTS));
  }

  private async scan(nodeId: string, attempts: number): Promise<void> {
    const { network, checker, trace, time } = this.options;
    const caller = { name: 'prober', process: this.process, timeoutMs: TIMEOUT_MS };
    const begun = checker.beginListing();
    let records: readonly ScannedRecord[];
    try {
      records = await network.request(caller, nodeId, everything);
    } catch {
      trace.note('scan failed', () => nodeId);
      if (attempts > 1) time.after(AGAIN_MS, () => void this.scan(nodeId, attempts - 1));
      return;
    }
    trace.note('scan ok', () => `${nodeId} ${records.length}`);
    checker.scanned(begun, nodeId, records);
  }
}

async function everything({ replica, monotonicMs }: Host): Promise<readonly ScannedRecord[]> {
  const records: ScannedRecord[] = [];
  const pages = replica.engine.scan({
    prefix: Buffer.alloc(0),
    from: undefined,
    before: undefined,
    startAfter: undefined,
    limit: Infinity,
    consistency: 'QUORUM',
    deadlineMs: monotonicMs() + TIMEOUT_MS,
  });
  for await (const page of pages) records.push(...page);
  return records;
}
