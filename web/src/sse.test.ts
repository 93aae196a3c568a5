/** Events do not depend on where the network cuts them. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { serverSentData } from "./sse.ts";

const body = (pieces: Uint8Array[]): ReadableStream<Uint8Array> =>
  new ReadableStream({
    start(controller) {
      for (const piece of pieces) controller.enqueue(piece);
      controller.close();
    },
  });

test("any cuts, characters of several bytes, both kinds of line ends", async () => {
  const texts = fc.array(fc.string({ unit: "grapheme" }).map((text) => JSON.stringify({ text })));
  await fc.assert(
    fc.asyncProperty(texts, fc.constantFrom("\n", "\r\n"), fc.array(fc.nat(400)), async (events, end, cuts) => {
      const bytes = Buffer.from(events.map((event) => `: comment${end}data: ${event}${end}${end}`).join(""));
      const places = [0, ...cuts.filter((cut) => cut < bytes.length).sort((a, b) => a - b), bytes.length];
      const pieces = places.slice(1).map((place, i) => new Uint8Array(bytes.subarray(places[i], place)));
      const read: string[] = [];
      for await (const data of serverSentData(body(pieces))) read.push(data);
      expect(read).toEqual(events);
    }),
  );
});

test("a reader that leaves early closes the connection", async () => {
  let isCancelled = false;
  const endless = new ReadableStream<Uint8Array>({
    pull: (controller) => controller.enqueue(Buffer.from("data: x\n\n")),
    cancel: () => {
      isCancelled = true;
    },
  });
  for await (const _ of serverSentData(endless)) break;
  expect(isCancelled).toBe(true);
});
