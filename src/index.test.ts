/** What the package exports: a name that comes, goes or changes its kind is a change for all who use it. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import * as surface from "./index.ts";

/** As `kind name`: of the values by what they are, of the types by how they are exported. */
function exported(): string[] {
  const source = readFileSync(new URL("index.ts", import.meta.url), "utf8");
  const lists = [...source.matchAll(/^export (type )?\{([^}]*)\}/gm)].flatMap(([, allTypes, list]) =>
    list!.split(",").map((name) => (allTypes ?? "") + name.trim()),
  );
  const types = lists
    .filter((name) => name.startsWith("type ") && name !== "type ")
    .map((name) => `type ${/\w+$/.exec(name)![0]}`);
  const values = Object.entries(surface).map(([name, value]) => {
    if (typeof value !== "function") return `const ${name}`;
    return /^class\b/.test(Function.prototype.toString.call(value)) ? `class ${name}` : `function ${name}`;
  });
  return [...values, ...types].sort();
}

test("the surface is what it was", () => {
  expect(exported().join("\n")).toMatchInlineSnapshot(`
    "class Bundle
    class BusyError
    class ContextLengthError
    class DependencyError
    class DivergenceError
    class EngineError
    class FileError
    class HubError
    class IfpruneError
    class InputError
    class InstructionModel
    class MemoryError
    class OptionError
    class ShapeError
    class SpecializeJobs
    class Subnetwork
    const CONTROLS
    const DEFAULT_MODEL
    const SCOPES
    const SOURCE_NAMES
    const TINY_MODEL
    const WANTED_FORMS
    function addQuality
    function compareAnswers
    function composePrompt
    function createApp
    function evaluateTasks
    function evaluateText
    function exportSubnetwork
    function fullMask
    function generateAnswers
    function importModel
    function listen
    function maskDiagnostics
    function maskFromJson
    function maskFromScores
    function maskToJson
    function measureQuality
    function openLocalService
    function openModel
    function openPage
    function overlap
    function packBundle
    function parseRecipe
    function pullModel
    function readRecipe
    function softTopK
    function softTopKGradient
    function specialize
    function trainRecipe
    function verifyExport
    function writeReport
    type AddOptions
    type AddStage
    type AnswerStage
    type AnswerToken
    type App
    type AppOptions
    type AskOptions
    type Assignment
    type Both
    type Budget
    type CacheOptions
    type ChatMessage
    type ChatPrompt
    type ChatTemplate
    type ChosenMask
    type CompareOptions
    type ComparedAnswer
    type Comparison
    type Control
    type CostStage
    type CurvePoint
    type Distance
    type Engine
    type EngineDescription
    type EngineModel
    type EngineOptions
    type EngineProvider
    type EvaluationOptions
    type ExportFormat
    type ExportOptions
    type ExportType
    type FeatureEngine
    type FeatureOptions
    type Form
    type FormReason
    type GenerateAnswersOptions
    type GenerateOptions
    type GeneratedAnswers
    type GenerationEvent
    type GenerationRequest
    type GoldScore
    type ImportOptions
    type Imported
    type InferenceService
    type Instruction
    type JobAsked
    type JobEstimate
    type JobEvaluation
    type JobPause
    type JobProgress
    type JobTask
    type JobWork
    type KvType
    type ListenOptions
    type LoadedSubnetwork
    type LocalService
    type LocalServiceOptions
    type LogEntry
    type Mask
    type MaskDiagnostics
    type MaskForm
    type MaskInfo
    type MaskMaking
    type MaskOptions
    type MaskQuality
    type MaskRequest
    type MaskSource
    type MaskedModel
    type MeasureOptions
    type MessageCall
    type MetricsRow
    type ModelConfig
    type ModelOptions
    type ModelSource
    type OpenPredictor
    type OpenedModel
    type PackOptions
    type PageFile
    type PageFiles
    type PredictorOptions
    type Prompt
    type PromptFormat
    type PromptToken
    type PromptedModel
    type PullOptions
    type Pulled
    type Quality
    type ReadRecipeOptions
    type Recipe
    type RecipeFile
    type RopeScaling
    type RunEvent
    type RunOptions
    type RunningServer
    type Sampling
    type SavedTask
    type Scope
    type ScoreCacheOptions
    type ScoreOptions
    type ScoredToken
    type ServedModel
    type ServiceState
    type SessionOptions
    type SoftTopK
    type SourceChoice
    type SourceFlags
    type SourceName
    type SourceOptions
    type Specialization
    type SpecializeEvent
    type SpecializeJob
    type SpecializeJobsOptions
    type SpecializeOptions
    type SpecializePhase
    type SpecializeProgress
    type Speed
    type Stage
    type StageTimes
    type StepDistance
    type StepLoss
    type StreamDecoder
    type TaskExample
    type TaskReport
    type TaskScore
    type TemplateVariables
    type TextAnswer
    type TextPart
    type TextReport
    type TokenLogprob
    type Tokenizer
    type Verification
    type VerifyFilesOptions
    type VerifyOptions
    type WantedForm
    type Weight
    type WeightType"
  `);
});
