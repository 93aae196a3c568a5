/** What our own package.json says, read from the sources as from the build: both lie one folder below it. */
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { DependencyError } from "./errors.ts";

const { version, peerDependencies } = JSON.parse(readFileSync(new URL("../package.json", import.meta.url), "utf8")) as {
  version: string;
  peerDependencies: Record<string, string>;
};

export { peerDependencies, version };

/**
 * Loads a package that only some uses need, one of our optional peers.
 *
 * @param use what wants it
 * @throws {DependencyError} if it is not installed
 */
export async function loadPeer<Module>(name: string, use: string, load: () => Promise<Module>): Promise<Module> {
  try {
    return await load();
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException;
    if (code !== "ERR_MODULE_NOT_FOUND" || !message.includes(`'${name}'`)) throw error;
    throw new DependencyError(name, peerDependencies[name]!, use, { cause: error });
  }
}

/** The same of a package that another process will load. @throws {DependencyError} if it is not installed */
export function checkPeer(name: string, use: string): void {
  try {
    createRequire(import.meta.url).resolve(name);
  } catch (error) {
    throw new DependencyError(name, peerDependencies[name]!, use, { cause: error });
  }
}
