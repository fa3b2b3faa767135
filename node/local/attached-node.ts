/**
 * A node that ends with the runner that started it: the runner holds the other end of standard input, and its end,
 * kill -9 included, closes that. The node then stops as on SIGTERM.
 */
process.stdin.once('end', endWithRunner).once('error', endWithRunner).resume();

function endWithRunner(): void {
  process.kill(process.pid, 'SIGTERM');
}

await import('../main.ts');
