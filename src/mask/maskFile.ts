/** Masks as JSON: `{"tFfn", "dFfn", "layers": [[kept channels, ascending], …], "lambda": [[…], …]}`; no `lambda`: hard mask. */
import { z } from "zod";
import { FileError } from "../errors.ts";
import { zodWords } from "../words.ts";
import { type Mask, maskFlaw } from "./mask.ts";

const schema = z.strictObject({
  tFfn: z.number(),
  dFfn: z.number(),
  layers: z.array(z.array(z.number())),
  lambda: z.array(z.array(z.number())).optional(),
});

/** A mask as plain JSON: what `ifprune mask --json` prints. */
export function maskToJson({ tFfn, dFfn, layers, lambda }: Mask): z.infer<typeof schema> {
  const plain = (rows: readonly ArrayLike<number>[]) => rows.map((row) => Array.from(row));
  return { tFfn, dFfn, layers: plain(layers), ...(lambda && { lambda: plain(lambda) }) };
}

/**
 * @param value parsed JSON
 * @param path of the file that it came from, for errors
 * @throws {FileError} on anything but a well-formed mask
 */
export function maskFromJson(value: unknown, path: string): Mask {
  const parsed = schema.safeParse(value);
  if (!parsed.success)
    throw new FileError(
      path,
      `wanted a mask, got: ${zodWords(parsed.error)}. Is it a mask that \`ifprune mask --json\` printed?`,
    );
  const { tFfn, dFfn, layers, lambda } = parsed.data;
  const mask = {
    tFfn,
    dFfn,
    layers: layers.map((kept) => Int32Array.from(kept)),
    ...(lambda && { lambda: lambda.map((weights) => Float32Array.from(weights)) }),
  };
  const flaw = maskFlaw(parsed.data) ?? maskFlaw(mask); // numbers may be beyond what their arrays hold
  if (flaw) throw new FileError(path, `${flaw}. Is it a mask that \`ifprune mask --json\` printed?`);
  return mask;
}
