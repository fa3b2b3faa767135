/**
 * Runs `clean` when this process ends before it was cancelled: at exit, Ctrl-C or SIGTERM. For what would outlive the
 * process, such as mounts, loop devices and children; `clean` must be synchronous and may be run when half is gone.
 *
 * @returns cancels it, once the usual way of cleaning up has been gone.
 */
export function cleanAtExit(clean: () => void): () => void {
  if (cleaners.size === 0) listen();
  cleaners.add(clean);
  return () => {
    cleaners.delete(clean);
    if (cleaners.size === 0) ignore();
  };
}

const cleaners = new Set<() => void>();
const SIGNALS = ['SIGINT', 'SIGTERM'] as const;
const SIGNALLED_EXIT_CODE = 130;

function listen(): void {
  process.on('exit', cleanAll);
  for (const signal of SIGNALS) process.on(signal, onSignal);
}

function ignore(): void {
  process.off('exit', cleanAll);
  for (const signal of SIGNALS) process.off(signal, onSignal);
}

function onSignal(): void {
  process.exit(SIGNALLED_EXIT_CODE);
}

/** The latest first: what was made last may stand on what was made before. */
function cleanAll(): void {
  for (const clean of [...cleaners].reverse()) {
    try {
      clean();
    } catch (error) {
      console.error('cleaning up:', error);
    }
  }
}
