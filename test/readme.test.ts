/**
 * What README.md and the guides in docs/ say can be typed. Fenced `sh` blocks are run, and lines below a command that begin with `# ` are its output;
 * indented ones take long or need other files, so that only their command and options are checked.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, expect, test } from "vitest";
import { ifprune as program } from "../src/cli/program.ts";
import { ifprune } from "./support/cli.ts";

const repository = fileURLToPath(new URL("..", import.meta.url));
const pages = ["README.md", "docs/models.md", "docs/serving.md", "docs/training.md"];
const textOf = (page: string) => readFileSync(join(repository, page), "utf8");
const readme = textOf("README.md");
const cache = mkdtempSync(join(tmpdir(), "ifprune-readme-"));
afterAll(() => rmSync(cache, { recursive: true }));

interface Shown {
  line: string;
  /** Arguments of each `ifprune` in the line. */
  commands: string[][];
  /** Lines shown as its output. */
  output: string[];
}

const fenced = [...readme.matchAll(/^```sh\n(.*?)^```$/gms)].flatMap(([, block]) => shownIn(block!.split("\n")));
const indented = pages.flatMap((page) =>
  shownIn(
    textOf(page)
      .split("\n")
      .flatMap((line) => /^ {4}(.*)$/.exec(line)?.[1] ?? []),
  ),
);

function shownIn(lines: readonly string[]): Shown[] {
  const shown: Shown[] = [];
  for (const line of lines) {
    if (line.startsWith("# ")) shown.at(-1)?.output.push(line.slice(2));
    else shown.push({ line, commands: commandsIn(line), output: [] });
  }
  return shown.filter(({ commands }) => commands.length > 0);
}

/** Words as a shell sees them: quotes, a comment at the end, no expansion. */
function commandsIn(line: string): string[][] {
  const words = [...line.matchAll(/"([^"]*)"|'([^']*)'|(#.*)|([^\s"']+)/g)].flatMap(
    ([, double, single, comment, plain]) => (comment ? [] : [double ?? single ?? plain!]),
  );
  const commands: string[][] = [[]];
  for (const word of words) {
    if (word === "&&" || word === "|" || word === ">") commands.push([]);
    else commands.at(-1)!.push(word);
  }
  return commands.flatMap(([first, second, ...rest]) => {
    if (first === "npx" && second === "ifprune") return [rest];
    return first === "npm" && second === "start" ? [["run", ...rest.slice(rest[0] === "--" ? 1 : 0)]] : [];
  });
}

test("there are commands to run, and the first shows its answer", () => {
  expect(fenced.length).toBeGreaterThanOrEqual(2);
  expect(fenced[0]!.output.length).toBeGreaterThan(0);
});

test.each([...fenced, ...indented].flatMap(({ commands }) => commands.map((args) => [args] as const)))(
  "ifprune %j has this command and these options",
  async (args) => {
    const parser = program();
    for (const command of parser.commands) command.action(() => {});
    await parser.parseAsync(args, { from: "user" });
  },
);

test.each(fenced.map((shown) => [shown.line, shown] as const))("%s", async (_, { commands, output }) => {
  let stdout = "";
  for (const args of commands) {
    const ended = await ifprune([...args, "--threads", "1"], { cwd: repository, env: { XDG_CACHE_HOME: cache } });
    expect(ended.code, ended.stderr).toBe(0);
    stdout += ended.stdout;
  }
  if (output.length > 0) expect(timeless(stdout.trimEnd())).toBe(timeless(output.join("\n")));
});

function timeless(text: string): string {
  return text.replace(/"ms":\{[^}]*\}/g, '"ms":{}');
}

test("its program is the example, which the package's test runs", () => {
  expect(readme).toContain(`\`\`\`ts\n${readFileSync(join(repository, "examples/answer.ts"), "utf8")}\`\`\``);
});

test.each([...pages, "ARCHITECTURE.md", "docs/results.md", "docs/log.md", "models/default/README.md"])(
  "files that %s names exist",
  (page) => {
    const links = [...textOf(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) =>
      join(dirname(page), path!),
    );
    const paths =
      readme.match(/(?<![\w./-])(?:src|experiments|models|bench|docs|examples|scripts|test)\/[\w./-]*[\w/]/g) ?? [];
    const missing = [...new Set([...links, ...paths])].filter((path) => !existsSync(join(repository, path)));
    expect(missing).toEqual([]);
  },
);

test.each(pages)("no path of one machine in %s", (page) => {
  expect(textOf(page)).not.toMatch(/(?<![\w.:/])\/(?:home|root|tmp|work|Users)\/|\.\.\/shared/);
});
