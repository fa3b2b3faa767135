/** The metrics of one worker, as it would show them by itself. */
export interface WorkerMetrics {
  readonly worker: number;
  /** Prometheus text. */
  readonly text: string;
}

interface Family {
  readonly head: readonly string[];
  readonly samples: string[];
}

/**
 * One text of the metrics of all workers: each sample has the label `worker`, and each metric is described once, as the
 * format demands.
 */
export function mergeMetrics(sources: readonly WorkerMetrics[]): string {
  const families = new Map<string, Family>();
  for (const { worker, text } of sources) {
    let family: Family | undefined;
    let head: string[] = [];
    for (const line of text.split('\n')) {
      const name = /^# TYPE (\S+)/.exec(line)?.[1];
      if (name !== undefined) {
        family = families.get(name) ?? { head: [...head, line], samples: [] };
        families.set(name, family);
      }
      if (line.startsWith('# HELP')) head = [line];
      else if (line !== '' && !line.startsWith('#')) family?.samples.push(withWorker(line, worker));
    }
  }
  return [...families.values()].flatMap(({ head, samples }) => [...head, ...samples, '']).join('\n');
}

function withWorker(sample: string, worker: number): string {
  const end = sample.search(/[{ ]/);
  const [name, rest] = [sample.slice(0, end), sample.slice(end)];
  const label = `worker="${worker}"`;
  return rest.startsWith('{') ? `${name}{${label},${rest.slice(1)}` : `${name}{${label}}${rest}`;
}
