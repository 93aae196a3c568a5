import { expect, test } from "vitest";
import {
  cheaperForm,
  expectedAnswer,
  type FormRequest,
  type FormSpeeds,
  type FormState,
  formCost,
  guessedMs,
  learnLength,
  learnStage,
  totalMs,
} from "./formCost.ts";
import type { Form } from "./formOptions.ts";

/** SmolLM2-135M in Q8_0, half of its FFN kept: bytes of files, a vocabulary of 49,152. */
const gathered = { gathered: 42e6, loaded: 100e6, vocabSize: 49_152, perToken: 100e6 };
const resident = { ...gathered, gathered: 160e6, loaded: 160e6 };
const sizes = { gathered, resident };

const state = (isWritten: boolean, isLoaded: boolean, isOpen: boolean): FormState => ({ isWritten, isLoaded, isOpen });
const [nowhere, disk, loaded, open] = [
  state(false, false, false),
  state(true, false, false),
  state(true, true, false),
  state(true, true, true),
];

function choose(
  states: Record<Form, FormState>,
  promptTokens: number,
  answerTokens: number,
  speeds: FormSpeeds = { factors: {} },
) {
  const of = (form: Form) => formCost(form, sizes[form], states[form], { promptTokens, answerTokens }, speeds);
  return cheaperForm({ gathered: of("gathered"), resident: of("resident") });
}

// Prompt and answer in tokens; what there is of each form; the form that is chosen, and by what it wins.
test.each<[string, FormState, FormState, number, number, Form, string]>([
  ["nothing is there: a resident model is more to write", nowhere, nowhere, 16, 32, "gathered", "gather"],
  ["a new mask, a short answer", nowhere, loaded, 16, 32, "resident", "load"],
  ["a new mask, a long answer", nowhere, loaded, 16, 256, "resident", "load"],
  ["a new mask, a long prompt", nowhere, loaded, 1024, 32, "gathered", "prefill"],
  ["the mask lies on disk, a short prompt", disk, loaded, 16, 32, "resident", "load"],
  ["the mask lies on disk, a long prompt", disk, loaded, 512, 32, "gathered", "prefill"],
  ["the mask is loaded in both forms", open, open, 16, 32, "gathered", "prefill"],
  ["both lie on disk, a short prompt: the smaller file", disk, disk, 16, 32, "gathered", "load"],
  ["the mask is resident and nowhere else", nowhere, open, 128, 256, "resident", "load"],
])("%s", (_, ofGathered, ofResident, promptTokens, answerTokens, form, reason) => {
  expect(choose({ gathered: ofGathered, resident: ofResident }, promptTokens, answerTokens)).toEqual({ form, reason });
});

test("what is there costs nothing to make, and of equal forms the gathered one is taken", () => {
  const request = { promptTokens: 0, answerTokens: 0 };
  const none = { factors: {} };
  expect(totalMs(formCost("gathered", gathered, open, request, none))).toBe(0);
  const costs = formCost("resident", resident, loaded, request, none);
  expect(costs).toEqual({
    gather: 0,
    load: 0,
    open: guessedMs("resident", "open", resident, request),
    prefill: 0,
    decode: 0,
  });
  const same = { gather: 1, load: 1, open: 1, prefill: 1, decode: 1 };
  expect(cheaperForm({ gathered: same, resident: same }).form).toBe("gathered");
});

const request: FormRequest = { promptTokens: 100, answerTokens: 50 };
const measured = (speeds: FormSpeeds, form: Form, factor: number) =>
  learnStage(speeds, form, "prefill", factor * guessedMs(form, "prefill", sizes[form], request), sizes[form], request);
const prefill = (speeds: FormSpeeds, form: Form) =>
  formCost(form, sizes[form], open, request, speeds).prefill / guessedMs(form, "prefill", sizes[form], request);

test("the first measurement counts whole, of the other form too as long as that has none; later ones by a mean", () => {
  let speeds = measured({ factors: {} }, "gathered", 4);
  expect([prefill(speeds, "gathered"), prefill(speeds, "resident")]).toEqual([4, 4]);
  speeds = measured(speeds, "resident", 1);
  expect(prefill(speeds, "resident")).toBe(1);
  speeds = measured(speeds, "resident", 2);
  expect(prefill(speeds, "resident")).toBeCloseTo(2 ** 0.3);
});

test("a form that was measured in a bad moment, and is not chosen since, comes to be tried again", () => {
  const bad = measured(measured({ factors: {} }, "resident", 1), "gathered", 20);
  const states = { gathered: open, resident: open };
  expect(choose(states, 100, 0, bad).form).toBe("resident");
  let speeds = bad;
  let times = 0;
  while (choose(states, 100, 0, speeds).form === "resident" && times++ < 1000) speeds = measured(speeds, "resident", 1);
  expect(times).toBeLessThan(200);
});

test("what no clock can have meant is not believed", () => {
  const speeds = measured({ factors: {} }, "gathered", 2);
  for (const factor of [Number.NaN, 0, -1, 1e9]) expect(measured(speeds, "gathered", factor)).toEqual(speeds);
});

test("an answer is expected to be as long as those before, and never longer than it may be", () => {
  let speeds: FormSpeeds = { factors: {} };
  expect([expectedAnswer(speeds, 1000), expectedAnswer(speeds, 10)]).toEqual([128, 10]);
  speeds = learnLength(speeds, 20);
  expect(expectedAnswer(speeds, 1000)).toBe(20);
  expect(expectedAnswer(learnLength(speeds, 120), 1000)).toBeCloseTo(40);
  expect(expectedAnswer(learnLength(learnLength(speeds, 0), 0), 1000)).toBeGreaterThanOrEqual(1);
});
