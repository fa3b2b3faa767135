/** Suffixes of Kubernetes quantities and their factor in billionths (10^-9), the smallest unit Kubernetes keeps. */
const factors: Record<string, bigint> = {
  n: 1n,
  u: 10n ** 3n,
  m: 10n ** 6n,
  '': 10n ** 9n,
  k: 10n ** 12n,
  M: 10n ** 15n,
  G: 10n ** 18n,
  T: 10n ** 21n,
  P: 10n ** 24n,
  E: 10n ** 27n,
  Ki: 10n ** 9n * 1024n,
  Mi: 10n ** 9n * 1024n ** 2n,
  Gi: 10n ** 9n * 1024n ** 3n,
  Ti: 10n ** 9n * 1024n ** 4n,
  Pi: 10n ** 9n * 1024n ** 5n,
  Ei: 10n ** 9n * 1024n ** 6n,
};

const form = /^([+-]?)(\d+(?:\.\d*)?|\.\d+)(?:([numkMGTPE]|[KMGTPE]i)|[eE]([+-]?\d{1,2}))?$/;

/** A Kubernetes quantity ("1Gi", "500m", "1e3") in billionths, rounded up; undefined when it is none. */
export function parseQuantity(text: string): bigint | undefined {
  const match = form.exec(text);
  if (match === null) return undefined;
  const [, sign = '', digits = '', suffix = '', exponent = '0'] = match;
  const [whole = '', fraction = ''] = digits.split('.');
  const scaled =
    BigInt(`${whole}${fraction}`) * (factors[suffix] ?? 0n) * 10n ** BigInt(Math.max(0, Number(exponent)));
  const divisor = 10n ** BigInt(fraction.length + Math.max(0, -Number(exponent)));
  const magnitude = (scaled + divisor - 1n) / divisor;
  return sign === '-' ? -magnitude : magnitude;
}

/** Whether both are quantities of the same amount, however they are written. */
export function sameQuantity(a: string, b: string): boolean {
  const left = parseQuantity(a);
  return left !== undefined && left === parseQuantity(b);
}
