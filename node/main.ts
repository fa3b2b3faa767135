import { readSoftwareVersion } from '../common/software-version.ts';
import { explainConfigError, type NodeConfig, parseConfig } from './config.ts';
import { EXIT_USAGE } from './exit-codes.ts';
import { helpText } from './flags.ts';

function configure(): NodeConfig {
  try {
    const config = parseConfig(process.argv.slice(2));
    if (typeof config !== 'string') return config;
    console.log(config === 'help' ? helpText() : readSoftwareVersion());
    process.exit(0);
  } catch (error) {
    console.error(explainConfigError(error));
    process.exit(EXIT_USAGE);
  }
}

const config = configure();
// Loaded when it is known which of the two is needed: who looks after workers has no use for LMDB and gRPC.
if (config.workers > 1) await (await import('./workers/run-pod.ts')).runPod(config, process.argv.slice(2));
else await (await import('./run-node.ts')).runNode(config);
