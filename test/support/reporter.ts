import { writeFileSync } from 'node:fs';
import Mocha from 'mocha';

/** Mocha's spec reporter that also writes the totals, and what failed, to the file named by the reporter option `summary`. */
export default class SummaryReporter extends Mocha.reporters.Spec {
  constructor(runner: Mocha.Runner, options: Mocha.MochaOptions) {
    super(runner, options);
    const { summary } = options.reporterOptions as { summary?: string };
    const failed: { title: string; error: Error }[] = [];
    runner.on('fail', (test: Mocha.Test, error: Error) => {
      failed.push({ title: test.fullTitle(), error });
    });
    runner.once('end', () => {
      if (summary === undefined) return;
      const { passes, failures, pending } = this.stats;
      writeFileSync(
        summary,
        JSON.stringify({
          passed: passes,
          failed: failures,
          skipped: pending,
          // Hooks that follow a failed test may have added to what its error says.
          failures: failed.map(({ title, error }) => `${title}: ${error.message}`),
        }),
      );
    });
  }
}
