import type { Driver } from './driver.ts';
import { keyBuffer } from './key-buffers.ts';
import { scattered } from './key-chooser.ts';
import { valuesOf } from './run-work.ts';

/** A data set that is put before anything is measured. */
export interface DataSet {
  readonly prefix: string;
  readonly keys: number;
  readonly valueBytes: number;
  readonly inFlight: number;
}

/** Puts every key once, in an order that no index profits from; a put that fails ends it. Gives the seconds it took. */
export async function fill(driver: Driver, { prefix, keys, valueBytes, inFlight }: DataSet): Promise<number> {
  const values = valuesOf(valueBytes);
  const startMs = performance.now();
  let next = 0;
  const lane = async (): Promise<void> => {
    for (let index = next++; index < keys; index = next++) {
      const value = values[index % values.length] ?? Buffer.alloc(0);
      await driver.put(keyBuffer(prefix, scattered(index, keys)), value);
    }
  };
  await Promise.all(Array.from({ length: inFlight }, lane));
  return (performance.now() - startMs) / 1000;
}
