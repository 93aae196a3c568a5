/** A mask as a model that an engine opens: in which form, and the files of it. */
import type { Mask } from "../mask/mask.ts";
import type { Bundle } from "./bundle.ts";
import type { CacheOptions } from "./cacheEntries.ts";
import { type CostStage, cheaperForm, type FormState, totalMs } from "./formCost.ts";
import type { FormMeter } from "./formMeter.ts";
import type { Form, WantedForm } from "./formOptions.ts";
import { byteSize } from "./memory.ts";
import { hasResident, openResident, residentFlaw, residentMaskFlaw } from "./residentModel.ts";
import { hasSubnetwork, openSubnetwork } from "./subnetworkCache.ts";

/**
 * Why a mask is run in its form: that was asked for; all channels are kept, which is the dense model; there is no other (see the flaw); the other has no room
 * in memory; or it is expected to answer sooner, most of all by this stage.
 */
export type FormReason = "told" | "dense" | "only" | "memory" | CostStage;

/** A mask's form. */
export interface MaskForm {
  form: Form;
  formReason: FormReason;
  /** Why the resident form is out of the question, as "wanted X, got Y". */
  formFlaw?: string | undefined;
  /** Milliseconds until the last token that were expected of each form, where they were compared. */
  formMs?: Record<Form, number> | undefined;
}

/** A mask's model on disk. */
export interface MaskModelFile {
  /** The first file of the model. */
  path: string;
  /** A resident model's, see `residentModel.ts`. */
  adapter?: Uint8Array;
  /** Whether the model lay in the cache. */
  cached: boolean;
}

/** What {@link chooseForm} compares by. */
export interface FormLook {
  meter: FormMeter;
  promptTokens: number;
  /** The answer's most. */
  maxTokens: number;
  states: Record<Form, FormState>;
  /** Bytes that the resident form takes, and most that there may be. */
  memory: { needed: number; limit: number };
}

/** Why a bundle's masks are all gathered unless the resident form is asked for, as "wanted X, got Y", or nothing. */
export function autoFlaw(bundle: Bundle): string | undefined {
  return bundle.block === 1 ? "wanted masks of blocks, got single channels" : residentFlaw(bundle);
}

/** The only form that a mask may be run in, or nothing where there are two. @throws {OptionError} if the resident form is wanted of a bundle without one */
export function onlyForm(bundle: Bundle, mask: Mask, wanted: WantedForm): MaskForm | undefined {
  if (wanted === "gathered") return { form: "gathered", formReason: "told" };
  if (wanted === "auto" && mask.tFfn === bundle.ffnWidth && !mask.lambda)
    return { form: "gathered", formReason: "dense" };
  const flaw = (wanted === "auto" ? autoFlaw(bundle) : undefined) ?? residentMaskFlaw(bundle, mask);
  if (flaw !== undefined) return { form: "gathered", formReason: "only", formFlaw: flaw };
  return wanted === "resident" ? { form: "resident", formReason: "told" } : undefined;
}

/**
 * The form that a mask is run in for a request.
 *
 * @param look called where there are two
 * @throws {OptionError} as {@link onlyForm}
 */
export function chooseForm(bundle: Bundle, mask: Mask, wanted: WantedForm, look: () => FormLook): MaskForm {
  const only = onlyForm(bundle, mask, wanted);
  if (only) return only;
  const { meter, states, memory, ...request } = look();
  if (memory.needed > memory.limit) {
    const formFlaw = `wanted ${byteSize(memory.needed)} of memory, got ${byteSize(memory.limit)}`;
    return { form: "gathered", formReason: "memory", formFlaw };
  }
  const costs = meter.costs(mask.tFfn, states, request);
  const { form, reason } = cheaperForm(costs);
  return { form, formReason: reason, formMs: { gathered: totalMs(costs.gathered), resident: totalMs(costs.resident) } };
}

/** What lies on disk of a mask's forms, where nothing is loaded. */
export function formsOnDisk(bundle: Bundle, mask: Mask, cache?: CacheOptions): Record<Form, FormState> {
  const state = (form: Form) => ({
    isWritten: hasMaskModel(bundle, mask, form, cache),
    isLoaded: false,
    isOpen: false,
  });
  return { gathered: state("gathered"), resident: state("resident") };
}

/**
 * The model of a mask, from the cache or else written.
 *
 * @throws {OptionError} if the bundle or the mask has no such form
 * @throws {FileError} if the bundle is damaged
 */
export function openMaskModel(bundle: Bundle, mask: Mask, form: Form, cache?: CacheOptions): Promise<MaskModelFile> {
  return form === "resident" ? openResident(bundle, mask, cache) : openSubnetwork(bundle, mask, cache);
}

/** Whether the model of a mask lies in the cache. */
export function hasMaskModel(bundle: Bundle, mask: Mask, form: Form, cache?: CacheOptions): boolean {
  return form === "resident" ? hasResident(bundle, cache) : hasSubnetwork(bundle, mask, cache);
}
