/** A seed that once showed a defect: it must hold now. */
export interface Regression {
  readonly seed: number;
  /** What it showed. */
  readonly showed: string;
}

/**
 * Seeds that failed. What a seed does changes with the code that runs in it, so a row is worth most while the code is much
 * as it was; what the defect was about has a test of its own besides.
 */
export const REGRESSIONS: readonly Regression[] = [
  {
    seed: 516,
    showed: 'loses a delete when a volume comes back under an incarnation that was replaced since',
  },
  { seed: 9, showed: 'mints a write again that its retry had finished at another node' },
  { seed: 51, showed: 'brings a write back over what its client wrote after the retry of it' },
  { seed: 228, showed: 'mints a write above a newer one after it was acknowledged elsewhere' },
  { seed: 322, showed: 'waits for ever for replicas of which one collects a little earlier' },
  { seed: 121, showed: 'looks again and again at a moment in which nothing happens' },
  { seed: 16, showed: 'founds a cluster with members that had the first map from a peer only' },
  { seed: 387, showed: 'takes a beaten write for one that stands because of a later one of its writer' },
  {
    seed: 241,
    showed: 'takes a beaten write for one that stands because a later one has come several times',
  },
  {
    seed: 2296,
    showed: 'mints a write again that its retry has brought to others without saying what it is',
  },
  { seed: 6526, showed: 'mints a write again that its retry was given a lower version for' },
  { seed: 58, showed: 'knows a request no more because its log was trimmed while it was read' },
  { seed: 30032, showed: 'mints a write again that a quorum read has shown, above what came after it' },
  { seed: 45736, showed: 'loses the request id of a write that is given back after a power cut' },
  { seed: 9212, showed: 'takes a write for a new one that has waited in a halted node' },
  { seed: 3778, showed: 'collects what has not expired, because versions run ahead of the clocks' },
  { seed: 60583, showed: 'sends a record of a partition that it gave away to a replica that is filled' },
  { seed: 7647, showed: 'has to be filled anew when a new incarnation is interrupted' },
  { seed: 8845, showed: 'serves a volume that was rolled back because its predecessor is still missed' },
  {
    seed: 62089,
    showed: 'writes a retry again because the write came in the place of another, without its request id',
  },
  { seed: 44480, showed: 'calls a retry done on the word of a replica that was none when the write began' },
  { seed: 70555, showed: 'never converges because a clock that is an hour off is not set' },
];
