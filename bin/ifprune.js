#!/usr/bin/env node
// The package has only what was built of the sources. In a checkout they are built as they are now, whenever one of them has changed.
import { existsSync } from "node:fs";

if (existsSync(new URL("../src", import.meta.url))) {
  const { build } = await import("../scripts/build.js");
  build();
}
await import("../dist/cli/main.js");
