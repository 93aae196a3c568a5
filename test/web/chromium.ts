/**
 * The browser that the page is tested in. Without windows it opens a page in half the time. It is not among the packages, so it may be missing; where `CI` is
 * set that is a failure.
 */
import { existsSync } from "node:fs";

const [withoutWindows, whole] = ["/usr/bin/chromium-headless-shell", "/usr/bin/chromium"] as const;

export const chromiumPath =
  process.env.CHROMIUM ?? (existsSync(whole) && !existsSync(withoutWindows) ? whole : withoutWindows);
export const isChromiumMissing = !existsSync(chromiumPath) && !process.env.CI;
