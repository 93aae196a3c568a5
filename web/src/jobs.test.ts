import { afterAll, expect, test, vi } from "vitest";
import { jobs, loadJobs } from "./jobs.ts";

afterAll(() => void vi.unstubAllGlobals());

test("a server that does not answer for a moment takes no job from the page", async () => {
  const job = { asked: { name: "sql", model: "whole" } };
  const answers = [() => Response.json([job]), () => Response.error(), () => Response.json([])];
  vi.stubGlobal("fetch", async () => answers.shift()!());
  await loadJobs();
  expect(jobs.value).toEqual({ list: [job] });
  await loadJobs();
  expect(jobs.value).toEqual({ list: [job], error: expect.any(Error) });
  await loadJobs();
  expect(jobs.value).toEqual({ list: [] });
});
