/**
 * The public surface of the library, by what one wants to do. Everything else may change. Importing it loads neither llama.cpp nor ONNX Runtime:
 * the first answer and the first training step do.
 *
 * @module
 */

// Answer

export type { StageTimes } from "./answer/answer.ts";
export { type ComparedAnswer, type CompareOptions, type Comparison, compareAnswers } from "./answer/compareAnswers.ts";
export { type GenerateAnswersOptions, type GeneratedAnswers, generateAnswers } from "./answer/generate.ts";
export {
  type AskOptions,
  InstructionModel,
  type MaskOptions,
  type ModelOptions,
  type TextAnswer,
} from "./answer/instructionModel.ts";
export type {
  ChosenMask,
  MaskQuality,
  MaskSource,
  ScoreOptions,
  SourceChoice,
  SourceFlags,
  SourceOptions,
} from "./answer/maskSource.ts";
export { type MeasureOptions, measureQuality } from "./answer/measure.ts";
export type { OpenPredictor, PredictorOptions, PromptedModel } from "./answer/promptedModel.ts";
export type { ChatPrompt } from "./answer/prompts.ts";
export type { ScoreCacheOptions } from "./answer/scoreCache.ts";
export { SOURCE_NAMES, type SourceName } from "./answer/sourceNames.ts";
export type { Budget } from "./bundle/budget.ts";
export type { CacheOptions } from "./bundle/cacheEntries.ts";
export type { CostStage } from "./bundle/formCost.ts";
export { type Form, WANTED_FORMS, type WantedForm } from "./bundle/formOptions.ts";
export type { FormReason, MaskForm } from "./bundle/maskModel.ts";
export type { KvType } from "./bundle/memory.ts";
export { DEFAULT_MODEL, TINY_MODEL } from "./bundle/pulledModels.ts";
export type {
  AnswerToken,
  Engine,
  EngineDescription,
  EngineModel,
  EngineOptions,
  EngineProvider,
  FeatureEngine,
  FeatureOptions,
  GenerateOptions,
  ScoredToken,
} from "./engine/engine.ts";
export type { ChatMessage, ChatTemplate, MessageCall, TemplateVariables } from "./text/chatTemplate.ts";
export {
  composePrompt,
  type Instruction,
  type PromptFormat,
  type TaskExample,
} from "./text/prompt.ts";
export type { StreamDecoder, TextPart, Tokenizer } from "./text/tokenizer.ts";

// Serve

export { type App, type AppOptions, createApp } from "./serve/http/app.ts";
export type { LogEntry } from "./serve/http/context.ts";
export { openPage, type PageFile, type PageFiles } from "./serve/http/page.ts";
export { type ListenOptions, listen, type RunningServer } from "./serve/http/server.ts";
export { type LocalService, type LocalServiceOptions, openLocalService } from "./serve/localService.ts";
export type {
  AddOptions,
  AddStage,
  AnswerStage,
  GenerationEvent,
  GenerationRequest,
  InferenceService,
  LoadedSubnetwork,
  MaskInfo,
  MaskMaking,
  MaskRequest,
  Prompt,
  PromptToken,
  Sampling,
  SavedTask,
  ServedModel,
  ServiceState,
  TokenLogprob,
} from "./serve/service.ts";

// Models from elsewhere

export { Bundle } from "./bundle/bundle.ts";
export { type Imported, type ImportOptions, importModel } from "./bundle/importModel.ts";
export { type PackOptions, packBundle } from "./bundle/packBundle.ts";
export { type Pulled, type PullOptions, pullModel } from "./bundle/pullModel.ts";
export type { WeightType } from "./formats/quantize.ts";
export { addQuality, type Quality, type VerifyFilesOptions } from "./manifest.ts";
export type { ModelConfig, RopeScaling, Weight } from "./model/config.ts";
export type { ModelSource } from "./model/source.ts";

// Masks

export { fullMask, type Mask, maskFromScores } from "./mask/mask.ts";
export { maskFromJson, maskToJson } from "./mask/maskFile.ts";
export { type MaskDiagnostics, maskDiagnostics, overlap } from "./mask/overlap.ts";
export { type SoftTopK, softTopK, softTopKGradient } from "./mask/softTopK.ts";

// Train

export type { SessionOptions } from "./graph/session.ts";
export type { Assignment } from "./train/recipe/changes.ts";
export { parseRecipe, type ReadRecipeOptions, type RecipeFile, readRecipe } from "./train/recipe/read.ts";
export type { Recipe, Stage } from "./train/recipe/schema.ts";
export { type RunEvent, type RunOptions, trainRecipe } from "./train/run.ts";
export type { MetricsRow } from "./train/runLog.ts";

// Evaluate

export { CONTROLS, type Control, SCOPES, type Scope } from "./eval/controls.ts";
export {
  type EvaluationOptions,
  evaluateTasks,
  evaluateText,
  type MaskedModel,
  type OpenedModel,
  type TaskReport,
  type TaskScore,
  type TextReport,
} from "./eval/evaluate.ts";
export { openModel } from "./eval/load.ts";
export { writeReport } from "./report/report.ts";

// Export

export { type ExportOptions, exportSubnetwork } from "./export/export.ts";
export type { ExportFormat, ExportType } from "./export/exportTypes.ts";
export { Subnetwork } from "./export/subnetwork.ts";
export { type Verification, type VerifyOptions, verifyExport } from "./export/verify.ts";

// Specialise

export type { JobAsked, JobEvaluation, JobPause, JobProgress, SpecializeJob } from "./specialize/jobState.ts";
export {
  type JobTask,
  type JobWork,
  SpecializeJobs,
  type SpecializeJobsOptions,
} from "./specialize/jobs.ts";
export type {
  Both,
  CurvePoint,
  Distance,
  GoldScore,
  JobEstimate,
  Specialization,
  SpecializeEvent,
  SpecializePhase,
  SpecializeProgress,
  Speed,
  StepDistance,
  StepLoss,
} from "./specialize/specialization.ts";
export { type SpecializeOptions, specialize } from "./specialize/specialize.ts";

// Errors: all that input can cause

export * from "./errors.ts";
