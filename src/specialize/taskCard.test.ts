import { expect, test } from "vitest";
import { jobResult } from "../../test/web/fakeJobs.ts";
import { taskCard } from "./taskCard.ts";

test("a card says when training made it no better, and so what the whole model is", () => {
  const trained = taskCard(jobResult);
  expect(trained).toMatch(/60 of 60 steps on 60,000 tokens, the best at step 60, brought it to a KL of 0\.440/);
  expect(trained).not.toContain("The whole model here is");
  expect(trained).toContain("| prompts.txt (licence: unknown): 304 given; 270 to learn from, 30 held out |");
  expect(trained).toContain("3 without an end or text, 1 that repeat themselves, 2 longer than most");
  const before = { step: 0, loss: 2.5, accuracy: 0.3 };
  const card = taskCard({
    ...jobResult,
    ...{ after: { step: 0, ...jobResult.before }, tuned: { ...before, before } },
  });
  expect(card).toContain("fitted by least squares to say what the whole model says");
  expect(card).toMatch(/It is as it was cut, at a KL of 1\.420.* brought it no nearer .*\(best at step 0\)/);
  expect(card).toMatch(/as it came: .* no better on held-out ones \(best at step 0, 2\.500 nats a token\)/);
});

test("a card says how many prompts were given, and how many drafted by whom", () => {
  const data = { ...jobResult.data, name: "a.txt and prompts that SmolLM2 drafted" };
  const drafted = taskCard({ ...jobResult, data: { ...data, prompts: { given: 20, drafted: 250 } } });
  expect(drafted).toContain("20 given, 250 drafted by SmolLM2-135M-Instruct in their manner; 270 to learn from");
  const alone = taskCard({ ...jobResult, data: { ...data, prompts: { given: 0, drafted: 250 } } });
  expect(alone).toContain("): 250 drafted by SmolLM2-135M-Instruct; 270 to learn from");
});
