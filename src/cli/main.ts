import { runProgram } from "./program.ts";

process.exit(await runProgram(process.argv.slice(2))); // llama.cpp and ONNX Runtime keep threads that would hold the process
