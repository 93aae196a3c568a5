import { refused } from "../refusals.ts";
import { runProgram } from "./program.ts";

// Whoever reads the output may stop before its end, as `head` does. Of a log alone that ends nothing.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code === "EPIPE") process.exit(0);
  process.stderr.write(`${(refused("standard output", error) as Error).message}\n`);
  process.exit(1);
});
process.stderr.on("error", () => {});
const code = await runProgram(process.argv.slice(2));
await new Promise((resolve) => process.stdout.write("", resolve)); // what could not be written is told before
process.exit(code); // llama.cpp and ONNX Runtime keep threads that would hold the process
