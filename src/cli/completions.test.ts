import { spawnSync } from "node:child_process";
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../test/support/models.ts";
import { completionScript } from "./completions.ts";
import { ifprune } from "./program.ts";
import { SHELLS, type Shell } from "./shells.ts";

const scripts = Object.fromEntries(SHELLS.map((shell) => [shell, completionScript(ifprune(), shell)])) as Record<
  Shell,
  string
>;

/** What a shell prints that has read its completions, in a folder with a file, where one model was pulled. */
function inShell(shell: Shell, commands: string): string[] {
  const folder = temporaryFolder();
  mkdirSync(join(folder, "ifprune/models"), { recursive: true });
  writeFileSync(join(folder, "ifprune/models/some--model.json"), "{}");
  writeFileSync(join(folder, "my file.txt"), "");
  writeFileSync(join(folder, "completions"), scripts[shell]);
  const env = { ...process.env, XDG_CACHE_HOME: folder };
  const { stdout, stderr } = spawnSync(shell, ["-c", `. ./completions\n${commands}`], {
    cwd: folder,
    env,
    encoding: "utf8",
  });
  expect(stderr).toBe("");
  return stdout.split("\n").filter((line) => line !== "");
}

const isThere = (shell: Shell) => spawnSync(shell, ["-c", ":"]).error === undefined;

test("no command's option or argument is of a kind that completions do not know", () => {
  const values = ifprune().commands.flatMap((command) => [
    ...command.registeredArguments.filter(({ argChoices }) => !argChoices).map((argument) => argument.name()),
    ...command.options.filter(({ argChoices }) => !argChoices).map(({ flags }) => /[<[]([\w=-]+)/.exec(flags)?.[1]),
  ]);
  // Those that are free text, or numbers; others are models and files, by their names.
  const free =
    "address bytes description formats id input instruction key licence list mask n name nats origin other p path=value share t tasks text".split(
      " ",
    );
  const known = "bundle checkpoint data dir file folder inputs model models out path prompts recipe source".split(" ");
  const strange = values.filter((value) => value !== undefined && !free.includes(value) && !known.includes(value));
  expect([...new Set(strange)]).toEqual([]);
});

test.runIf(isThere("bash"))("bash completes commands, options, choices, models and files", () => {
  const lines: Record<string, string[]> = {
    "ifprune ru": ["run"],
    "ifprune run --so": ["--source"],
    "ifprune run --source gr": ["griffin"],
    "ifprune run --source = we": ["weights"], // as bash takes --source=we apart
    "ifprune run --model ": ["default", "tiny", "some/model", "completions", "ifprune", "my file.txt"],
    "ifprune run --file my": ["my file.txt"],
    "ifprune chat so": ["some/model"],
    "ifprune estimate my": ["my file.txt"],
    "ifprune run --seed ": [],
    "ifprune run some words ": [],
    "ifprune completions f": ["fish"],
  };
  const commands = Object.keys(lines).map((line) => {
    const words = line.split(" ").map((word) => `'${word}'`);
    return `COMP_WORDS=(${words.join(" ")}); COMP_CWORD=${words.length - 1}; COMPREPLY=(); _ifprune 2> /dev/null
echo "# ${line}"; printf '%s\\n' "\${COMPREPLY[@]}"`;
  });
  const expected = Object.entries(lines).flatMap(([line, words]) => [`# ${line}`, ...words]);
  expect(inShell("bash", commands.join("\n"))).toEqual(expected);
});

test.runIf(isThere("zsh"))("zsh reads its completions", () => {
  expect(inShell("zsh", "_ifprune_models")).toEqual(["default", "tiny", "some/model"]); // compdef is there with compinit alone
});

test.runIf(isThere("fish"))("fish completes commands, options, choices and models", () => {
  const complete = (line: string) => `complete -C '${line}' | cut -f1`;
  expect(inShell("fish", complete("ifprune ru"))).toEqual(["run"]);
  expect(inShell("fish", complete("ifprune run --source gr"))).toEqual(["griffin"]);
  expect(inShell("fish", complete("ifprune run --model so"))).toContain("some/model");
});

test("every shell's script names every command and option", () => {
  for (const command of ifprune().commands) {
    for (const option of [command.name(), ...command.options.map(({ long }) => long!)]) {
      expect(scripts.bash).toContain(option);
      expect(scripts.zsh).toContain(option);
      expect(scripts.fish).toContain(option.replace(/^--/, "-l "));
    }
  }
});
