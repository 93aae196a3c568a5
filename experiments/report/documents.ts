/** Tables of ours in documents that are otherwise written by hand, each between two marks. */
import { FileError } from "../../src/errors.ts";

const MARKED = /<!-- table: ([\w-]+) -->\n[\s\S]*?<!-- end -->/g;

/**
 * A document with the lines of each table between `<!-- table: NAME -->` and `<!-- end -->`, in place of what stood there.
 *
 * @throws {FileError} if it asks for a table that there is not, or for none
 */
export function withTables(path: string, text: string, tables: ReadonlyMap<string, readonly string[]>): string {
  let found = 0;
  const filled = text.replace(MARKED, (_, name: string) => {
    found++;
    const lines = tables.get(name);
    if (!lines)
      throw new FileError(
        path,
        `wanted a table of ${[...tables.keys()].map((one) => `"${one}"`).join(", ")}, got "${name}".`,
      );
    return [`<!-- table: ${name} -->`, "", ...lines, "", "<!-- end -->"].join("\n");
  });
  if (found === 0) throw new FileError(path, "wanted a mark <!-- table: NAME --> … <!-- end -->, got none.");
  return filled;
}
