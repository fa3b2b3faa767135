/** How a node's process ends; 0 is an end that was asked for. */
export const EXIT_FAILED = 1;
/** Its flags are wrong: the same ones will be wrong again. */
export const EXIT_USAGE = 2;
/** Another process runs on its volume, or on a copy of it: starting again would take turns with that one. */
export const EXIT_FENCED = 3;
