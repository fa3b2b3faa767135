/** What can go wrong. */
export const FAULT_KINDS = [
  /** A stream breaks; what was under way is lost. */
  'drop',
  /** A way takes long for a while. */
  'delay',
  /** A stream breaks behind what was delivered, before it is acknowledged: it is all sent again. */
  'duplicate',
  /** Streams overtake each other: frames of an old one arrive among those of its successor. */
  'reorder',
  /** Some machines cannot reach the others, the map's writer on one side or on both. */
  'partition',
  /** Two machines cannot reach each other, and everybody else reaches both. */
  'bridge',
  /** Machines are cut off one after the other, and come back in another order; some die meanwhile, or lose their volume. */
  'swizzle',
  /** A machine that was cut off comes back when another one has died, in the moment in which a third one is cut off. */
  'relay',
  /** One machine hears another, and is not heard by it. */
  'one-way',
  /** A process dies; its files stay as it saw them. */
  'kill',
  /** A machine loses power: unsynced writes are lost, torn, or survive later ones. */
  'power-cut',
  /** All machines lose power at once. */
  'power-cut-of-all',
  /** A process is stopped and started again in good order. */
  'restart',
  /** A machine comes back with a blank volume. */
  'disk-loss',
  /** A machine comes back with an earlier snapshot of its volume. */
  'rollback',
  /** Writes fail with ENOSPC for a while. */
  'disk-full',
  /** A wall clock jumps, either way. */
  'clock-jump',
  /** A wall clock runs fast or slow. */
  'clock-drift',
  /** A disk takes long for a while. */
  'slow-disk',
  /** A process stands still for a while. */
  'pause',
  /** The writer of the map stops somewhere in the middle of its work, and begins again. */
  'writer-crash',
  /** Members join, leave, are replaced or change their zone, or the number of copies changes, while clients write. */
  'map-change',
  /** Members that have taken a new map are cut off, together with its writer, from those that have not yet. */
  'map-split',
  /** A member is marked down in the map, whether it is or not, and comes back. */
  'mark-down',
] as const;

export type FaultKind = (typeof FAULT_KINDS)[number];
