import { openEchoDriver } from './echo-driver.ts';
import { openEtcdDriver } from './etcd-driver.ts';
import { openKvClusterDriver } from './kvcluster-driver.ts';
import { openLmdbDriver } from './lmdb-driver.ts';

/** What was read. */
export interface Found {
  readonly value: Uint8Array;
}

/** One client of a system, called as its users call it. */
export interface Driver {
  /** Resolves when the write is acknowledged as durable. */
  put(key: Buffer, value: Buffer): Promise<unknown>;
  /** Undefined when there is none. */
  get(key: Buffer, strong: boolean): Promise<Found | undefined>;
  /** How many keys there are under a prefix. */
  list(prefix: string): Promise<number>;
  close(): void | Promise<void>;
}

/** Which driver, and where its system is: endpoints as host:port, or a directory. */
export interface DriverTarget {
  readonly kind: 'kvcluster' | 'etcd' | 'echo' | 'lmdb';
  readonly endpoints: readonly string[];
}

export async function openDriver({ kind, endpoints }: DriverTarget): Promise<Driver> {
  switch (kind) {
    case 'kvcluster':
      return openKvClusterDriver(endpoints);
    case 'etcd':
      return openEtcdDriver(endpoints);
    case 'echo':
      return openEchoDriver(endpoints);
    case 'lmdb':
      return openLmdbDriver(endpoints[0] ?? '');
  }
}
