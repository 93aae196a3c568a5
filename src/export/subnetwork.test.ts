import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { goldenModel, randomMask, temporaryFolder, writeCheckpoint } from "../../test/support/models.ts";
import { Bundle } from "../bundle/bundle.ts";
import { packBundle } from "../bundle/packBundle.ts";
import { ShapeError } from "../errors.ts";
import { fullMask } from "../mask/mask.ts";
import { parameterShapes, type Weight } from "../model/config.ts";
import { Subnetwork } from "./subnetwork.ts";

// D 32, F 48, L 2
const model = goldenModel("llama");
const { numLayers: L, ffnWidth: F } = model.config;

async function bundle(): Promise<Bundle> {
  const folder = join(temporaryFolder(), "bundle");
  await packBundle(await writeCheckpoint(temporaryFolder(), model), folder, { type: "F32" });
  return new Bundle(folder);
}

const at = ({ shape, data }: Weight, row: number, column: number) => data[row * shape[1]! + column]!;

test("every value is the whole model's at the kept channel, times λ in up; any rows are those of the whole", async () => {
  using source = await bundle();
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: F }),
      fc.constantFrom("soft" as const, "hard" as const),
      fc.nat(),
      fc.nat(),
      (K, kind, seed, pick) => {
        const mask = randomMask(L, F, K, kind, seed);
        const subnetwork = new Subnetwork(source, mask);
        for (const [name, shape] of parameterShapes(subnetwork.config)) {
          const weight = subnetwork.read(name);
          expect(weight.shape).toEqual(shape);
          if (shape.length === 1) continue;
          const [, layer, matrix] = /layers\.(\d+)\.mlp\.(\w+)_proj/.exec(name) ?? [];
          const kept = mask.layers[Number(layer)];
          const [row, column] = [pick % shape[0]!, pick % shape[1]!];
          const factor = (matrix === "up" && mask.lambda?.[Number(layer)]?.[row]) || 1;
          const whole = model.weights.get(name)!;
          const wanted = at(
            whole,
            matrix === "gate" || matrix === "up" ? kept![row]! : row,
            matrix === "down" ? kept![column]! : column,
          );
          expect(at(weight, row, column)).toBe(Math.fround(wanted * factor));
          const width = shape[1]!;
          const some = subnetwork.read(name, { from: row, to: shape[0]! });
          expect(some.data).toEqual(weight.data.slice(row * width));
        }
      },
    ),
    { numRuns: 30, seed: 1 },
  );
});

test("a mask for another model is refused", async () => {
  using source = await bundle();
  expect(() => new Subnetwork(source, fullMask(L, F + 1))).toThrow(ShapeError);
});
