/**
 * Sub-networks on disk: an entry of the cache per bundle and mask, with a model in three files that llama.cpp opens
 * as one: metadata with the sub-network's FFN width, the bundle's shared tensors (a link), the gathered FFN.
 */
import { createHash } from "node:crypto";
import { existsSync } from "node:fs";
import { join, resolve } from "node:path";
import { FileError } from "../errors.ts";
import { type GgufMetadata, writeGguf } from "../formats/gguf.ts";
import { feedForwardKey, splitMetadata } from "../formats/ggufModel.ts";
import { withoutMerges } from "../formats/ggufTokenizer.ts";
import { uint32 } from "../formats/ggufValues.ts";
import type { Mask } from "../mask/mask.ts";
import { type Bundle, partMetadata, partNames, splitCount } from "./bundle.ts";
import { type CacheOptions, hasEntry, linkOrCopy, openEntry } from "./cacheEntries.ts";
import type { FileSum } from "./fletcher.ts";
import { checkBundleMask, ffnTensors, writeFfn } from "./gather.ts";

/** A sub-network on disk. */
export interface SubnetworkFile {
  /** The first file of the model, for llama.cpp. */
  path: string;
  /** Whether it lay in the cache. */
  cached: boolean;
}

/**
 * The sub-network of a mask, from the cache or else built. A mask that keeps all channels gives the dense model.
 *
 * @throws {ShapeError | OptionError} if the mask does not fit the bundle
 * @throws {FileError} if the bundle is damaged
 */
export async function openSubnetwork(bundle: Bundle, mask: Mask, options: CacheOptions = {}): Promise<SubnetworkFile> {
  checkBundleMask(bundle, mask);
  const { folder, cached } = await openEntry(bundle, maskHash(mask), options, async (folder, sums) => {
    sums.set(partNames[2], await writeSubnetwork(bundle, mask, folder, options.signal));
  });
  return { path: join(folder, partNames[0]), cached };
}

/** Whether the sub-network of a mask lies in the cache. */
export function hasSubnetwork(bundle: Bundle, mask: Mask, options: CacheOptions = {}): boolean {
  return hasEntry(bundle, maskHash(mask), options);
}

/** Identity of a mask within its bundle, 32 hexadecimal digits: kept channels and λ. */
export function maskHash({ tFfn, dFfn, layers, lambda }: Mask): string {
  const hash = createHash("sha256").update(JSON.stringify([tFfn, dFfn, layers.length, lambda ? "soft" : "hard"]));
  for (const values of [...layers, ...(lambda ?? [])])
    hash.update(new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
  return hash.digest("hex").slice(0, 32);
}

/** @returns the checksum of the FFN's file */
async function writeSubnetwork(bundle: Bundle, mask: Mask, folder: string, signal?: AbortSignal): Promise<FileSum> {
  const { family } = bundle.config;
  const tensorCount = bundle.base.tensors.size + ffnTensors(bundle, mask.tFfn).length;
  const metadata: GgufMetadata = new Map([
    ...withoutMerges(bundle.metadata),
    [feedForwardKey(family), uint32(mask.tFfn)],
    ...splitMetadata(0, splitCount, tensorCount),
  ]);
  await writeGguf(join(folder, partNames[0]), metadata, [], []);
  if (!existsSync(bundle.base.path))
    throw new FileError(bundle.base.path, "wanted the bundle's file, got none. Was it removed while in use?");
  linkOrCopy(resolve(bundle.base.path), join(folder, partNames[1]));
  return await writeFfn(join(folder, partNames[2]), partMetadata(2, family, tensorCount), bundle, mask, signal);
}
