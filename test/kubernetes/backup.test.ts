import { expect } from 'chai';
import { CommandError } from '../cluster/command.ts';
import type { Kubectl } from '../support/kubectl.ts';
import { restrictedContainerSecurity, restrictedPodSecurity } from '../support/kubernetes-namespace.ts';
import type { KubernetesObject } from '../support/kubernetes-objects.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { type KVClusterObject, stands } from '../support/kvcluster.ts';
import { waitFor } from '../support/wait.ts';

interface Job extends KubernetesObject {
  status: { succeeded?: number; failed?: number; completionTime?: string };
}

const records = 300;

/** A pod with the backups' volume, to look into it with kvctl. */
const inspector = (image: string, claim: string): object => ({
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'inspector' },
  spec: {
    automountServiceAccountToken: false,
    enableServiceLinks: false,
    terminationGracePeriodSeconds: 0,
    securityContext: restrictedPodSecurity,
    containers: [
      {
        name: 'inspector',
        image,
        imagePullPolicy: 'IfNotPresent',
        command: ['sleep', 'infinity'],
        securityContext: restrictedContainerSecurity,
        volumeMounts: [{ name: 'backup', mountPath: '/backup' }],
      },
    ],
    volumes: [{ name: 'backup', persistentVolumeClaim: { claimName: claim } }],
  },
});

/** Turns over one bit in the middle of a backup's first chunk, and prints the file's name. */
const flip = `
  const fs = require('node:fs'), path = require('node:path');
  const found = fs.readdirSync('/backup', { recursive: true })
    .filter((name) => name.includes(process.argv[1]) && name.endsWith('.kvb')).sort();
  const file = path.join('/backup', found[0]);
  const bytes = fs.readFileSync(file);
  bytes[bytes.length >> 1] ^= 1;
  fs.writeFileSync(file, bytes);
  console.log(file);
`;

async function jobDone(kubectl: Kubectl, name: string): Promise<Job> {
  return waitFor({ what: `job ${name} to complete`, timeoutMs: 60_000, intervalMs: 500 }, async (see) => {
    const job = await kubectl.get<Job>('job', name);
    see(JSON.stringify(job.status));
    return (job.status.succeeded ?? 0) > 0 && job;
  });
}

/** When the newest good backup was completed, by status; 0 when there is none. */
const lastSuccess = ({ status }: KVClusterObject): number =>
  Date.parse(status?.backup?.lastSuccessTime ?? '1970-01-01');

describe('backups', () => {
  const stand = useStand({
    async prepare({ image, cluster, kubectl }) {
      await using client = await cluster.connect();
      const keys = Array.from({ length: records }, (_, index) => `backup/${index}`);
      await Promise.all(keys.map((key) => client.put(key, `the value of ${key}`)));
      await cluster.patch({ backup: { schedule: '*/1 * * * *', storage: { size: '64Mi' } } });
      await kubectl.run(['wait', '--for=create', `cronjob/${cluster.name}-backup`, '--timeout=20s']);
      await kubectl.apply([inspector(image, `${cluster.name}-backup`)]);
      await kubectl.run(['wait', '--for=condition=Ready', 'pod/inspector', '--timeout=50s']);
    },
    async leave({ cluster, kubectl }) {
      await cluster.patch({ backup: { suspend: true } });
      await kubectl.run(['delete', 'pod', 'inspector', '--wait=false']);
    },
  });

  const jobsOfSchedule = async (): Promise<Job[]> => {
    const { cluster, kubectl } = stand();
    // The controller appends the minute it fired for.
    const name = new RegExp(`^${cluster.name}-backup-\\d+$`);
    return (await kubectl.list<Job>('jobs')).filter(({ metadata }) => name.test(metadata.name));
  };
  const kvctl = (...args: string[]): Promise<string> => {
    return stand().kubectl.exec('inspector', ['kvctl', 'backup', ...args, '--target=/backup']);
  };

  it('are made by a job of the CronJob, listed and verified, and status says when', async () => {
    const { cluster, kubectl } = stand();
    await using status = cluster.watch();
    const cronJob = `${cluster.name}-backup`;
    await kubectl.run(['create', 'job', 'by-hand', `--from=cronjob/${cronJob}`]);
    const { status: done } = await jobDone(kubectl, 'by-hand');

    const { object } = await status.until(
      { what: 'the backup in status', timeoutMs: 15_000 },
      (seen) =>
        lastSuccess(seen) >= Date.parse(done.completionTime ?? '') && stands(seen, 'BackupHealthy', 'True'),
    );
    const { lastSuccessName = '', lastSuccessRecords } = object.status?.backup ?? {};
    expect(lastSuccessRecords).to.be.at.least(records);

    expect(await kvctl('list')).to.include(lastSuccessName);
    await kvctl('verify', lastSuccessName);
  });

  it('are made by the schedule too, without an operator, which tells of them when it is back', async () => {
    const { cluster, kubectl, operator } = stand();
    await operator.scale(0);
    let done: Job;
    try {
      const firedBefore = (await jobsOfSchedule()).map(({ metadata }) => metadata.name);
      const fired = await waitFor(
        { what: 'the schedule to fire', timeoutMs: 75_000, intervalMs: 1000 },
        async () => (await jobsOfSchedule()).find(({ metadata }) => !firedBefore.includes(metadata.name)),
      );
      done = await jobDone(kubectl, fired.metadata.name);
    } finally {
      await operator.scale(1);
    }
    await using status = cluster.watch();
    await status.until(
      { what: 'the newer backup in status', timeoutMs: 15_000 },
      (seen) => lastSuccess(seen) >= Date.parse(done.status.completionTime ?? ''),
    );
  });

  it('show a flipped bit when they are verified', async () => {
    const name = (await stand().cluster.get()).status?.backup?.lastSuccessName ?? '';
    await kvctl('verify', name);
    const exec = ['node', '--eval', flip, name];
    const file = (await stand().kubectl.exec('inspector', exec)).trim();
    const failure: unknown = await kvctl('verify', name).catch((error: unknown) => error);
    expect(failure).to.be.instanceOf(CommandError);
    expect((failure as CommandError).stdout)
      .to.include(`${name}: BAD`)
      .and.include(file);
    await stand().kubectl.exec('inspector', exec); // the same bit again
    await kvctl('verify', name);
  });
});
