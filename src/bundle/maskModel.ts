/** A mask as a model that an engine opens, in the form that is wanted or in the one that it has. */
import type { Mask } from "../mask/mask.ts";
import type { Bundle } from "./bundle.ts";
import type { CacheOptions } from "./cacheEntries.ts";
import { DEFAULT_FORM, type Form } from "./formOptions.ts";
import { hasResident, openResident, residentMaskFlaw } from "./residentModel.ts";
import { hasSubnetwork, openSubnetwork } from "./subnetworkCache.ts";

/** A mask's form. */
export interface MaskForm {
  form: Form;
  /** Why it is not the one that was wanted, as "wanted X, got Y". */
  formFlaw?: string | undefined;
}

/** A mask's model on disk. */
export interface MaskModelFile extends MaskForm {
  /** The first file of the model. */
  path: string;
  /** A resident model's: which blocks it keeps. */
  adapter?: string;
  /** Whether the model lay in the cache. */
  cached: boolean;
}

/** The form that a mask is run in: a mask that is not of whole blocks, or soft, is gathered whatever is wanted. */
export function formOf(bundle: Bundle, mask: Mask, wanted: Form = DEFAULT_FORM): MaskForm {
  const flaw = wanted === "resident" ? residentMaskFlaw(bundle, mask) : undefined;
  return flaw === undefined ? { form: wanted } : { form: "gathered", formFlaw: flaw };
}

/**
 * The model of a mask, from the cache or else written.
 *
 * @param wanted see {@link formOf}
 * @throws {OptionError} if the bundle has no resident form and that is wanted, or the mask does not fit
 * @throws {FileError} if the bundle is damaged
 */
export async function openMaskModel(
  bundle: Bundle,
  mask: Mask,
  wanted?: Form,
  cache?: CacheOptions,
): Promise<MaskModelFile> {
  const form = formOf(bundle, mask, wanted);
  const open = form.form === "resident" ? openResident : openSubnetwork;
  return { ...form, ...(await open(bundle, mask, cache)) };
}

/** Whether the model of a mask lies in the cache. */
export function hasMaskModel(bundle: Bundle, mask: Mask, wanted?: Form, cache?: CacheOptions): boolean {
  const { form } = formOf(bundle, mask, wanted);
  return form === "resident" ? hasResident(bundle, cache) : hasSubnetwork(bundle, mask, cache);
}
