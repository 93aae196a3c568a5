/** What a reasoning model thinks before it answers, told apart from the answer: `<think>…</think>`, as models of the ChatML family write it. */
import type { Said } from "./tools.ts";

const OPEN = "<think>";
const CLOSE = "</think>";

/** Finds the thoughts that an answer begins with, in an answer that comes in pieces. White space around them is no part of either. */
export class ThoughtReader {
  /** `begin` and `after` wait for what is not white space. */
  #state: "begin" | "thought" | "after" | "answer";
  #held = "";

  /** @param isOpen whether the prompt has opened the thoughts */
  constructor(isOpen: boolean) {
    this.#state = isOpen ? "thought" : "begin";
  }

  push(piece: string): Said[] {
    this.#held += piece;
    const said: Said[] = [];
    for (;;) {
      const held = this.#held.trimStart();
      switch (this.#state) {
        case "begin":
          if (OPEN.startsWith(held)) return said; // perhaps
          this.#state = held.startsWith(OPEN) ? "thought" : "answer";
          if (this.#state === "thought") this.#held = held.slice(OPEN.length);
          break;
        case "thought": {
          const end = this.#held.indexOf(CLOSE);
          const length = end < 0 ? this.#held.length - begun(this.#held) : end;
          const thought = end < 0 ? this.#held.slice(0, length) : this.#held.slice(0, length).trimEnd();
          if (thought !== "") said.push({ thought });
          this.#held = this.#held.slice(length);
          if (end < 0) return said;
          this.#held = this.#held.slice(CLOSE.length);
          this.#state = "after";
          break;
        }
        case "after":
          if (held === "") return said;
          this.#held = held;
          this.#state = "answer";
          break;
        case "answer":
          if (this.#held !== "") said.push({ text: this.#held });
          this.#held = "";
          return said;
        default:
          return this.#state satisfies never;
      }
    }
  }

  /** What was held back of an answer that has ended. */
  end(): Said[] {
    const held = this.#held;
    this.#held = "";
    if (held === "" || this.#state === "after") return [];
    return [this.#state === "thought" ? { thought: held } : { text: held }];
  }
}

/** Length of what may be the beginning of the mark that ends thoughts, or white space before it. */
function begun(text: string): number {
  const [found] = /\s*(<(\/(t(h(i(n(k)?)?)?)?)?)?)?$/.exec(text)!;
  return found.length;
}
