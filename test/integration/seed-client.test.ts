import { expect } from 'chai';
import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { NodeHome, NodeProcess } from '../support/node-process.ts';
import { pythonWithGrpc } from '../support/python.ts';

const script = join(import.meta.dirname, 'seed_client.py');

/** What seed_client.py observed. */
interface Observations {
  ping: string[];
  put_new: string;
  put_again: string;
  get_everywhere: string[];
  get_missing: string;
  overwritten_elsewhere: string;
  read_back: string;
  list_everywhere: string[][];
  get_deleted: string[];
  backup: { success: boolean; message: string };
  empty_key: string;
}

describe('a client of the original, string-based API', () => {
  const home = new NodeHome();
  let nodes: readonly NodeProcess[] = [];
  let seen: Observations;

  before(async function () {
    this.timeout(180_000);
    const python = pythonWithGrpc();
    if ('missing' in python) {
      if (process.env['CI'] === 'true') throw new Error(`no Python with gRPC: ${python.missing}`);
      console.log(`    skipped: no Python with gRPC: ${python.missing}`);
      this.skip();
    }
    nodes = await NodeProcess.startTogether(home, ['sample-0', 'sample-1', 'sample-2']);
    const addresses = nodes.map(({ clientAddress }) => clientAddress);
    const { stdout } = await promisify(execFile)(python.executable, [script, ...addresses], {
      timeout: 60_000,
    });
    seen = JSON.parse(stdout) as Observations;
  });
  after(async () => {
    await Promise.all(nodes.map((node) => node[Symbol.asyncDispose]()));
    home[Symbol.dispose]();
  });

  it('is answered OK to a ping by every node', () => {
    expect(seen.ping).to.deep.equal(['OK', 'OK', 'OK']);
  });

  it('gets the old value from put', () => {
    expect([seen.put_new, seen.put_again, seen.overwritten_elsewhere]).to.deep.equal(['', 'one', 'two']);
  });

  it('reads on every node what was written on one', () => {
    expect(seen.get_everywhere).to.deep.equal(['two', 'two', 'two']);
    expect(seen.read_back).to.equal('drei ü 日');
  });

  it('gets nothing, with status OK, for a key that is missing or deleted', () => {
    expect(seen.get_missing).to.equal('');
    expect(seen.get_deleted).to.deep.equal(['', '', '']);
  });

  it('lists all keys on every node', () => {
    const keys = [
      'seed/a',
      ...Array.from({ length: 20 }, (_, number) => `seed/list/${String(number).padStart(2, '0')}`),
    ];
    expect(seen.list_everywhere).to.deep.equal([keys, keys, keys]);
  });

  it('makes a backup', () => {
    expect(seen.backup.success).to.equal(true);
    expect(seen.backup.message).to.match(/^wrote \d+ records/);
  });

  it('is told when it sends an empty key', () => {
    expect(seen.empty_key).to.equal('INVALID_ARGUMENT');
  });
});
