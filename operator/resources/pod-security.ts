import type { Wire } from '../runtime/api.ts';
import type { V1PodSecurityContext, V1SecurityContext } from '../runtime/kubernetes.ts';
import { RUN_AS_ID } from './names.ts';

/** What the pod security standard `restricted` asks of a pod; volumes belong to the group that the process runs in. */
export const restrictedPod: Wire<V1PodSecurityContext> = {
  runAsNonRoot: true,
  runAsUser: RUN_AS_ID,
  runAsGroup: RUN_AS_ID,
  fsGroup: RUN_AS_ID,
  fsGroupChangePolicy: 'OnRootMismatch',
  seccompProfile: { type: 'RuntimeDefault' },
};

/** What it asks of a container, and a root file system that cannot be written. */
export const restrictedContainer: Wire<V1SecurityContext> = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  runAsNonRoot: true,
  capabilities: { drop: ['ALL'] },
};
