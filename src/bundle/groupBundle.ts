/** A bundle whose channels were put into blocks: the same model, as the sum over channels does not depend on their order. */
import { constants, copyFileSync } from "node:fs";
import { join } from "node:path";
import { OptionError } from "../errors.ts";
import { makeFolder } from "../files.ts";
import { writeGguf } from "../formats/gguf.ts";
import { describeFiles, writeManifest } from "../manifest.ts";
import type { ChannelOrder } from "../mask/blocks.ts";
import type { Bundle } from "./bundle.ts";
import { channelLayout, channelMetadata, channelsName, channelTensors, layerData, storedBlock } from "./channels.ts";

/** @param operation for the message @throws {OptionError} if a predictor chooses among the channels as they are */
export function checkGroupable({ predictor, block }: Bundle, operation: string): void {
  if (!predictor) return;
  throw new OptionError(
    `${operation}: wanted a model without a predictor to put into blocks, got one whose predictor ${block === 1 ? "chooses single channels" : `was trained in blocks of ${block}`}. Leave --block out.`,
  );
}

/**
 * Writes a bundle with its channels in another order. Memory: a layer's channels twice.
 *
 * @param order per layer, every channel once: `order[layer][place]` is the channel that comes to `place`
 * @param block channels that masks without training keep or drop together from now on
 * @param outFolder must not exist; it appears whole or not at all
 * @throws {OptionError} if the folder exists, or as {@link checkGroupable}
 * @throws {FileError} if the bundle is damaged, or the disk is full
 */
export async function groupBundle(
  bundle: Bundle,
  order: ChannelOrder,
  block: number,
  outFolder: string,
  signal?: AbortSignal,
): Promise<void> {
  checkGroupable(bundle, "blocks");
  const { quality: _, files, ...manifest } = bundle.manifest; // what was measured is of another choice of channels
  await makeFolder(outFolder, "blocks", async (partial) => {
    for (const name of Object.keys(files)) {
      if (name !== "ffn.gguf") copyFileSync(join(bundle.path, name), join(partial, name), constants.COPYFILE_FICLONE);
    }
    const { config, layouts, width: D, ffnWidth: F } = bundle;
    const stored = storedBlock(block);
    const metadata = channelMetadata(config.family, layouts, stored);
    const tensors = channelTensors(layouts, D, F, stored);
    await writeGguf(join(partial, "ffn.gguf"), metadata, tensors, ordered(bundle, order, stored, signal));
    writeManifest(partial, { ...manifest, block, files: await describeFiles(partial, Object.keys(files), signal) });
  });
}

function* ordered(
  bundle: Bundle,
  order: ChannelOrder,
  block: number,
  signal: AbortSignal | undefined,
): Generator<Uint8Array> {
  const { ffn, layouts, width: D } = bundle;
  for (const [layer, layout] of layouts.entries()) {
    signal?.throwIfAborted();
    if (layout.block > 1) throw new Error("internal: channels that are in blocks already");
    const tensor = ffn.tensor(channelsName(layer));
    const records = new Uint8Array(tensor.bytes);
    ffn.readInto(records, tensor, 0);
    const scales = layout.down === "Q8_0" ? bundle.downScales(layer) : undefined;
    yield* layerData(records, channelLayout(layout, D, block), D, scales, order[layer]);
  }
}
