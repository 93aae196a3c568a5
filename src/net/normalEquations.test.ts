import { expect, test } from "vitest";
import { forward, matVec } from "../../test/reference/decoder.ts";
import { difference, integers, quiet } from "../../test/support/graphs.ts";
import { randomModel } from "../../test/support/models.ts";
import { randomMask } from "../mask/baselines.ts";
import { toDenseMask } from "../mask/mask.ts";
import { MODEL_FAMILIES } from "../model/families.ts";
import { inMemory } from "../model/source.ts";
import { normalEquations } from "./normalEquations.ts";

/** Of sums of products in float32 that cancel. */
const TOLERANCE = 5e-5;

test.each(MODEL_FAMILIES)(
  "%s: sums equal their definition on float64 activations, padding left out",
  async (family) => {
    const model = randomModel({ family }, 3);
    const { numLayers: L, ffnWidth: F, width: D, vocabSize: V } = model.config;
    const masks = ["a", "b"].map((label) => toDenseMask(randomMask({ numLayers: L, dFfn: F, tFfn: F >> 1 }, 1, label)));
    // rows of one batch, of two masks, and a batch of another length
    const sequences = [13, 7, 20, 16].map((length, i) => ({ ids: integers(`ids ${i}`, length, V), mask: i % 2 }));
    const layers: number[] = [];
    const visit: Parameters<typeof normalEquations>[3] = (layer, { gram, cross, missing, output }, down) => {
      layers.push(layer);
      const wanted = { gram: new Float64Array(F * F), cross: new Float64Array(D * F), missing: 0, output: 0 };
      for (const { ids, mask } of sequences) {
        const m = masks[mask]!.subarray(layer * F, (layer + 1) * F);
        for (const u of forward(model, ids).activations[layer]!) {
          const kept = u.map((value, channel) => value * m[channel]!);
          const r = matVec(
            down,
            u.map((value, channel) => value * (1 - m[channel]!)),
          );
          for (let i = 0; i < F; i++) for (let j = 0; j < F; j++) wanted.gram[i * F + j]! += kept[i]! * kept[j]!;
          for (let d = 0; d < D; d++) for (let j = 0; j < F; j++) wanted.cross[d * F + j]! += r[d]! * kept[j]!;
          wanted.missing += r.reduce((sum, value) => sum + value * value, 0);
          wanted.output += matVec(down, u).reduce((sum, value) => sum + value * value, 0);
        }
      }
      expect(difference(gram, wanted.gram)).toBeLessThan(TOLERANCE);
      expect(difference(cross, wanted.cross)).toBeLessThan(TOLERANCE);
      expect(difference([missing, output], [wanted.missing, wanted.output])).toBeLessThan(TOLERANCE);
      expect(missing).toBeGreaterThan(0.01 * output); // there is something to compare
    };
    await normalEquations(inMemory("model", model), sequences, masks, visit, quiet);
    expect(layers).toEqual(Array.from({ length: L }, (_, layer) => layer));
  },
);
