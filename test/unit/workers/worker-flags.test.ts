import { expect } from 'chai';
import { type NodeConfig, givenFlags, parseConfig } from '../../../node/config.ts';
import { workerFlags } from '../../../node/workers/worker-flags.ts';

const pod = [
  ...['--node-id=kv-0', '--cluster-name=kv', '--data-dir=/data', '--secret-file=/secret', '--workers=3'],
  ...['--partitions', '64', '--discovery=dns', '--drain-serve-ms=7'],
];

function configOf(argv: readonly string[]): NodeConfig {
  const config = parseConfig(argv);
  if (typeof config === 'string') throw new Error(config);
  return config;
}

function worker(number: number, ...more: readonly string[]): NodeConfig {
  const argv = [...pod, ...more];
  return configOf(workerFlags(configOf(argv), givenFlags(argv), number));
}

describe('the flags of a worker', () => {
  it('give it a name, ports and a directory of its own, in the pod', () => {
    expect(worker(2)).to.deep.include({
      nodeId: 'kv-0-w2',
      pod: 'kv-0',
      host: 'kv-0',
      workers: 1,
      dataDir: '/data/worker-2',
      backupDir: '/data/worker-2/backups',
      volumeStores: 3,
      clientPort: 50_251,
      peerPort: 50_252,
      httpPort: 9290,
    });
  });

  it('keep for worker 0 what a single node has, but the ports for everybody', () => {
    expect(worker(0)).to.deep.include({
      nodeId: 'kv-0',
      dataDir: '/data',
      clientPort: 50_101,
      peerPort: 50_052,
      httpPort: 9140,
    });
  });

  it('pass on whatever else the pod was given', () => {
    const given = { partitions: 64, discovery: { kind: 'dns', clusterDomain: undefined }, drainServeMs: 7 };
    expect(worker(1)).to.deep.include(given);
  });

  it('keep the snapshots of workers apart', () => {
    expect(worker(0, '--backup-dir=/b').backupDir).to.equal('/b');
    expect(worker(1, '--backup-dir=/b').backupDir).to.equal('/b/worker-1');
  });
});
