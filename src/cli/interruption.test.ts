/** What an interrupted command ends with. */
import { expect, test } from "vitest";
import { EngineError, FileError } from "../errors.ts";
import { interruption, outcome, stopped } from "./interruption.ts";

test("an engine that does not start is one; once it was interrupted, an interruption, as nothing that the terminal stopped says anything of this machine", () => {
  const engine = new EngineError(new Error("no binary"));
  const full = new FileError("checkpoint", "the disk is full");
  expect(outcome(engine)).toEqual({ error: engine, code: 1 });
  const before = [...process.listeners("SIGINT"), ...process.listeners("SIGTERM")];
  const signal = interruption("stopped and saved");
  const added = process.listeners("SIGTERM").filter((listener) => !before.includes(listener));
  for (const listener of added) (listener as () => void)();
  expect(signal.aborted).toBe(true);
  expect(outcome(engine)).toEqual({ error: signal.reason, code: 143 });
  expect(signal.reason.message).toBe("stopped and saved");
  expect(outcome(full)).toEqual({ error: full, code: 1 });
  expect(outcome(stopped("stopped"))).toMatchObject({ code: 143 });
  for (const name of ["SIGINT", "SIGTERM"] as const)
    for (const listener of process.listeners(name).filter((one) => !before.includes(one)))
      process.removeListener(name, listener as () => void);
});
