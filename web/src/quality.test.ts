/** The badge promises no more than what was measured or trained. */
import { expect, test } from "vitest";
import type { ServedModel } from "./api.ts";
import { qualityOf } from "./quality.ts";

const row = { source: "griffin", tFfn: 384, loss: 0.21, agreement: 0.87 };
const imported: ServedModel = {
  ...{ hash: "0".repeat(64), family: "llama" },
  ...{
    id: "m",
    created: 0,
    contextLength: 2048,
    numLayers: 4,
    dFfn: 512,
    tFfn: 512,
    isTrained: false,
    source: "griffin",
    trainedOn: [],
  },
  ...{
    hasChatTemplate: true,
    hasTools: false,
    numParameters: 0,
    fileBytes: 0,
    memoryBytes: { dense: 0, subnetwork: 0 },
    quality: { prompts: 6, tokens: 100, rows: [row] },
    autoTFfn: 384,
  },
};
const trained: ServedModel = {
  ...imported,
  tFfn: 64,
  isTrained: true,
  source: "predictor",
  quality: undefined,
  autoTFfn: undefined,
};
const textOf = (model: ServedModel, keep?: number | "auto", mask = "auto") => qualityOf(model, { mask, keep }).text;

test("measured shares are those of the model's own kind of masks, near the one that is asked for", () => {
  expect(textOf(imported, 0.75)).toBe("0.21 nats lost, 87\u00a0% agree");
  expect(textOf({ ...imported, source: "weights" }, 0.75)).toBe("not measured");
  expect(textOf(imported, 0.76)).toBe("0.21 nats lost, 87\u00a0% agree"); // in whole blocks it is the same
  expect(textOf(imported, 0.8)).toBe("not measured");
  expect(textOf({ ...trained, quality: imported.quality }, 0.75)).toBe("not measured"); // griffin's, which it does not use
});

test("auto tells the share that it takes, and when it takes all", () => {
  expect(textOf(imported, "auto")).toBe("75\u00a0%: 0.21 nats lost");
  expect(textOf({ ...imported, autoTFfn: 512 }, "auto")).toBe("whole model");
});

test("trained masks are those of the share that was trained; a saved mask and the whole model are what they are", () => {
  expect(textOf(trained)).toBe("trained masks");
  expect(textOf(trained, 0.5)).toBe("not measured");
  expect(textOf(trained, 1)).toBe("whole model");
  expect(textOf(trained, 0.5, "dense")).toBe("whole model");
  expect(textOf(trained, 0.5, "task:animals")).toBe("saved mask");
  expect(textOf(imported)).toBe("whole model");
});
