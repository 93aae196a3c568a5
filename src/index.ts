/** The public surface of the library. Everything else may change. */

export { type AskOptions, InstructionModel, type MaskOptions, type TextAnswer } from "./answer/instructionModel.ts";
export {
  type ChosenMask,
  chooseMask,
  type MaskSource,
  type SourceChoice,
  type SourceName,
} from "./answer/maskSource.ts";
export type { PromptedModel } from "./answer/promptedModel.ts";
export { Bundle } from "./bundle/bundle.ts";
export { importModel } from "./bundle/importModel.ts";
export { packBundle } from "./bundle/packBundle.ts";
export * from "./errors.ts";
export {
  type Control,
  type EvaluationOptions,
  evaluateTasks,
  evaluateText,
  type OpenedModel,
  type Scope,
  type TaskReport,
  type TextReport,
} from "./eval/evaluate.ts";
export { openModel } from "./eval/load.ts";
export { type ExportOptions, exportSubnetwork } from "./export/export.ts";
export { Subnetwork } from "./export/subnetwork.ts";
export { type Verification, verifyExport } from "./export/verify.ts";
export { type Mask, maskFromScores } from "./mask/mask.ts";
export { maskFromJson, maskToJson } from "./mask/maskFile.ts";
export { jaccard, maskDiagnostics, overlap } from "./mask/overlap.ts";
export { softTopK, softTopKGradient } from "./mask/softTopK.ts";
export { writeReport } from "./report/report.ts";
export { composePrompt, type TaskExample } from "./text/prompt.ts";
export { parseRecipe, readRecipe } from "./train/recipe/read.ts";
export type { Recipe } from "./train/recipe/schema.ts";
export { type RunEvent, trainRecipe } from "./train/run.ts";
