/** What may stand in a field of a schedule, apart from `*`, `?`, ranges, steps and lists of it. */
const fields = [
  { name: 'minute', value: '[0-5]?[0-9]', range: '0-59' },
  { name: 'hour', value: '(?:[01]?[0-9]|2[0-3])', range: '0-23' },
  { name: 'day of month', value: '(?:0?[1-9]|[12][0-9]|3[01])', range: '1-31' },
  {
    name: 'month',
    value: '(?:0?[1-9]|1[0-2]|jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)',
    range: '1-12 or jan-dec',
  },
  { name: 'day of week', value: '(?:[0-6]|sun|mon|tue|wed|thu|fri|sat)', range: '0-6 or sun-sat' },
] as const;

const macros = /^@(yearly|annually|monthly|weekly|daily|midnight|hourly)$/;

/**
 * Why a text is not a schedule that a CronJob understands, for a person; undefined when it is one.
 *
 * A schedule has five fields (minute, hour, day of month, month, day of week) or is a macro such as `@daily`. The same
 * rules stand as CEL in deploy/crd/kvclusters.kvcluster.io.yaml.
 */
export function refuseSchedule(schedule: string): string | undefined {
  if (schedule.includes('TZ=')) return 'must not contain "TZ="; use timeZone';
  if (macros.test(schedule)) return undefined;
  const parts = schedule.split(' ').filter((part) => part !== '');
  if (parts.length !== fields.length || /[^\S ]/.test(schedule)) {
    return (
      'must have five fields (minute, hour, day of month, month, day of week) separated by spaces, ' +
      'or be one of @hourly, @daily, @midnight, @weekly, @monthly, @yearly, @annually'
    );
  }
  const bad = fields.filter(({ value }, index) => !fieldForm(value).test(parts[index] ?? ''));
  if (bad.length === 0) return undefined;
  return bad
    .map(({ name, range }) => `${name} takes * or ${range}, with ranges, steps and lists of these`)
    .join('; ');
}

function fieldForm(value: string): RegExp {
  const item = `(?:[*?]|${value}(?:-${value})?)(?:/[1-9][0-9]*)?`;
  return new RegExp(`^${item}(?:,${item})*$`, 'i');
}
