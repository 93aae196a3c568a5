import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";

/** All files under a folder, by their paths in it, with what they hold. */
export function contentsOf(root: string): [string, Buffer][] {
  const files = readdirSync(root, { recursive: true, withFileTypes: true }).filter((entry) => !entry.isDirectory());
  const paths = files.map((entry) => join(entry.parentPath, entry.name)).sort();
  return paths.map((path) => [path.slice(root.length), readFileSync(path)]);
}
