import type { Driver, Found } from './driver.ts';
import { serviceOf, UnaryClient } from './unary-client.ts';

/** What gRPC itself costs: the server answers the value it was sent, and stores nothing. */
export function openEchoDriver(endpoints: readonly string[]): Driver {
  const client = new UnaryClient(endpoints, serviceOf('echo.proto', 'kvbench.Echo'));
  const value = Buffer.alloc(256, 'e');
  return {
    put: (key, given) => client.call('Echo', { key, value: given }),
    get: (key) => client.call<Found>('Echo', { key, value }),
    list: () => Promise.reject(new Error('an echo lists nothing')),
    close: () => client.close(),
  };
}
