import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test, vi } from "vitest";
import { inProcess } from "../../test/support/cli.ts";
import { stories, temporaryFolder } from "../../test/support/models.ts";
import { importModel } from "../bundle/importModel.ts";

test("`generate` writes its file and says what was left out; what it refuses is an exit code and a line", async () => {
  const at = temporaryFolder();
  vi.stubEnv("XDG_CACHE_HOME", join(at, "cache"));
  const [bundle, prompts, out] = ["bundle", "prompts.jsonl", "out.jsonl"].map((name) => join(at, name)) as [
    string,
    string,
    string,
  ];
  await importModel(join(stories, "stories260K.bin"), bundle, { tokenizer: join(stories, "tok512.bin"), type: "F32" });
  writeFileSync(prompts, '{"instruction": "Once upon"}\n{"instruction": "A cat"}\n');
  const generate = (...flags: string[]) => inProcess("generate", bundle, prompts, out, "--max-tokens", "3", ...flags);

  const clash = await generate("--mask", "mask.json", "--source", "random");
  expect(clash).toMatchObject({
    code: 1,
    stderr: expect.stringContaining("cannot be used with option '--mask <file>'"),
  });
  expect(await generate("--source", "text")).toMatchObject({
    code: 1,
    stderr: "ifprune: mask: wanted a text for the source text, got none. On the command line: --text FILE.\n",
  });
  const { code, stderr } = await generate("--threads", "1");
  expect([code, stderr]).toEqual([
    0,
    expect.stringMatching(/out\.jsonl: 0 rows · 6 tokens · \d+ tokens\/s · left out: 2 cut at --max-tokens\n$/),
  ]);
  expect(readFileSync(out, "utf8")).toBe("");
  expect(await generate()).toMatchObject({ code: 1, stderr: expect.stringContaining('out.jsonl", which exists') });
  writeFileSync(prompts, '{"instruction": "Once upon"}\n');
  const json = await inProcess("generate", bundle, prompts, `${out}2`, "--t-ffn", "32", "--max-tokens", "2", "--json");
  expect(JSON.parse(json.stdout)).toMatchObject({ isWhole: true, prompts: 1, asked: 1, cut: 1, tokens: 2 });
});
