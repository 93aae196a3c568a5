/** The forms in which a mask is run: its channels gathered into a small dense model, or chosen within one resident model. */
export const FORMS = ["gathered", "resident"] as const;
/** `gathered`: as small dense models, one for each mask; `resident`: within one model that stays loaded for all. */
export type Form = (typeof FORMS)[number];
/** What may be asked for: a form, or for each request the one that is expected to answer it sooner. */
export const WANTED_FORMS = ["auto", ...FORMS] as const;
/** See {@link WANTED_FORMS}. */
export type WantedForm = (typeof WANTED_FORMS)[number];
export const DEFAULT_FORM: WantedForm = "auto";
