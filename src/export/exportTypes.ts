/** Forms that an export may have. */

export const EXPORT_FORMATS = ["hf", "gguf"] as const;
/** A Hugging Face folder, or a GGUF file. */
export type ExportFormat = (typeof EXPORT_FORMATS)[number];

/** Types of an exported GGUF. "keep": those of the bundle, so the very weights that `run` runs. */
export const EXPORT_TYPES = ["keep", "F16", "Q8_0", "Q4_0"] as const;
/** Type of an exported GGUF; "keep" is that of the bundle. */
export type ExportType = (typeof EXPORT_TYPES)[number];
