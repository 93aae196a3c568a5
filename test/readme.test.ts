/**
 * What README.md and the guides in docs/ say can be typed. The `sh` blocks of README are run, in their order and in one folder, where a small stand-in lies
 * for the real model; lines below a command that begin with `# → ` are its output. `bash` blocks take long or need other files, so that only their commands and
 * options are checked.
 */
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { TINY_MODEL } from "../src/bundle/pulledModels.ts";
import { ifprune as program } from "../src/cli/program.ts";
import { entry, ifprune, succeed } from "./support/cli.ts";

const repository = fileURLToPath(new URL("..", import.meta.url));
const guides = ["chat", "models", "serve", "export", "specialize", "prune", "train", "evaluate", "library"];
const pages = ["README.md", ...guides.map((name) => `docs/${name}.md`)];
const textOf = (page: string) => readFileSync(join(repository, page), "utf8");
const readme = textOf("README.md");
const folder = mkdtempSync(join(tmpdir(), "ifprune-readme-"));
const env = { XDG_CACHE_HOME: join(folder, "cache") };
afterAll(() => rmSync(folder, { recursive: true }));

interface Shown {
  line: string;
  /** Arguments of each `ifprune` in the line. */
  commands: string[][];
  /** Lines shown as its output. */
  output: string[];
}

const run = shownIn(readme, "sh");
const checked = pages.flatMap((page) => shownIn(textOf(page), "bash"));

/** Lines with an `ifprune` in the fenced blocks of a language. */
function shownIn(text: string, language: string): Shown[] {
  const shown: Shown[] = [];
  for (const [, block] of text.matchAll(new RegExp(`^\`\`\`${language}\n(.*?)^\`\`\`$`, "gms"))) {
    for (const line of block!.trimEnd().split("\n")) {
      if (line.startsWith("# → ")) shown.at(-1)!.output.push(line.slice(4));
      else if (!line.startsWith("#")) shown.push({ line, commands: commandsIn(line), output: [] });
    }
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
  return commands.flatMap(([first, second, ...rest]) => (first === "npx" && second === "ifprune" ? [rest] : []));
}

/** The model that README takes, as its file is called there: a small one instead. */
beforeAll(async () => {
  for (const name of ["models", "experiments"]) symlinkSync(join(repository, name), join(folder, name));
  const file = run.flatMap(({ commands }) => commands).find(([name]) => name === "import")![1]!;
  const exported = join(folder, "exported");
  await succeed("export", TINY_MODEL, exported, "--task", "Write the plural.", "--format=gguf");
  mkdirSync(dirname(join(folder, file)), { recursive: true });
  renameSync(join(exported, "model-keep.gguf"), join(folder, file));
});

test("a model is run, imported, pruned and served, and the first command shows its answer", () => {
  const names = run.flatMap(({ commands }) => commands.map(([name]) => name));
  expect(names).toEqual(expect.arrayContaining(["run", "import", "serve"]));
  expect(run.flatMap(({ commands }) => commands).some((args) => args.includes("--keep"))).toBe(true);
  expect(run[0]!.output.length).toBeGreaterThan(0);
});

test.each([...run, ...checked].flatMap(({ commands }) => commands.map((args) => [args] as const)))(
  "ifprune %j has this command and these options",
  async (args) => {
    const parser = program();
    for (const command of parser.commands) command.action(() => {});
    await parser.parseAsync(args, { from: "user" });
  },
);

// Importing measures the model, seven times over.
test.each(run.map((shown) => [shown.line, shown] as const))(
  "%s",
  { timeout: 600_000 },
  async (_, { commands, output }) => {
    let stdout = "";
    for (const args of commands) {
      if (args[0] === "serve") await serveOnce(args);
      else {
        const ended = await ifprune(args, { cwd: folder, env });
        expect(ended.code, ended.stderr).toBe(0);
        stdout += ended.stdout;
      }
    }
    if (output.length > 0) expect(stdout.trimEnd()).toBe(output.join("\n"));
  },
);

/** Starts a server on a free port, asks what it serves and for its page, and ends it as Ctrl-C does. */
async function serveOnce(args: readonly string[]): Promise<void> {
  const server = spawn(process.execPath, [entry, ...args, "--port=0"], {
    cwd: folder,
    env: { ...process.env, ...env },
  });
  const closed = once(server, "close");
  let [said, logged] = ["", ""];
  server.stderr.setEncoding("utf8").on("data", (text: string) => {
    logged += text;
  });
  for await (const text of server.stdout.setEncoding("utf8")) {
    said += text;
    if (said.includes("Try:")) break;
  }
  const url = /http:\S+?(?=\/v1)/.exec(said)?.[0];
  expect(url, logged).toBeDefined();
  const models = await (await fetch(`${url}/v1/models`)).json();
  expect(models).toMatchObject({ data: [{ id: args[1] }] });
  expect(await (await fetch(`${url}/`)).text()).toContain("<html");
  server.kill("SIGINT");
  expect(await closed, logged).toEqual([0, null]);
}

test("its program is the example, which the package's test runs", () => {
  expect(readme).toContain(`\`\`\`ts\n${readFileSync(join(repository, "examples/answer.ts"), "utf8")}\`\`\``);
});

const prose = ["ARCHITECTURE.md", "docs/method.md", "docs/glossary.md", "docs/results.md", "docs/log.md"];
const cards = ["models/default/README.md", "models/tiny/README.md", "experiments/smollm2/README.md"];
test.each([...pages, ...prose, ...cards])("files that %s names exist", (page) => {
  const links = [...textOf(page).matchAll(/\]\((?!https?:|#)([^)#]+)/g)].map(([, path]) => join(dirname(page), path!));
  const missing = [...new Set(links)].filter((path) => !existsSync(join(repository, path)));
  expect(missing).toEqual([]);
});

test.each(pages)("no path of one machine in %s", (page) => {
  expect(textOf(page)).not.toMatch(/(?<![\w.:/])\/(?:home|root|tmp|work|Users)\/|\.\.\/shared/);
});
