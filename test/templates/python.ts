/** Python with transformers and without torch, as `.ci/run` installs it for lm-eval. It may be missing; where `CI` is set that is a failure. */
import { existsSync } from "node:fs";

export const pythonPath = process.env.TRANSFORMERS_PYTHON ?? "/opt/lm-eval/bin/python";
export const isPythonMissing = !existsSync(pythonPath) && !process.env.CI;
