/**
 * Completions for a shell, from the table of commands: commands, options, their choices, files, and the models on this machine, which the shell looks up
 * itself when it needs them.
 */
import type { Command, Option } from "commander";
import type { Shell } from "./shells.ts";

/** `ifprune completions` */
export function completionsAction(shell: Shell, _: object, command: Command): void {
  process.stdout.write(completionScript(command.parent!, shell));
}

/** What a value may be: one of these words, a model or a file, a file; or nothing that is known. */
type Value = readonly string[] | "model" | "file" | "unknown";

interface CompletedOption {
  /** `--keep`, and `-h` where it is short too. */
  names: readonly string[];
  about: string;
  /** Undefined of a flag. */
  value: Value | undefined;
}

interface CompletedCommand {
  name: string;
  about: string;
  options: readonly CompletedOption[];
  /** Of all arguments together. */
  value: Value;
}

const MODELS = new Set(["model", "models", "bundle"]);
const FILES = new Set(
  "checkpoint data dir file folder inputs out path prompts recipe source".split(" "), // as arguments and values are named in the table
);

/** The script that `shell` reads. */
export function completionScript(program: Command, shell: Shell): string {
  const help = program.createHelp();
  const commands = program.commands.map((command) => ({
    name: command.name(),
    about: inShort(command.description()),
    options: help.visibleOptions(command).map(completedOption),
    value: together(command.registeredArguments.map((argument) => argument.argChoices ?? kindOf(argument.name()))),
  }));
  return { bash, zsh, fish }[shell](commands, help.visibleOptions(program).map(completedOption));
}

