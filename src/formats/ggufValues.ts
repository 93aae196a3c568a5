import type { GgufScalar, GgufValue } from "./gguf.ts";

/** Metadata values by type, for those who write them. */
export const string = (value: string): GgufValue => ({ type: "string", value });
export const uint32 = (value: number): GgufValue => ({ type: "uint32", value });
export const float32 = (value: number): GgufValue => ({ type: "float32", value });
export const bool = (value: boolean): GgufValue => ({ type: "bool", value });
export const array = (of: "string" | "float32" | "int32", value: readonly GgufScalar[]): GgufValue => ({
  type: "array",
  of,
  value,
});
