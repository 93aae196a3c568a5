/** Which masks an evaluation compares, by name. */

/**
 * Masks that are not the prompt's own, but of the same scores, to compare with · `foreign`: the mask of a prompt of another task · `generic`: one
 * mask for all, from the mean scores · `random`: the prompt's scores, in each layer in a random order.
 */
export const CONTROLS = ["foreign", "generic", "random"] as const;
/** One of {@link CONTROLS}. */
export type Control = (typeof CONTROLS)[number];

/** What masks are made from: the whole prompt, or the instruction without its input. */
export const SCOPES = ["input", "task"] as const;
/** One of {@link SCOPES}. */
export type Scope = (typeof SCOPES)[number];
