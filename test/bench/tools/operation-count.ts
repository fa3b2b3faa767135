import type { Measurement, Work } from '../load/work.ts';

const FIRST_PER_LANE = 20;
const FIRST_AT_LEAST = 500;

/**
 * For tools that are told how many operations to do: as many as will take the time that is wanted, going by the last
 * time; the first time by a trial that does not count.
 */
export class OperationCount {
  private readonly rates = new Map<string, number>();

  async measure(
    cell: string,
    { inFlight, durationMs }: Work,
    run: (total: number) => Promise<Measurement>,
  ): Promise<Measurement> {
    const known = this.rates.get(cell);
    const rate = known ?? (await run(FIRST_AT_LEAST + Math.min(inFlight, 100) * FIRST_PER_LANE)).opsPerSecond;
    const total = Math.max(inFlight, Math.round((rate * durationMs) / 1000));
    const measurement = await run(total);
    this.rates.set(cell, measurement.opsPerSecond);
    return measurement;
  }
}
