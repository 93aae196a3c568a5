/** Starts llama.cpp and prints which kernels the process has loaded for it: names, joined by commas. */
import { readFileSync } from "node:fs";
import { startBackend } from "../../src/engine/llamaFile.ts";

await startBackend();
const maps = readFileSync("/proc/self/maps", "utf8");
console.log([...new Set([...maps.matchAll(/libggml-cpu-(\w+)\.so/g)].map(([, name]) => name))].join());
process.exit();
