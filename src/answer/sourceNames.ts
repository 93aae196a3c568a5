/** Names of mask sources, apart from the sources: help and checks need no more. */

/** What can make a mask at use; see `SourceChoice`. */
export const SOURCE_NAMES = ["predictor", "griffin", "glass", "text", "weights", "random"] as const;
/** One of {@link SOURCE_NAMES}. */
export type SourceName = (typeof SOURCE_NAMES)[number];
