/** A gRPC server in Node that answers what it is sent; prints its port. Ends with its parent. */
import { Server, ServerCredentials, type ServerUnaryCall, type sendUnaryData } from '@grpc/grpc-js';
import { serviceOf } from '../load/unary-client.ts';

const server = new Server({ 'grpc.max_concurrent_streams': 8192 });
server.addService(serviceOf('echo.proto', 'kvbench.Echo'), {
  Echo: (call: ServerUnaryCall<object, object>, done: sendUnaryData<object>) => done(null, call.request),
});
server.bindAsync('127.0.0.1:0', ServerCredentials.createInsecure(), (error, port) => {
  if (error !== null) throw error;
  process.send?.(port);
});
process.on('SIGINT', () => undefined);
process.on('disconnect', () => process.exit(0));
