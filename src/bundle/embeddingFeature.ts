/**
 * The feature of a predictor that reads the model's own embedding: a few rows of the table in `base.gguf`, added up. No engine runs.
 *
 * Shapes: D model width · V vocabulary
 */
import { ContextLengthError, InputError } from "../errors.ts";
import { ggufName } from "../formats/ggufModel.ts";
import { type BlockType, decodeBlocks } from "../formats/quantize.ts";
import { featureWidth, type Pooling } from "../model/predictorConfig.ts";
import type { Bundle } from "./bundle.ts";

const EMBEDDING = "model.embed_tokens.weight";
/** Of decoded rows that are kept, as texts use few tokens often: the oldest go first. */
const keptBytes = 16 << 20;

/**
 * What makes the feature [D, or 2·D of both] of an instruction's token ids. Rows are read by position.
 *
 * @throws {FileError} if the bundle has no embedding of its shape
 */
export function embeddingFeature(bundle: Bundle, pooling: Pooling): (ids: Int32Array) => Float32Array {
  const { base, config, contextLength } = bundle;
  bundle.read(EMBEDDING, { from: 0, to: 1 }); // checks it
  const tensor = base.tensor(ggufName(config, EMBEDDING));
  const { width: D, vocabSize: V } = config;
  const bytes = new Uint8Array(tensor.bytes / V);
  const rows = new Map<number, Float32Array>();
  const mostRows = Math.max(1, Math.floor(keptBytes / (4 * D)));
  const rowOf = (id: number): Float32Array => {
    const known = rows.get(id);
    if (known) return known;
    base.readInto(bytes, tensor, id * bytes.length);
    const row = decodeBlocks(bytes, tensor.type as BlockType).slice(); // of F32 it lies in `bytes`
    if (rows.size === mostRows) rows.delete(rows.keys().next().value!);
    rows.set(id, row);
    return row;
  };
  return (ids) => {
    if (ids.length === 0) throw new InputError("predictor: wanted at least one token, got none.");
    if (ids.length >= contextLength) throw new ContextLengthError(ids.length, contextLength);
    const stranger = ids.find((id) => id < 0 || id >= V);
    if (stranger !== undefined)
      throw new InputError(`predictor: wanted token ids below ${V}, got ${stranger}. Is the tokenizer the model's?`);
    const last = () => rowOf(ids.at(-1)!);
    if (pooling === "last") return last().slice();
    const counts = new Map<number, number>();
    for (const id of ids) counts.set(id, (counts.get(id) ?? 0) + 1);
    const sum = new Float64Array(D);
    for (const [id, count] of counts) {
      const row = rowOf(id);
      for (let i = 0; i < D; i++) sum[i]! += count * row[i]!;
    }
    const feature = new Float32Array(featureWidth({ backbone: config, pooling }));
    for (let i = 0; i < D; i++) feature[i] = sum[i]! / ids.length;
    if (pooling === "both") feature.set(last(), D);
    return feature;
  };
}
