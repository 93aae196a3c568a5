#!/usr/bin/env node
// The command line runs from its TypeScript sources: nothing is built, so a fresh checkout works as it is.
import { register } from "tsx/esm/api";

register();
await import("../src/cli/main.ts");
