/** The browser that the page is tested in. It is not among the packages, so it may be missing; where `CI` is set that is a failure. */
import { existsSync } from "node:fs";

export const chromiumPath = process.env.CHROMIUM ?? "/usr/bin/chromium";
export const isChromiumMissing = !existsSync(chromiumPath) && !process.env.CI;
