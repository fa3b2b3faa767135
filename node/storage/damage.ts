import { byteString } from '../../common/bytes.ts';
import type { Logger } from '../../common/log.ts';

/** Keys whose records failed their checksum since the store was opened. */
export class Damage {
  private readonly keys = new Set<string>();
  private readonly limit: number;
  private readonly logger: Logger;
  private readonly onTooMany: () => void;

  /** `onTooMany` is called once, by the key above the limit. */
  constructor(options: { limit: number; logger: Logger; onTooMany: () => void }) {
    this.limit = options.limit;
    this.logger = options.logger;
    this.onTooMany = options.onTooMany;
  }

  /** Counted up to one above the limit. */
  get count(): number {
    return this.keys.size;
  }

  note(partition: number, key: Buffer): void {
    const keyString = byteString(key);
    if (this.keys.size > this.limit || this.keys.has(keyString)) return;
    this.keys.add(keyString);
    this.logger.error({ partition, count: this.keys.size }, 'a stored record fails its checksum');
    if (this.keys.size > this.limit) this.onTooMany();
  }
}
