/**
 * The volume provisioner of the test ground, a process of its own: makes a PersistentVolume on a loop device for each
 * pending claim of storage class `local`, and wipes it when the claim is gone. The kubelet does the rest, as it does
 * for any local disk: file system, mount, group, growth.
 */
import { parseQuantity } from '../../model/quantity.ts';
import { ApiClient } from './api-client.ts';
import { nodeName } from './layout.ts';
import { createLoopDevice, isMounted, removeLoopDevice } from './loop-devices.ts';

interface Claim {
  metadata: { name: string; namespace: string; uid: string; deletionTimestamp?: string };
  spec: {
    accessModes: string[];
    storageClassName?: string;
    volumeMode?: string;
    volumeName?: string;
    resources: { requests: { storage: string } };
  };
}

interface Volume {
  metadata: { name: string };
  spec: { claimRef?: { uid?: string }; local?: { path: string } };
  status?: { phase?: string };
}

const storageClass = 'local';
const managed = { 'app.kubernetes.io/managed-by': 'volume-provisioner' };
const claimsPath = '/api/v1/persistentvolumeclaims';
const volumesPath = '/api/v1/persistentvolumes';
const ownVolumesPath = `${volumesPath}?labelSelector=${encodeURIComponent('app.kubernetes.io/managed-by=volume-provisioner')}`;
/** Looked at anyway after this time: a device may have been unmounted, which no object tells. */
const resyncMs = 2_000;

const volumeName = (claim: Claim): string => `local-${claim.metadata.uid}`;

async function reconcile(api: ApiClient): Promise<void> {
  const claims = await api.list<Claim>(claimsPath);
  const volumes = await api.list<Volume>(ownVolumesPath);
  const names = new Set(volumes.map((volume) => volume.metadata.name));
  const wanted = claims.filter(
    ({ metadata, spec }) =>
      spec.storageClassName === storageClass &&
      (spec.volumeName ?? '') === '' &&
      spec.volumeMode !== 'Block' &&
      metadata.deletionTimestamp === undefined,
  );
  for (const claim of wanted.filter((candidate) => !names.has(volumeName(candidate))))
    await provision(api, claim);

  const claimed = new Set(claims.map((claim) => claim.metadata.uid));
  const released = volumes.filter(
    ({ spec, status }) => !claimed.has(spec.claimRef?.uid ?? '') && status?.phase !== 'Bound',
  );
  for (const volume of released) await wipe(api, volume);
}

async function provision(api: ApiClient, claim: Claim): Promise<void> {
  const name = volumeName(claim);
  const { storage } = claim.spec.resources.requests;
  const billionths = parseQuantity(storage);
  if (billionths === undefined)
    throw new Error(`claim ${claim.metadata.name} wants the unreadable size ${storage}`);
  await removeLoopDevice(name); // left by an attempt that failed between the device and the object
  const device = await createLoopDevice(name, Number((billionths + 999_999_999n) / 1_000_000_000n));
  await api.request('POST', volumesPath, {
    apiVersion: 'v1',
    kind: 'PersistentVolume',
    metadata: { name, labels: managed },
    spec: {
      capacity: { storage },
      accessModes: claim.spec.accessModes,
      storageClassName: storageClass,
      persistentVolumeReclaimPolicy: 'Retain', // wiped here, once nothing uses it
      // With the uid: a later claim of the same name gets a volume of its own.
      claimRef: {
        apiVersion: 'v1',
        kind: 'PersistentVolumeClaim',
        namespace: claim.metadata.namespace,
        name: claim.metadata.name,
        uid: claim.metadata.uid,
      },
      local: { path: device, fsType: 'ext4' },
      nodeAffinity: {
        required: {
          nodeSelectorTerms: [
            { matchExpressions: [{ key: 'kubernetes.io/hostname', operator: 'In', values: [nodeName] }] },
          ],
        },
      },
    },
  });
  console.log(`made ${name} (${storage}, ${device}) for ${claim.metadata.namespace}/${claim.metadata.name}`);
}

async function wipe(api: ApiClient, volume: Volume): Promise<void> {
  const { name } = volume.metadata;
  const device = volume.spec.local?.path;
  if (device !== undefined && isMounted(device)) return; // the kubelet is about to unmount it
  await removeLoopDevice(name);
  await api.request('DELETE', `${volumesPath}/${name}`);
  console.log(`wiped ${name}`);
}

const api = new ApiClient('volumes');
let wake: () => void = () => undefined;
const changed = (): void => {
  wake();
};
void api.watch(claimsPath, changed);
void api.watch(volumesPath, changed);
for (;;) {
  const change = new Promise<void>((resolve) => {
    wake = resolve;
    setTimeout(resolve, resyncMs);
  });
  await reconcile(api).catch((error: unknown) => {
    console.error(error instanceof Error ? error.message : error);
  });
  await change;
}
