/** The masks of one served model: made for instructions, one at a time, and remembered; saved for tasks; and the dense one. */
import { createHash } from "node:crypto";
import { chooseMask, type MaskSource } from "../answer/maskSource.ts";
import type { ReadPrompt } from "../answer/prompts.ts";
import type { Bundle } from "../bundle/bundle.ts";
import { InputError } from "../errors.ts";
import { fullMask } from "../mask/mask.ts";
import { MaskMemo, type NamedMask, nameMask, type TaskStore } from "./masks.ts";

const denseId = "dense";

export class ServedMasks {
  readonly tasks: TaskStore;
  readonly #bundle: Bundle;
  readonly #source: MaskSource;
  readonly #memo = new MaskMemo();
  #making: Promise<unknown> = Promise.resolve();

  /** @param source stays its owner's */
  constructor(bundle: Bundle, source: MaskSource, tasks: TaskStore) {
    this.#bundle = bundle;
    this.#source = source;
    this.tasks = tasks;
  }

  /** The mask of an instruction, remembered or made. */
  async of(instruction: ReadPrompt["instruction"], tFfn: number, signal: AbortSignal): Promise<NamedMask> {
    const { ids, text, user } = instruction;
    const bytes = new Uint8Array(ids.buffer, ids.byteOffset, ids.byteLength);
    const key = createHash("sha256")
      .update(JSON.stringify([text, tFfn, user]))
      .update(bytes)
      .digest("base64");
    const make = async () => {
      signal.throwIfAborted();
      const since = this.#memo.find(key);
      if (since) return since;
      const how = { tFfn, ffnWidth: this.#bundle.ffnWidth, signal };
      const { mask, source } = await chooseMask(this.#source, instruction, how);
      const named = nameMask(mask, source);
      this.#memo.add(key, named);
      return named;
    };
    const known = this.#memo.find(key);
    if (known) return known;
    const made = this.#making.then(make, make);
    this.#making = made;
    return orAbort(made, signal);
  }

  dense(): NamedMask {
    const { numLayers, ffnWidth } = this.#bundle;
    return { id: denseId, mask: fullMask(numLayers, ffnWidth), source: denseId };
  }

  /** @throws {InputError} if none has the id, or none any more */
  byId(id: string): NamedMask {
    const found = id === denseId ? this.dense() : (this.#memo.get(id) ?? this.tasks.byMask(id));
    if (!found) throw new InputError(`unknown mask: "${id}". Masks are forgotten after a while: make it again.`);
    return found;
  }
}

/** A result, unless the signal aborts before: whoever has gone does not wait for another's work. */
async function orAbort<T>(result: Promise<T>, signal: AbortSignal): Promise<T> {
  let leave = () => {};
  const aborted = new Promise<never>((_, reject) => {
    leave = () => reject(signal.reason);
  });
  signal.addEventListener("abort", leave);
  try {
    return await Promise.race([result, aborted]);
  } finally {
    signal.removeEventListener("abort", leave);
  }
}
