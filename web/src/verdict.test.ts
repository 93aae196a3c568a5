/** The reason that is told is the one that made the difference. */
import { expect, test } from "vitest";
import { type Timed, verdict } from "./verdict.ts";

interface Case {
  elsewhere?: number;
  load?: number;
  prefill?: number;
  tokens?: number;
  perToken?: number;
}

function timed({ elsewhere = 0, load = 0, prefill = 50, tokens = 60, perToken = 20 }: Case): Timed {
  const ms = { queue: 0, predict: 0, gather: 0, load, prefill, decode: tokens * perToken };
  return { ms, tokens, total: elsewhere + load + prefill + ms.decode };
}

test.each<[string, Case, Case, RegExp]>([
  ["speed", {}, { perToken: 12 }, /^The sub-network was 480 ms faster: it wrote a token in 12 ms instead of 20 ms\.$/],
  ["a shorter answer", { tokens: 30 }, { tokens: 90 }, /^The dense model .* it wrote 30 tokens instead of 90\.$/],
  [
    "the prompt",
    { prefill: 900 },
    { prefill: 300 },
    /^The sub-network .* it read the prompt in 300 ms instead of 900 ms/,
  ],
  [
    "loading, which hides who answers faster",
    {},
    { load: 4000, perToken: 12 },
    /^The dense model .* it was ready in 0 ms instead of 4,000 ms\. In answering alone the sub-network was 480 ms faster/,
  ],
  [
    "loading alone",
    {},
    { load: 4000 },
    /^The dense model was 4,000 ms faster: it was ready in 0 ms instead of 4,000 ms\.$/,
  ],
  [
    "speed against loading",
    { perToken: 40 },
    { load: 400, perToken: 12 },
    /^The sub-network .* it wrote a token in 12 ms instead of 40 ms, although it was ready in 400 ms instead of 0 ms\.$/,
  ],
  [
    "what is not the server's",
    {},
    { elsewhere: 1500, perToken: 12 },
    /^The dense model was 1,020 ms faster: 0 ms instead of 1,500 ms passed between server and page, although it wrote/,
  ],
  ["nothing", {}, { perToken: 20.1 }, /^Both took about as long, 1,256 ms\.$/],
])("%s", (_, dense, subnetwork, words) => {
  expect(verdict(timed(dense), timed(subnetwork)).replaceAll("\u00a0", " ")).toMatch(words);
});
