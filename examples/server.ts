/** The API inside a server of one's own, here beside a route of its own: http://127.0.0.1:8080/hello and /v1. */
import { createApp, DEFAULT_MODEL, listen, openLocalService } from "ifprune";

const service = await openLocalService([{ id: "default", path: DEFAULT_MODEL }]);
const app = createApp(service);
const handle = (request: Request) =>
  new URL(request.url).pathname === "/hello" ? new Response("Hello.\n") : app.fetch(request);
const server = await listen(handle, { host: "127.0.0.1", port: Number(process.env.PORT ?? 8080) });
console.log(server.url);
await new Promise((resolve) => process.once("SIGINT", resolve));
await server[Symbol.asyncDispose]();
await service[Symbol.asyncDispose]();
