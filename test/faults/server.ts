/** Serves the tiny model from the caches under a folder: `server.ts FOLDER`. Its first line says where. */
import { join } from "node:path";
import { TINY_MODEL } from "../../src/bundle/pulledModels.ts";
import { createApp } from "../../src/serve/http/app.ts";
import { listen } from "../../src/serve/http/server.ts";
import { openLocalService } from "../../src/serve/localService.ts";

const [folder] = process.argv.slice(2) as [string];
const service = await openLocalService([{ id: "m", path: TINY_MODEL }], {
  ...{ threads: 1, memoryBytes: 32 * 2 ** 20, slots: 4 }, // sub-networks come and go
  cache: { root: join(folder, "subnetworks"), maxBytes: 4 * 2 ** 20 },
  ...{ scoreCache: { root: join(folder, "scores") }, tasksRoot: join(folder, "tasks") },
});
const server = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0 });
console.log(server.url);
