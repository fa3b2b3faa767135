import { endSharedCluster } from '../support/kubernetes-cluster.ts';
import { endStand } from '../support/kubernetes-stand.ts';

/** The run's one Kubernetes, and what scenarios share in it, end with the run. */
export const mochaHooks = {
  async afterAll(this: Mocha.Context): Promise<void> {
    this.timeout(180_000);
    await endStand();
    await endSharedCluster();
  },
};
