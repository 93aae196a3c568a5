import { mkdirSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { expect, test, vi } from "vitest";
import { blockBundle, blockMask } from "../../test/support/blocks.ts";
import { FakeEngines } from "../../test/support/fakeEngines.ts";
import { randomModel, temporaryFolder } from "../../test/support/models.ts";
import { readStoredModel } from "../bundle/estimate.ts";
import type { FormSpeeds } from "../bundle/formCost.ts";
import { FormMeter } from "../bundle/formMeter.ts";
import { openMaskModel } from "../bundle/maskModel.ts";
import { fullMask } from "../mask/mask.ts";
import type { WrittenForm } from "./formWorker.ts";
import { type NamedMask, nameMask } from "./masks.ts";
import { SubnetworkPool } from "./subnetworkPool.ts";

const model = randomModel({ family: "llama", ffnWidth: 128, vocabSize: 64 }, 5);
const masks = [0, 1, 2, 3, 4, 5].map((seed) => nameMask(blockMask(model.config, 16, 3, seed), "test"));
const never = new AbortController().signal;
const asked = { promptTokens: 16, maxTokens: 8 };

/** A pool that has learned these factors and learns nothing more, and what it does to a mask. It writes in this thread, unless told. */
async function open(factors: FormSpeeds["factors"], { budget = 2 ** 30, isApart = false } = {}) {
  const bundle = await blockBundle(model, 16, "F32");
  const cache = { root: temporaryFolder() };
  const { path } = new FormMeter(bundle, cache);
  mkdirSync(dirname(path));
  writeFileSync(path, JSON.stringify({ factors }));
  const engines = new FakeEngines([5]);
  const writeHere = async ({ mask, form }: WrittenForm) => void (await openMaskModel(bundle, mask, form, cache));
  const pool = new SubnetworkPool({ budget, slots: 1, cache }, isApart ? undefined : writeHere);
  const origin = {
    ...{ info: { id: "m", contextLength: 64 }, model: { bundle, engines } },
    ...{ stored: readStoredModel(bundle.path), meter: new FormMeter(bundle, cache) },
  };
  return {
    engines,
    pool,
    use: async (named: NamedMask) => {
      const lease = await pool.acquire(origin, named, asked, never);
      lease.release();
      return lease;
    },
    look: (named: NamedMask) => pool.look(origin, named, asked),
    expect: (named: NamedMask) => pool.expect(origin, named),
    [Symbol.asyncDispose]: async () => {
      await pool[Symbol.asyncDispose]();
      bundle[Symbol.dispose]();
    },
  };
}

const cheap = { "gathered gather": 1, "gathered load": 1, "resident gather": 1, "resident load": 1 };
/** A sub-network costs some 10 s to gather and load, the resident model next to nothing, … */
const resident = { ...cheap, "gathered gather": 1e4, "gathered load": 1e4 };
/** … or the other way round. */
const gathered = { ...cheap, "resident gather": 1e4, "resident load": 1e4 };

test("each request is run in the form that costs it less, all channels always gathered, and says what it compared", async () => {
  await using one = await open(resident);
  const { form, from } = await one.use(masks[0]!);
  expect([form, from]).toMatchObject([{ form: "resident", formReason: "load" }, "cold"]);
  expect(form.formMs!.resident).toBeLessThan(form.formMs!.gathered);
  const { form: again } = await one.use(masks[1]!);
  expect([again.form, one.look(masks[1]!).from]).toEqual(["resident", "loaded"]);
  const dense = nameMask(fullMask(2, 128), "dense");
  expect((await one.use(dense)).form).toEqual({ form: "gathered", formReason: "dense" });
  await using other = await open(gathered);
  expect((await other.use(masks[0]!)).form.form).toBe("gathered");
});

test("a mask that is asked again and again moves to the gathered form once that pays, while the resident one answers", async () => {
  // Reading a prompt costs the resident form some seconds: so much is lost with every request.
  await using one = await open({ ...resident, "resident prefill": 1e5, "gathered prefill": 1 });
  const { formMs } = one.look(masks[0]!).form;
  expect(formMs!.resident).toBeLessThan(formMs!.gathered);
  expect(formMs!.resident).toBeGreaterThan(formMs!.gathered / 10);
  expect((await one.use(masks[0]!)).form.form).toBe("resident");
  expect(one.look(masks[0]!)).toMatchObject({ form: { form: "resident" }, from: "loaded" });
  await vi.waitFor(
    async () => expect((await one.use(masks[0]!)).form).toMatchObject({ form: "gathered", formReason: "prefill" }),
    { timeout: 150_000 },
  );
  expect(one.look(masks[0]!).from).toBe("loaded");
  expect(one.look(masks[1]!).form.form).toBe("resident"); // of another mask nothing was lost
});

test("masks that keep coming move to the resident model once that pays", async () => {
  await using one = await open({ ...cheap, "gathered gather": 1e3, "gathered load": 1e3, "resident load": 3e3 });
  for (const mask of masks.slice(0, 3)) expect((await one.use(mask)).form.form).toBe("gathered");
  await vi.waitFor(() => expect(one.look(masks[5]!).form).toMatchObject({ form: "resident" }), { timeout: 150_000 });
  expect((await one.use(masks[5]!)).from).toBe("loaded");
});

test("a mask that was saved is gathered in the background, in a thread", async () => {
  await using one = await open(resident, { isApart: true });
  await one.use(masks[0]!);
  one.expect(masks[1]!);
  const { formMs } = one.look(masks[1]!).form;
  await vi.waitFor(() => expect(one.look(masks[1]!).form.formMs!.gathered).toBeLessThan(formMs!.gathered), {
    timeout: 150_000,
  });
});

test("a memory that the resident form does not fit into leaves the gathered one, with the reason", async () => {
  await using roomy = await open(gathered);
  await roomy.use(masks[0]!);
  await using tight = await open(resident, { budget: roomy.pool.state().memoryBytes });
  expect((await tight.use(masks[0]!)).form).toMatchObject({
    form: "gathered",
    formReason: "memory",
    formFlaw: expect.stringMatching(/^wanted .* of memory, got/),
  });
});
