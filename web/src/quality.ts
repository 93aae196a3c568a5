/** What is known of how well a part of a model answers: as it was measured on import, trained, or neither. */
import type { ServedModel } from "./api.ts";
import { percent } from "./format.ts";
import type { Settings } from "./settings.ts";

/** Channels that a share is taken for: shares are kept in whole blocks. */
const tolerance = 0.02;

/** Measured for a share of the kind of masks that it is served under. */
export function measured(model: ServedModel, share: number) {
  return model.quality?.rows.find(
    (row) => row.source === model.source && Math.abs(row.tFfn / model.dFfn - share) < tolerance,
  );
}

/** In few words, and in a sentence. */
export function qualityOf(
  model: ServedModel,
  { mask, keep }: Pick<Settings, "mask" | "keep">,
): { text: string; detail: string } {
  const ownShare = model.tFfn / model.dFfn;
  const share = keep === "auto" ? (model.autoTFfn ?? model.dFfn) / model.dFfn : (keep ?? ownShare);
  if (mask.startsWith("task:"))
    return { text: "saved mask", detail: "The mask that was saved for this task answers every prompt." };
  if (mask === "dense" || share === 1) {
    const detail =
      keep === "auto" && mask === "auto" && ownShare < 1
        ? "No share that was measured costs little enough, so all channels answer."
        : "All channels answer: nothing is lost.";
    return { text: "whole model", detail };
  }
  const row = measured(model, share);
  if (row) {
    const loss = `${row.loss.toFixed(2)} nats lost`;
    const agree = `${percent(row.agreement)} agree`;
    return {
      text: keep === "auto" ? `${percent(share)}: ${loss}` : `${loss}, ${agree}`,
      detail: `Measured on import, under masks that keep ${percent(share)}: a token of the whole model's own answers loses ${row.loss.toFixed(2)} nats, and ${percent(row.agreement)} of them stay the likeliest.`,
    };
  }
  if (model.isTrained && Math.abs(share - ownShare) < tolerance)
    return { text: "trained masks", detail: `The model was trained under masks that keep ${percent(ownShare)}.` };
  return {
    text: "not measured",
    detail: `Nobody measured what masks that keep ${percent(share)} cost this model. Below half, answers are often nonsense.`,
  };
}
