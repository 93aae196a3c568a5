/** The forms in which a mask is run: its channels gathered into a small dense model, or chosen within one resident model. */
export const FORMS = ["gathered", "resident"] as const;
/** See {@link FORMS}. */
export type Form = (typeof FORMS)[number];
export const DEFAULT_FORM: Form = "gathered";
