/** The one place that names an engine: what runs models where no other is given. */
import type { EngineProvider } from "../engine/engine.ts";
import { llamaCpp } from "../engine/llamaCpp.ts";

export const DEFAULT_ENGINES: EngineProvider = llamaCpp;
