import { setTimeout as delay } from 'node:timers/promises';
import { expect } from 'chai';
import {
  type AuditEvent,
  auditEvents,
  auditMark,
  describeEvent,
  isWrite,
  serviceAccountUser,
} from '../support/kubernetes-audit.ts';
import { useStand } from '../support/kubernetes-stand.ts';
import { stands } from '../support/kvcluster.ts';
import { waitFor } from '../support/wait.ts';

const QUIET_MS = 60_000;

describe('a KVCluster that nobody changes', () => {
  const stand = useStand();

  /** What the operator wrote, Leases and Events of other objects included. */
  const writesSince = async (mark: number): Promise<AuditEvent[]> => {
    const { kubectl, operator } = stand();
    const user = serviceAccountUser(kubectl.namespace ?? '', operator.name);
    return (await auditEvents(mark)).filter((event) => isWrite(event) && event.user.username === user);
  };

  it('causes no write in 60 s but the renewals of the Lease', async function () {
    this.timeout(QUIET_MS + 60_000);
    const { cluster } = stand();
    await cluster.ready();
    const mark = auditMark();
    // The one wait by the clock: what is tested is that nothing happens.
    await delay(QUIET_MS);
    const writes = await writesSince(mark);
    const others = writes.filter(({ objectRef }) => objectRef?.resource !== 'leases');
    expect(others.map(describeEvent)).to.deep.equal([]);
    // The operator was there, and the log was being written.
    expect(writes.length).to.be.above(10);
  });

  it('is not written by an operator that has just started', async () => {
    const { cluster, kubectl } = stand();
    await cluster.ready();
    const before = await cluster.get();
    await kubectl.run(['delete', 'pod', '--selector=app.kubernetes.io/name=kvcluster-operator']);
    // That a new one is at work shows in what it repairs.
    await kubectl.run(['delete', 'poddisruptionbudget', cluster.name]);
    await waitFor({ what: 'the new operator to repair something', timeoutMs: 60_000, intervalMs: 500 }, () =>
      kubectl.find('poddisruptionbudget', cluster.name),
    );
    const mark = auditMark();
    await waitFor({ what: 'it to renew its Lease', timeoutMs: 30_000 }, async () =>
      (await writesSince(mark)).some(({ objectRef }) => objectRef?.resource === 'leases'),
    );
    const after = await cluster.get();
    expect(after.status).to.deep.equal(before.status);
    expect(after.metadata.resourceVersion).to.equal(before.metadata.resourceVersion);
  });

  it('is written when somebody else changes what it owns, once', async () => {
    const { cluster, kubectl } = stand();
    const mark = auditMark();
    const label = 'app.kubernetes.io/component';
    await kubectl.run(['label', 'service', cluster.name, `${label}=other`, '--overwrite']);
    await waitFor({ what: 'the label to be as before', timeoutMs: 20_000 }, async () => {
      const { metadata } = await kubectl.get('service', cluster.name);
      return metadata.labels?.[label] === 'node';
    });
    await cluster.ready();
    const repairs = (await writesSince(mark)).filter(({ objectRef }) => objectRef?.resource === 'services');
    expect(repairs.map(describeEvent)).to.have.length(1);
  });

  it('is left as it is while it is paused, with its status going on, and repaired after', async () => {
    const { cluster, kubectl } = stand();
    await cluster.patch({ paused: true });
    try {
      const mark = auditMark();
      await using status = cluster.watch();
      await status.until({ what: 'Paused', timeoutMs: 20_000 }, (object) =>
        stands(object, 'Progressing', 'False', 'Paused'),
      );
      await kubectl.run(['delete', 'poddisruptionbudget', cluster.name]);
      const pod = cluster.podNames[0] ?? '';
      await kubectl.run(['delete', 'pod', pod, '--wait=false']);
      await status.until({ what: 'Degraded for MemberDown', timeoutMs: 20_000 }, (object) =>
        stands(object, 'Degraded', 'True', 'MemberDown'),
      );
      await cluster.ready();
      const written = (await writesSince(mark)).map(({ objectRef }) => objectRef?.resource ?? '');
      expect([...new Set(written)].toSorted()).to.deep.equal(['events', 'kvclusters', 'leases']);
      expect(await kubectl.find('poddisruptionbudget', cluster.name)).to.equal(undefined);
    } finally {
      await cluster.patch({ paused: false });
    }
    await waitFor({ what: 'the budget to be back', timeoutMs: 20_000 }, () =>
      kubectl.find('poddisruptionbudget', cluster.name),
    );
  });
});
