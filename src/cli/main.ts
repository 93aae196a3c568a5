import { runProgram } from "./program.ts";

// Whoever reads the output may stop before its end, as `head` does. Of a log alone that ends nothing.
process.stdout.on("error", ({ code }: NodeJS.ErrnoException) => process.exit(code === "EPIPE" ? 0 : 1));
process.stderr.on("error", () => {});
process.exit(await runProgram(process.argv.slice(2))); // llama.cpp and ONNX Runtime keep threads that would hold the process
