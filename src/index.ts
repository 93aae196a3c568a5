/**
 * The public surface of the library, by what one wants to do. Everything else may change. Importing it loads neither llama.cpp nor ONNX Runtime:
 * the first answer and the first training step do.
 */

// Answer
export type { StageTimes } from "./answer/answer.ts";
export {
  type AskOptions,
  DEFAULT_MODEL,
  InstructionModel,
  type MaskOptions,
  type ModelOptions,
  type TextAnswer,
} from "./answer/instructionModel.ts";
export {
  type ChosenMask,
  chooseMask,
  type MaskSource,
  type SourceChoice,
  type SourceName,
  type SourceOptions,
} from "./answer/maskSource.ts";
// Models from elsewhere
export { Bundle } from "./bundle/bundle.ts";
export { type Imported, type ImportOptions, importModel } from "./bundle/importModel.ts";
export { type PackOptions, packBundle } from "./bundle/packBundle.ts";
// Errors: all that input can cause
export * from "./errors.ts";
// Evaluate
export {
  evaluateTasks,
  evaluateText,
  type MaskChoice,
  type TaskReport,
  type TextReport,
} from "./eval/evaluate.ts";
export { type OpenedModel, openModel } from "./eval/load.ts";
// Export
export { type ExportOptions, exportSubnetwork } from "./export/export.ts";
export { Subnetwork } from "./export/subnetwork.ts";
export { type Verification, type VerifyOptions, verifyExport } from "./export/verify.ts";
// Masks
export { fullMask, type Mask, maskFromScores } from "./mask/mask.ts";
export { maskFromJson, maskToJson } from "./mask/maskFile.ts";
export { jaccard, type MaskDiagnostics, maskDiagnostics, overlap } from "./mask/overlap.ts";
export { type SoftTopK, softTopK, softTopKGradient } from "./mask/softTopK.ts";
export { writeReport } from "./report/report.ts";
// Serve
export { type App, type AppOptions, createApp } from "./serve/http/app.ts";
export { openPage } from "./serve/http/page.ts";
export { type ListenOptions, listen, type RunningServer } from "./serve/http/server.ts";
export { type LocalService, type LocalServiceOptions, openLocalService } from "./serve/localService.ts";
export type {
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  MaskRequest,
  Prompt,
  Sampling,
} from "./serve/service.ts";
// Train
export { parseRecipe, type ReadRecipeOptions, type RecipeFile, readRecipe } from "./train/recipe/read.ts";
export type { Recipe } from "./train/recipe/schema.ts";
export { type RunEvent, type RunOptions, trainRecipe } from "./train/run.ts";
