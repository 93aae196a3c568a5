import { expect, test } from "vitest";
import { channelWeights, forward } from "../../test/reference/decoder.ts";
import { randomModel } from "../../test/support/models.ts";
import { randomMask } from "../mask/baselines.ts";
import { keepChannels } from "./cut.ts";

test.each(["llama", "qwen3"] as const)("a cut model computes what the masked one does, %s", (family) => {
  const model = randomModel({ family }, 3);
  const { numLayers, ffnWidth: dFfn } = model.config;
  const mask = randomMask({ numLayers, dFfn, tFfn: dFfn / 2, block: 1 }, 7, "cut");
  const ids = [1, 5, 9, 3, 80];
  const cut = keepChannels(model, mask);
  expect(cut.config.ffnWidth).toBe(dFfn / 2);
  const [got, wanted] = [forward(cut, ids).logits, forward(model, ids, channelWeights(mask)).logits];
  for (const [t, logits] of got.entries())
    for (const [id, logit] of logits.entries()) expect(logit).toBeCloseTo(wanted[t]![id]!, 9);
});
