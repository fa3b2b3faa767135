import { expect } from 'chai';
import type { Version } from '../../../../model/version.ts';
import {
  DEFAULT_REQUEST_INDEX_SETTINGS,
  RequestIndex,
  type RequestIndexSettings,
} from '../../../../node/replication/requests/request-index.ts';
import type { LiveValue } from '../../../../node/replication/engine.ts';
import type { RequestId } from '../../../../proto/gen/kvstore.ts';

const KEY = Buffer.from('key');
const SECOND = 1000;
const at = (wallMs: number): Version => ({ wallMs, counter: 0, writer: 7 });
const id = (number: number, client = 1, clientStartMs = 5): RequestId => ({
  clientId: Buffer.alloc(16, client),
  number,
  clientStartMs,
  attempt: 1,
});
const value = (bytes: number): LiveValue => ({
  value: Buffer.alloc(bytes),
  version: at(1),
  remainingTtlMs: undefined,
});

const named = (requestId: RequestId) => ({ requestId, version: undefined });

describe('the memory of requests', () => {
  let nowMs: number;
  let index: RequestIndex;
  const open = (settings: Partial<RequestIndexSettings> = {}): void => {
    index = new RequestIndex(
      { monotonicMs: () => nowMs, wallMs: () => nowMs },
      { ...DEFAULT_REQUEST_INDEX_SETTINGS, ...settings },
    );
    index.complete(-Infinity);
  };
  const kindOf = (request: RequestId, key = KEY): string => index.lookup(named(request), key, 0).kind;

  beforeEach(() => {
    nowMs = 1_000_000;
    open();
  });

  it('knows at which version a request was applied', () => {
    index.note(id(1), KEY, at(10));
    expect(index.lookup(named(id(1)), KEY, 0)).to.deep.equal({ kind: 'held', version: at(10) });
    expect(kindOf(id(2))).to.equal('not-held');
  });

  it('tells clients, starts of a client and keys apart', () => {
    index.note(id(1), KEY, at(10));
    expect(kindOf(id(1, 2)), 'another client').to.equal('not-held');
    expect(kindOf(id(1, 1, 6)), 'another start').to.equal('not-held');
    expect(kindOf(id(1), Buffer.from('other')), 'another key').to.equal('not-held');
  });

  it('keeps the newest version of a write that was minted again, and what it replaced at first', () => {
    index.note(id(1), KEY, at(10), { value: value(3) });
    index.note(id(1), KEY, at(12), { value: value(4) });
    index.note(id(1), KEY, at(11));
    expect(index.versionOf(id(1), KEY)).to.deep.equal(at(12));
    expect(index.replacedBy(id(1))?.value?.value.length).to.equal(3);
  });

  it('remembers for the window, and then no longer says that a request never came', () => {
    index.note(id(7), KEY, at(10));
    nowMs += 60 * SECOND;
    expect(kindOf(id(7))).to.equal('held');
    nowMs += 11 * SECOND;
    expect(kindOf(id(7))).to.equal('unknown');
    expect(index.hasForgotten(id(7))).to.equal(true);
    expect(kindOf(id(6)), 'begun before').to.equal('unknown');
    expect(kindOf(id(8)), 'begun after').to.equal('not-held');
    expect(kindOf(id(7, 2)), 'another client').to.equal('not-held');
  });

  it('says nothing before it knows what was applied before the start', () => {
    open();
    index.complete(nowMs);
    index.note(id(1), KEY, at(10));
    expect(kindOf(id(1)), 'seen since').to.equal('held');
    expect(kindOf(id(2))).to.equal('unknown');
    nowMs += 59 * SECOND;
    expect(kindOf(id(2))).to.equal('unknown');
    nowMs += SECOND;
    expect(kindOf(id(2))).to.equal('not-held');
  });

  it('says nothing for a window about partitions that were filled from others', () => {
    index.learnAnew([3, 4]);
    expect(index.lookup(named(id(1)), KEY, 3).kind).to.equal('unknown');
    expect(index.lookup(named(id(1)), KEY, 5).kind).to.equal('not-held');
    nowMs += 60 * SECOND;
    expect(index.lookup(named(id(1)), KEY, 3).kind).to.equal('not-held');
  });

  it('forgets the oldest early beyond its bound, and says so of them', () => {
    open({ maxEntries: 600 });
    for (let number = 0; number < 5000; number += 1) {
      index.note(id(number), KEY, at(number + 1));
      expect(index.size).to.be.at.most(600);
    }
    expect(kindOf(id(4999))).to.equal('held');
    expect(kindOf(id(4501)), 'at least four fifths are there').to.equal('held');
    expect(kindOf(id(0))).to.equal('unknown');
  });

  it('forgets which clients it forgot, beyond a bound', () => {
    for (let client = 0; client < 11_000; client += 1) index.note(id(1, 1, client), KEY, at(1));
    nowMs += 120 * SECOND;
    expect(index.hasForgotten(id(1, 1, 10_999))).to.equal(true);
    expect(index.hasForgotten(id(1, 1, 0))).to.equal(false);
  });

  it('keeps replaced values within their bound, the newest ones', () => {
    open({ maxOldBytes: 10_000 });
    for (let number = 0; number < 100; number += 1) {
      index.note(id(number), KEY, at(number + 1), { value: value(1000) });
      nowMs += SECOND / 4;
    }
    expect(index.replacedBy(id(99))?.value?.value.length).to.equal(1000);
    expect(index.replacedBy(id(95))).not.to.equal(undefined);
    expect(index.replacedBy(id(50))).to.equal(undefined);
    expect(kindOf(id(50)), 'the request itself').to.equal('held');
    nowMs += 120 * SECOND;
    index.note(id(100), KEY, at(200), { value: value(9000) });
    expect(index.replacedBy(id(100))?.value?.value.length, 'room again').to.equal(9000);
  });

  it('tells that nothing was replaced from not knowing', () => {
    index.note(id(1), KEY, at(1), { value: undefined });
    index.note(id(2), KEY, at(2));
    expect(index.replacedBy(id(1))).to.deep.equal({ value: undefined });
    expect(index.replacedBy(id(2))).to.equal(undefined);
  });

  it('knows a write by its version alone, whatever its key', () => {
    index.noteVersion(at(10));
    const known = (version: Version) => index.lookup({ requestId: undefined, version }, KEY, 0);
    expect(known(at(10))).to.deep.equal({ kind: 'held', version: at(10) });
    expect(known({ ...at(10), writer: 8 }).kind).to.equal('not-held');
    expect(known(at(11)).kind).to.equal('not-held');
  });

  it('knows a write by its request id or its version when it is asked for both', () => {
    const kindBy = (request: RequestId, version: Version): string =>
      index.lookup({ requestId: request, version }, KEY, 0).kind;
    index.note(id(1), KEY, at(10));
    index.noteVersion(at(20));
    expect(kindBy(id(1), at(11)), 'by its id').to.equal('held');
    expect(kindBy(id(2), at(20)), 'by its version').to.equal('held');
    expect(kindBy(id(2), at(11)), 'by neither').to.equal('not-held');
  });

  it('says nothing of a write of which it may have forgotten the version', () => {
    const kindBy = (request: RequestId | undefined, wallMs: number): string =>
      index.lookup({ requestId: request, version: at(wallMs) }, KEY, 0).kind;
    index.noteVersion(at(120 * SECOND));
    index.noteVersion(at(50 * SECOND));
    index.note(id(1), KEY, at(40 * SECOND));
    expect(kindBy(undefined, 50 * SECOND)).to.equal('unknown');
    expect(kindBy(id(2), 40 * SECOND)).to.equal('unknown');
    expect(kindBy(id(1), 40 * SECOND), 'its id is known').to.equal('held');
    expect(kindBy(undefined, 51 * SECOND), 'newer than all that were forgotten').to.equal('not-held');
  });

  it('knows which version of a write has stood here, by its request id or without one', () => {
    index.note(id(1), KEY, at(10));
    index.noteVersion(at(20));
    expect(index.hasStood(id(1), KEY, at(10))).to.equal(true);
    expect(index.hasStood(id(1), KEY, at(11)), 'minted again').to.equal(false);
    expect(index.hasStood(id(2), KEY, at(10)), 'another request').to.equal(false);
    expect(index.hasStood(id(1), Buffer.from('other'), at(10)), 'another key').to.equal(false);
    expect(index.hasStood(undefined, KEY, at(10)), 'noted by its id only').to.equal(false);
    for (const request of [undefined, id(2)]) {
      expect(index.hasStood(request, KEY, at(20)), 'noted by its version').to.equal(true);
    }
  });

  it('takes a version for unsettled until it hears of it from somebody else, or may have forgotten that', () => {
    index.note(id(1), KEY, at(100 * SECOND));
    expect(index.isUnsettled(at(100 * SECOND)), 'minted').to.equal(true);
    index.noteVersion(at(100 * SECOND));
    expect(index.isUnsettled(at(100 * SECOND))).to.equal(false);
    index.noteVersion(at(20 * SECOND));
    expect(index.isUnsettled(at(10 * SECOND)), 'forgotten').to.equal(false);
    expect(index.isUnsettled(at(30 * SECOND))).to.equal(true);
  });
});
