import { Argument, Command } from "commander";
import { SHELLS } from "../shells.ts";
import { late } from "./flags.ts";

export function completionsCommand(): Command {
  return new Command("completions")
    .description("Print completions of this command line for a shell.")
    .addArgument(new Argument("<shell>", "the shell that shall complete").choices(SHELLS))
    .addHelpText(
      "after",
      `
Where each shell finds them:
  bash   echo 'source <(ifprune completions bash)' >> ~/.bashrc
  zsh    ifprune completions zsh > "\${fpath[1]}/_ifprune"
  fish   ifprune completions fish > ~/.config/fish/completions/ifprune.fish
`,
    )
    .action(late(async () => (await import("../completions.ts")).completionsAction));
}
