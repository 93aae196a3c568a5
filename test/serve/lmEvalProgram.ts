/** The harness whose scores the field compares. It is Python's, so it may be missing; where `CI` is set that is a failure. */
import { existsSync } from "node:fs";

export const lmEvalPath = process.env.LM_EVAL ?? "/opt/lm-eval/bin/lm_eval";
export const isLmEvalMissing = !existsSync(lmEvalPath) && !process.env.CI;
