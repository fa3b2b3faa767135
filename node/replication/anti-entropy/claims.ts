import { abortReason } from '../../../common/clock.ts';

/** Which partitions are being resolved: one at a time each, so that two sources share the work instead of doing it twice. */
export class Claims {
  private readonly claimed = new Set<number>();
  private waiting: (() => void)[] = [];

  /** Claims the first `most` of the candidates that are free. */
  take(candidates: readonly number[], most: number): readonly number[] {
    const taken = candidates.filter((partition) => !this.claimed.has(partition)).slice(0, most);
    for (const partition of taken) this.claimed.add(partition);
    return taken;
  }

  release(partitions: readonly number[]): void {
    for (const partition of partitions) this.claimed.delete(partition);
    for (const resolve of this.waiting.splice(0)) resolve();
  }

  /** Resolves at the next release. @throws the signal's reason when it aborts first. */
  released(signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) {
        reject(abortReason(signal));
        return;
      }
      const onAbort = (): void => {
        this.waiting = this.waiting.filter((other) => other !== onRelease);
        reject(abortReason(signal));
      };
      const onRelease = (): void => {
        signal.removeEventListener('abort', onAbort);
        resolve();
      };
      signal.addEventListener('abort', onAbort, { once: true });
      this.waiting.push(onRelease);
    });
  }
}
