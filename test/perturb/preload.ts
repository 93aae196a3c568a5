/**
 * What `run.ts` changes in a test: a setup file in vitest's workers, and preloaded (`--import`) into every process that a test starts.
 *
 * - `PERTURB`, a number: normal samples, and so initial weights, are changed by up to that much of their size. The same samples are changed
 *   alike in every process.
 * - `LLAMA_PACKAGE`, a folder: node-llama-cpp takes its binaries from this copy of its package.
 */
import { createRequire, register } from "node:module";
import { pathToFileURL } from "node:url";
import { Random } from "../../src/random.ts";

const { PERTURB: perturb, LLAMA_PACKAGE: llamaPackage, NODE_OPTIONS: options = "" } = process.env;

if (perturb) {
  const { normal } = Random.prototype;
  Random.prototype.normal = function () {
    const z = normal.call(this);
    return z * (1 + Number(perturb) * ((12_345.678 * z) % 1));
  };
}

if (llamaPackage) {
  const entry = pathToFileURL(`${llamaPackage}/dist/index.js`).href;
  const hook = `export const resolve = (specifier, context, next) =>
    specifier === "@node-llama-cpp/linux-x64" ? { url: "${entry}", shortCircuit: true } : next(specifier, context);`;
  register(`data:text/javascript,${encodeURIComponent(hook)}`);
}

if (!options.includes(import.meta.url)) {
  const tsx = pathToFileURL(createRequire(import.meta.url).resolve("tsx")).href; // processes start in other folders too
  process.env.NODE_OPTIONS = `${options} --import ${tsx} --import ${import.meta.url}`;
}
