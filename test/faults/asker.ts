/** A process that answers under numbered masks: messages `{ root, number }` get `{ answer }` or `{ error }`. It lives as long as its parent. */
import { DEFAULT_ENGINES } from "../../src/answer/defaultEngines.ts";
import { IfpruneError } from "../../src/errors.ts";
import { openBundle, openNumbered } from "./subnetworks.ts";

export interface Asked {
  root: string;
  number: number;
}
export type Told = { answer: string } | { error: string };

const bundle = openBundle();
const ids = Int32Array.from({ length: 24 }, (_, i) => 300 + 7 * i);

/** Every log-probability, to the last bit: a wrong weight shows. */
async function answer({ root, number }: Asked): Promise<string> {
  const path = await openNumbered(bundle, number, root);
  await using engine = await DEFAULT_ENGINES.open(path, { contextLength: 64, threads: 1, kvType: "F32" });
  return JSON.stringify((await engine.score(ids, { top: 1 })).map(({ logprob }) => logprob));
}

let last: Promise<unknown> = Promise.resolve();
process.on("message", (asked: Asked) => {
  last = last.then(async () => {
    const told: Told = await answer(asked).then(
      (answer) => ({ answer }),
      (error: Error) => ({ error: error instanceof IfpruneError ? error.message : `internal: ${error.stack}` }),
    );
    process.send!(told);
  });
});
process.on("disconnect", () => process.exit());
