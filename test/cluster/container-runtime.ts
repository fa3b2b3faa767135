import { mkdirSync, writeFileSync } from 'node:fs';
import { run } from './command.ts';
import { containerdSocket, inState, network } from './layout.ts';
import { startProcess, untilUp } from './processes.ts';

export const pauseImage = 'localhost/pause:1';

const containerdConfig = (): string => `version = 2
root = "${inState('containerd')}"
state = "${inState('run/containerd')}"
[grpc]
  address = "${containerdSocket}"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "${pauseImage}"
  disable_apparmor = true
  # Inside a virtual machine or container root may lack CAP_SYS_RESOURCE, and runc then fails with
  # "can't get final child's PID from pipe".
  restrict_oom_score_adj = true
  # All that is mounted lies under our own directory and can be found there.
  netns_mounts_under_state_dir = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "${inState('cni')}"
`;

/**
 * Point-to-point links and no bridge: every packet between two pods is routed by this machine, so that network rules
 * see it whether or not the kernel shows bridged packets to them.
 */
const podNetwork = {
  cniVersion: '1.0.0',
  name: network.name,
  plugins: [
    {
      type: 'ptp',
      ipMasq: false,
      ipam: {
        type: 'host-local',
        dataDir: inState('addresses'),
        ranges: [[{ subnet: network.podCidr, gateway: network.podGateway }]],
        routes: [{ dst: '0.0.0.0/0' }],
      },
    },
  ],
};

/** ctr on our containerd, in the name space that the kubelet uses. */
export async function ctr(args: readonly string[], timeoutMs = 60_000): Promise<string> {
  return run('ctr', ['--address', containerdSocket, '--namespace', 'k8s.io', ...args], { timeoutMs });
}

export async function startContainerRuntime(): Promise<void> {
  for (const folder of ['cni', 'run', 'containerd']) mkdirSync(inState(folder), { recursive: true });
  writeFileSync(inState('cni/10-pods.conflist'), JSON.stringify(podNetwork, null, 2));
  writeFileSync(inState('containerd.toml'), containerdConfig());
  startProcess('containerd', 'containerd', ['--config', inState('containerd.toml')]);
  const answers = (): Promise<boolean> =>
    ctr(['version'], 5_000).then(
      () => true,
      () => false,
    );
  await untilUp('containerd', answers, 30_000);
}

/** Makes an image archive (docker-archive, one name in it) known to the kubelet. */
export async function importArchive(archive: string): Promise<void> {
  await ctr(['images', 'import', archive], 120_000);
}
