import { expect } from 'chai';
import { parseAllDocuments } from 'yaml';
import { helm } from '../support/helm.ts';
import type { Kubectl } from '../support/kubectl.ts';
import {
  type AuditEvent,
  auditEvents,
  describeEvent,
  serviceAccountUser,
} from '../support/kubernetes-audit.ts';
import { useStand } from '../support/kubernetes-stand.ts';

interface Rule {
  readonly apiGroups: readonly string[];
  readonly resources: readonly string[];
  readonly verbs: readonly string[];
}

interface Rendered {
  readonly kind: string;
  readonly rules?: readonly Rule[];
}

/** Such as `apps statefulsets patch`; the core group is the empty string. */
type Right = string;

/**
 * Rights that no request shows. An object that server-side apply makes is logged as a patch, although the API server
 * asks for the right to create it; and an admission plugin asks for the last one of whoever sets an owner reference
 * that blocks its owner's deletion.
 */
const neverSeen: readonly Right[] = [
  'apps statefulsets create',
  ' services create',
  'policy poddisruptionbudgets create',
  'batch cronjobs create',
  ' persistentvolumeclaims create',
  'kvcluster.io kvclusters/finalizers update',
];

/** What the release's Roles grant. */
async function granted(kubectl: Kubectl, release: string): Promise<ReadonlySet<Right>> {
  const manifest = await helm(['get', 'manifest', release], { kubectl });
  const rules = parseAllDocuments(manifest).flatMap(
    (document) => (document.toJS() as Rendered | null)?.rules ?? [],
  );
  return new Set(
    rules.flatMap(({ apiGroups, resources, verbs }) =>
      apiGroups.flatMap((group) =>
        resources.flatMap((resource) => verbs.map((verb) => `${group} ${resource} ${verb}`)),
      ),
    ),
  );
}

function rightOf({ objectRef, verb }: AuditEvent): Right {
  const { apiGroup = '', resource = '', subresource } = objectRef ?? {};
  return `${apiGroup} ${subresource === undefined ? resource : `${resource}/${subresource}`} ${verb}`;
}

/** Our data pods have no token: every service account outside the system is an operator. */
const isOperators = ({ user }: AuditEvent): boolean => /^system:serviceaccount:(?!kube-)/.test(user.username);

describe("the operator's rights", () => {
  const stand = useStand();

  it('suffice to end the backups of a cluster, which keeps their volume', async () => {
    const { cluster, kubectl } = stand();
    await cluster.patch({ backup: { schedule: '0 3 * * *', storage: { size: '64Mi' } } });
    await kubectl.run(['wait', '--for=create', `cronjob/${cluster.name}-backup`, '--timeout=30s']);
    await cluster.patch({ backup: null });
    await kubectl.run(['wait', '--for=delete', `cronjob/${cluster.name}-backup`, '--timeout=30s']);
    expect(await kubectl.find('persistentvolumeclaim', `${cluster.name}-backup`)).not.to.equal(undefined);
    await cluster.ready();
  });

  it('are each used, and no others are asked for', async function () {
    const { operator } = stand();
    const events = (await auditEvents()).filter(isOperators);
    const used = new Set(events.map(rightOf));
    const rights = await granted(operator.kubectl, operator.name);
    expect(rights).not.to.have.property('size', 0);

    // An operator that was uninstalled lost its rights before its process, which may have asked for its Lease once more.
    const user = serviceAccountUser(operator.kubectl.namespace ?? '', operator.name);
    const denied = events.filter(
      ({ user: { username }, annotations }) =>
        username === user && annotations?.['authorization.k8s.io/decision'] !== 'allow',
    );
    expect(denied.map(describeEvent), 'denied').to.deep.equal([]);

    // Rolling, repair and adoption are other files' scenarios; run by itself, this one cannot judge.
    if (![' pods/eviction create', ' pods delete', ' secrets patch'].every((right) => used.has(right))) {
      console.error('      rights: skipped, needs the other scenarios to have run on this Kubernetes');
      this.skip();
    }
    const unused = [...rights].filter((right) => !used.has(right) && !neverSeen.includes(right));
    expect(unused, 'granted and never used').to.deep.equal([]);
  });
});
