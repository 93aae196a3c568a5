/** Optional packages, as whoever lacks one meets them. */
import { expect, test } from "vitest";
import { DependencyError } from "./errors.ts";
import { checkPeer, loadPeer } from "./package.ts";

test("a package that is not installed is a DependencyError that says how to install it, checked as loaded", async () => {
  checkPeer("onnxruntime-node", "a test");
  expect(() => checkPeer("not-installed", "a test")).toThrow(DependencyError);
  const load = () => import("not-installed" as string);
  await expect(loadPeer("not-installed", "a test", load)).rejects.toThrow(DependencyError);
  expect(() => checkPeer("not-installed", "a test")).toThrow(/npm install --ignore-scripts not-installed@/);
});