function completedOption(option: Option): CompletedOption {
  const [, name] = /[<[](\w[\w=-]*)/.exec(option.flags) ?? [];
  return {
    names: [option.short, option.long].filter((one) => one !== undefined),
    about: inShort(option.description),
    value: name === undefined ? undefined : (option.argChoices ?? kindOf(name)),
  };
}

const kindOf = (name: string): Value => (MODELS.has(name) ? "model" : FILES.has(name) ? "file" : "unknown");

function together(values: readonly Value[]): Value {
  return values.find((value) => typeof value !== "string") ?? values.find((value) => value !== "unknown") ?? "unknown";
}

/** The first clause. */
function inShort(words: string): string {
  return words.split(/[;:(]|\. |\.$/)[0]!.trim();
}

const quoted = (text: string): string => `'${text.replaceAll("'", "'\\''")}'`;

/** Prints the names of models: those of the package, and ids of those that were pulled, which have a file each. */
const modelsFunction = (pattern: string) => `_ifprune_models() {
  local file
  printf "%s\\n" default tiny
  for file in "\${XDG_CACHE_HOME:-$HOME/.cache}"/ifprune/models/${pattern}; do
    [ -e "$file" ] || continue
    file=\${file##*/}
    file=\${file%.json}
    echo "\${file/--//}"
  done
}`;

function bash(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const candidates = (value: Value) => {
    if (value === "model") return "words=$(_ifprune_models) files=yes";
    if (value === "file") return "files=yes";
    return value === "unknown" ? ":" : `words=${quoted(value.join("\n"))}`;
  };
  const names = (list: readonly CompletedOption[]) => list.flatMap((option) => option.names);
  const cases = commands.map((command) => {
    const valued = command.options.filter(({ value }) => value !== undefined);
    return [
      `    ${command.name})`,
      "      case $previous in",
      ...valued.map((option) => `        ${option.names.join("|")}) ${candidates(option.value!)} ;;`),
      `        *) if [[ $current == -* ]]; then words=${quoted(names(command.options).join("\n"))}; else ${candidates(command.value)}; fi ;;`,
      "      esac ;;",
    ].join("\n");
  });
  const first = [...commands.map(({ name }) => name), ...names(options)];
  return `# Completions of ifprune for bash.
${modelsFunction("*.json")}
_ifprune() {
  local current=\${COMP_WORDS[COMP_CWORD]} previous=\${COMP_WORDS[COMP_CWORD - 1]} command= words= files= i
  # --option=value comes as three words
  if [[ $current == = ]]; then current=
  elif [[ $previous == = ]]; then previous=\${COMP_WORDS[COMP_CWORD - 2]}
  fi
  for ((i = 1; i < COMP_CWORD; i++)); do
    if [[ \${COMP_WORDS[i]} != -* ]]; then command=\${COMP_WORDS[i]}; break; fi
  done
  case $command in
    '') words=${quoted(first.join("\n"))} ;;
${cases.join("\n")}
  esac
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$words" -- "$current"))
  if [[ $files ]]; then
    compopt -o filenames 2> /dev/null
    COMPREPLY+=($(compgen -f -- "$current"))
  fi
}
complete -F _ifprune ifprune
`;
}

function zsh(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const escaped = (words: string) => words.replaceAll(/[[\]:\\]/g, "\\$&");
  const action = (value: Value) => {
    if (value === "model") return "_ifprune_models_or_files";
    if (value === "file") return "_files";
    return value === "unknown" ? " " : `(${value.join(" ")})`;
  };
  const specs = ({ names, about, value }: CompletedOption) =>
    names.map((name) => {
      const isLong = name.startsWith("--");
      const given = value === undefined ? "" : `:value:${action(value)}`;
      return quoted(`*${name}${value !== undefined && isLong ? "=" : ""}[${escaped(about)}]${given}`);
    });
  const cases = commands.map(
    (command) =>
      `        ${command.name}) _arguments ${[...command.options.flatMap(specs), quoted(`*:argument:${action(command.value)}`)].join(" ")} ;;`,
  );
  return `#compdef ifprune
# Completions of ifprune for zsh.
${modelsFunction("*.json(N)")}
_ifprune_models_or_files() {
  compadd -- \${(f)"$(_ifprune_models)"}
  _files
}
_ifprune() {
  local curcontext=$curcontext state line
  typeset -A opt_args
  _arguments -C ${options.flatMap(specs).join(" ")} '1:command:->command' '*::argument:->argument'
  case $state in
    command)
      local -a commands=(${commands.map(({ name, about }) => quoted(`${name}:${escaped(about)}`)).join(" ")})
      _describe command commands ;;
    argument)
      case $words[1] in
${cases.join("\n")}
      esac ;;
  esac
}
if [[ $funcstack[1] == _ifprune ]]; then _ifprune "$@"; else compdef _ifprune ifprune; fi
`;
}

function fish(commands: readonly CompletedCommand[], options: readonly CompletedOption[]): string {
  const text = (words: string) => `'${words.replaceAll(/[\\']/g, "\\$&")}'`;
  const candidates = (value: Value) => {
    if (value === "model") return " -F -a '(__ifprune_models)'";
    if (value === "file") return " -F";
    return value === "unknown" ? " -f" : ` -f -a ${text(value.join(" "))}`;
  };
  const line = (when: string, { names, about, value }: CompletedOption) => {
    const named = names.map((name) => (name.startsWith("--") ? `-l ${name.slice(2)}` : `-s ${name.slice(1)}`));
    return `complete -c ifprune -n ${text(when)} ${named.join(" ")}${value === undefined ? "" : ` -r${candidates(value)}`} -d ${text(about)}`;
  };
  return `# Completions of ifprune for fish.
function __ifprune_models
  printf "%s\\n" default tiny
  set -l cache $XDG_CACHE_HOME
  test -n "$cache"; or set cache ~/.cache
  for file in $cache/ifprune/models/*.json
    string replace -- -- / (basename $file .json)
  end
end
complete -c ifprune -f
${[
  ...options.map((option) => line("__fish_use_subcommand", option)),
  ...commands.flatMap((command) => {
    const when = `__fish_seen_subcommand_from ${command.name}`;
    return [
      `complete -c ifprune -n '__fish_use_subcommand' -a ${command.name} -d ${text(command.about)}`,
      ...(command.value === "unknown" ? [] : [`complete -c ifprune -n ${text(when)}${candidates(command.value)}`]),
      ...command.options.map((option) => line(when, option)),
    ];
  }),
].join("\n")}
`;
}
