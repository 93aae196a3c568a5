/**
 * What the forms of a bundle take on this machine: expected from sizes and from what requests took so far, which is kept in the cache, beside the bundle's
 * entries, a file for each kind of machine.
 *
 * Shapes: K kept FFN channels (t_ffn)
 */
import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { arch, cpus, platform } from "node:os";
import { join } from "node:path";
import { z } from "zod";
import { IfpruneError } from "../errors.ts";
import { makeFile } from "../files.ts";
import { tensorBytes } from "../formats/gguf.ts";
import { readJson } from "../json.ts";
import type { Bundle } from "./bundle.ts";
import { type CacheOptions, cacheFolder } from "./cacheEntries.ts";
import { makeCacheFolder } from "./cacheFolder.ts";
import {
  type CostStage,
  expectedAnswer,
  type FormCost,
  type FormRequest,
  type FormSizes,
  type FormSpeeds,
  type FormState,
  formCost,
  learnLength,
  learnStage,
} from "./formCost.ts";
import type { Form } from "./formOptions.ts";
import { ffnTensors } from "./gather.ts";
import { residentBytes } from "./residentModel.ts";

/** The first token comes out of prefill: of shorter answers decoding is not what takes the time. */
const fewTokens = 8;

const positive = z.number().gt(0).lt(1e6);
const speedsSchema = z.strictObject({ factors: z.record(z.string(), positive), answerTokens: positive.optional() });

export class FormMeter {
  readonly #bundle: Bundle;
  /** Of the file that holds what was learned. */
  readonly path: string;
  readonly #sizes = new Map<string, FormSizes>();
  #speeds: FormSpeeds;
  /** As in the file. */
  #kept: FormSpeeds;

  constructor(bundle: Bundle, cache?: CacheOptions) {
    this.#bundle = bundle;
    this.path = join(cacheFolder(bundle, cache), `speeds-${machineName()}.json`);
    this.#speeds = readSpeeds(this.path);
    this.#kept = this.#speeds;
  }

  /** @param K of the mask */
  costs(
    K: number,
    states: Record<Form, FormState>,
    { promptTokens, maxTokens }: { promptTokens: number; maxTokens: number },
  ): Record<Form, FormCost> {
    const request = { promptTokens, answerTokens: expectedAnswer(this.#speeds, maxTokens) };
    const of = (form: Form) => formCost(form, this.#sizesOf(form, K), states[form], request, this.#speeds);
    return { gathered: of("gathered"), resident: of("resident") };
  }

  /**
   * Learns from an answer: how long it was, and what its stages took.
   *
   * @param ms of those that took place, where nothing else was computed meanwhile
   */
  learn(form: Form, K: number, ms: Partial<FormCost>, request: FormRequest): void {
    const sizes = this.#sizesOf(form, K);
    this.#speeds = learnLength(this.#speeds, request.answerTokens);
    for (const [stage, took] of Object.entries(ms) as [CostStage, number][])
      if (stage !== "decode" || request.answerTokens >= fewTokens)
        this.#speeds = learnStage(this.#speeds, form, stage, took, sizes, request);
    this.#keep();
  }

  #sizesOf(form: Form, K: number): FormSizes {
    const key = `${form} ${K}`;
    const known = this.#sizes.get(key) ?? formSizes(this.#bundle, form, K);
    this.#sizes.set(key, known);
    return known;
  }

  /** Writes what has changed by more than a tenth. A cache that cannot be written keeps nothing, which costs an estimate. */
  #keep(): void {
    const before = valuesOf(this.#kept);
    const isNews = [...valuesOf(this.#speeds)].some(
      ([key, value]) => !(Math.abs(Math.log(value / before.get(key)!)) < 0.1),
    );
    if (!isNews) return;
    this.#kept = this.#speeds;
    try {
      makeCacheFolder(join(this.path, ".."));
      makeFile(this.path, (partial) => writeFileSync(partial, JSON.stringify(this.#speeds)));
    } catch (error) {
      if (!(error instanceof IfpruneError)) throw error;
    }
  }
}

function valuesOf({ factors, answerTokens }: FormSpeeds): Map<string, number> {
  return new Map(Object.entries({ ...factors, ...(answerTokens && { answerTokens }) }));
}

function readSpeeds(path: string): FormSpeeds {
  try {
    return speedsSchema.parse(readJson(path));
  } catch {
    return { factors: {} }; // there is none, or it is damaged: it is learned anew
  }
}

/** Machines of one kind take as long: a cache may be on a disk that several share. */
function machineName(): string {
  const kind = [platform(), arch(), ...cpus().map(({ model }) => model)];
  return createHash("sha256").update(JSON.stringify(kind)).digest("hex").slice(0, 8);
}

function formSizes(bundle: Bundle, form: Form, K: number): FormSizes {
  const { base, config } = bundle;
  const sum = (bytes: number[]) => bytes.reduce((total, one) => total + one, 0);
  const shared = [...base.tensors.values()];
  const ffn = sum(ffnTensors(bundle, K).map((tensor) => tensorBytes(tensor)!));
  const isRead = ({ name }: { name: string }) => config.tieEmbeddings || name !== "token_embd.weight";
  const perToken = ffn + sum(shared.filter(isRead).map(({ bytes }) => bytes));
  const whole = form === "resident" ? residentBytes(bundle) : ffn + sum(shared.map(({ bytes }) => bytes));
  return { gathered: form === "resident" ? whole : ffn, loaded: whole, vocabSize: config.vocabSize, perToken };
}
