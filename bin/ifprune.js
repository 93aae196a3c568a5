#!/usr/bin/env node
// A checkout runs its TypeScript sources, so nothing has to be built; the package has only what was built of them.
import { existsSync } from "node:fs";

if (existsSync(new URL("../src", import.meta.url))) {
  const { register } = await import("tsx/esm/api");
  register();
  await import("../src/cli/main.ts");
} else {
  await import("../dist/cli/main.js");
}
