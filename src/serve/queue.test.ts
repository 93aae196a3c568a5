import fc from "fast-check";
import { expect, test } from "vitest";
import { BusyError } from "../errors.ts";
import { Queue } from "./queue.ts";

const settled = () => new Promise<void>((resolve) => void setImmediate(resolve));

test("in any order of coming, leaving and giving up: limits are kept, turns go by order, and all come to an end", async () => {
  const command = fc.record({ do: fc.constantFrom("enter", "enter", "leave", "abort"), which: fc.nat() });
  await fc.assert(
    fc.asyncProperty(
      fc.array(command, { maxLength: 50 }),
      fc.integer({ min: 1, max: 3 }),
      fc.nat(3),
      async (commands, maxRunning, maxQueued) => {
        const queue = new Queue({ maxRunning, maxQueued });
        const requests: { turn?: Disposable; error?: unknown; isDone: boolean; controller: AbortController }[] = [];
        const open = () => requests.filter(({ error, isDone }) => error === undefined && !isDone);
        const leave = (request: (typeof requests)[number]) => {
          request.isDone = true;
          request.turn![Symbol.dispose]();
        };
        for (const one of commands) {
          const [running, waiting] = [open().filter(({ turn }) => turn), open().filter(({ turn }) => !turn)];
          if (one.do === "enter") {
            const request: (typeof requests)[number] = { isDone: false, controller: new AbortController() };
            requests.push(request);
            queue.enter(request.controller.signal).then(
              (turn) => {
                request.turn = turn;
              },
              (error) => {
                request.error = error;
              },
            );
            await settled();
            const isFull = running.length >= maxRunning && waiting.length >= maxQueued;
            expect(request.error instanceof BusyError).toBe(isFull);
          } else if (one.do === "leave" && running.length > 0) leave(running[one.which % running.length]!);
          else if (one.do === "abort") waiting[one.which % waiting.length]?.controller.abort(new Error("gone"));
          await settled();
          const turns = open().map(({ turn }) => turn !== undefined);
          expect(turns.filter(Boolean).length).toBe(Math.min(maxRunning, turns.length));
          expect(turns).toEqual(turns.toSorted((a, b) => Number(b) - Number(a)));
          expect([queue.running, queue.running + queue.queued]).toEqual([turns.filter(Boolean).length, turns.length]);
        }
        const drained = queue.drain();
        await expect(queue.enter(new AbortController().signal)).rejects.toThrow(BusyError);
        while (open().length > 0) {
          leave(open()[0]!);
          await settled();
        }
        await drained;
      },
    ),
    { numRuns: 100 },
  );
});

test("a signal that has aborted does not enter", async () => {
  const queue = new Queue({ maxRunning: 1, maxQueued: 1 });
  await expect(queue.enter(AbortSignal.abort())).rejects.toThrow(/abort/i);
  expect(queue.running).toBe(0);
});
