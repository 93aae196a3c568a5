/**
 * Harder tests: unseen words, unseen words in unseen wordings, plain questions. Questions and words of ours (MIT); README.md beside this file
 * says why. Made from committed files alone:
 *
 *     npx tsx experiments/suite/unseen.ts
 *
 * A word is unseen where no training row of the *same task* has it, in its input or its answers; other tasks may.
 */
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { gunzipSync } from "node:zlib";
import type { EvalRow } from "../../src/text/scorers.ts";
import { evalRows, jsonLines, TASKS } from "./prepare.ts";
import { hash, type TaskRow, type Wordings, withoutInput, wordDistance } from "./split.ts";

/** Kilograms of a grown one, roughly: pairs differ by four times or more. */
const ANIMALS = wordsOf(`
  ant:3e-06 wasp:0.0001 moth:0.0005 ladybird:3e-05 cricket:0.001 grasshopper:0.002 termite:3e-06 beetle:0.003
  gecko:0.06 newt:0.01 frog:0.03 toad:0.1 sparrow:0.03 robin:0.02 finch:0.015 wren:0.01 hamster:0.12 gerbil:0.07
  mole:0.1 shrew:0.008 hedgehog:0.9 squirrel:0.4 crow:0.5 magpie:0.2 pigeon:0.35 duck:1.2 goose:4 hen:2 swan:11
  otter:9 badger:12 fox:7 beaver:22 lynx:22 hyena:55 baboon:25 gazelle:30 zebra:350 ostrich:120 yak:400 bison:700
  buffalo:650 walrus:1000 rhinoceros:1800 seal:110 penguin:10 panda:100 kangaroo:60 sheep:75 ox:800 lizard:0.08
  iguana:4 salmon:5 trout:1.5 herring:0.2 sardine:0.1 stork:3.5 vulture:8 flamingo:3 owl:1 woodpecker:0.1 weasel:0.1
  tapir:230 antelope:130 reindeer:150 lamb:6 piglet:2 kitten:0.6 mammoth:6000 orca:4000 scorpion:0.02
  centipede:0.003 shrimp:0.01 crab:0.5 turkey:8 peacock:5
`).map((entry) => {
  const [name, kilograms] = entry.split(":") as [string, string];
  return { name, kilograms: Number(kilograms) };
});
const LEAST_RATIO = 4;

const LIVING = wordsOf(`
  fox wolf bear deer otter badger kangaroo crocodile eagle owl pigeon crow hamster beetle ant wasp moth seal
  squirrel hedgehog crab salmon turkey cow pig moose leopard gorilla koala lobster dog hen goose sparrow robin toad
  newt beaver lynx hyena baboon buffalo walrus ostrich flamingo stork trout weasel reindeer llama peacock vulture
  cheetah jaguar lamb puppy kitten
`);
const NOT_LIVING = wordsOf(`
  table chair hammer window river spoon bottle pencil guitar violin mirror bridge pillow candle cheese garlic pepper
  cherry plumber farmer pilot baker bicycle canoe tram silver black violet coat boots ladder kettle curtain carpet
  umbrella lamp bucket needle brick castle mountain island grape peach cabbage spinach walnut biscuit sailor tailor
  lawyer soldier drum trumpet flute desk sofa wallet turquoise beige crimson rocket ferry barn shovel saucepan
  blanket napkin basket
`);

/** To be spelt. */
const WORDS = wordsOf(`
  zebra walnut umbrella pumpkin kettle giraffe lantern jigsaw yogurt quilt vinegar hammock octopus igloo noodle
  avocado eyelash thimble doorbell raccoon sausage bucket crayon flamingo nostril pyjamas oyster ukulele xylophone
  lavender cinnamon blizzard trampoline spatula mittens pebble dragonfly hiccup jellyfish kangaroo broccoli cucumber
  spinach toothbrush wheelbarrow scarecrow rhubarb ostrich armchair icicle acorn unicycle zucchini squirrel hedgehog
  penguin ladle doughnut marmalade fjord gnome knapsack plywood syrup turnip wigwam
`);

const PEOPLE = wordsOf(`
  plumber baker farmer nurse pilot teacher sailor singer dancer soldier driver guard waiter cook painter barber
  miner tailor builder clerk knight monk shepherd hunter boxer runner juggler cleaner gardener butcher
`);
const VERBS = wordsOf(`
  followed invited praised visited called pushed ignored pleased watched greeted kicked warned hired trusted chased
  blamed amused teased rescued interviewed hugged kissed tickled scared fooled annoyed escorted photographed
  congratulated questioned
`);

/** What a sentence can hardly do without: tasks of sentences have no unseen ones of these. */
const FUNCTION_WORDS = new Set(
  wordsOf(`
    a above across along an and are around as at be been behind beyond but by can cannot could did do does for from had has have he her
    his i if in into is it its me my near never no not of off on or our out over she so than that the their them there these they this
    those to too under up very was we were what when where which who will with you your
  `),
);
/** Tasks whose inputs are sentences. */
const SENTENCES = new Set(["active_to_passive", "negation", "orthography_starts_with", "sentiment"]);

/** Questions of a task that are made, of which a few are asked. */
const NUM_MADE = 60;

function wordsOf(list: string): string[] {
  return list.trim().split(/\s+/);
}

/** Words and numbers of a text in lower case, without the letter in brackets that orthography_starts_with asks for. */
export function contentWords(task: string, text: string): string[] {
  const words = text
    .replace(/\[\p{L}\]$/u, "")
    .toLowerCase()
    .match(/[\p{L}\p{N}]+/gu);
  return (words ?? []).filter((word) => !(SENTENCES.has(task) && FUNCTION_WORDS.has(word)));
}

/** The words of each task's training rows. */
export function vocabularies(train: readonly TaskRow[]): Map<string, Set<string>> {
  const words = new Map<string, Set<string>>();
  for (const { task, input, answers } of train) {
    const own = words.get(task) ?? new Set();
    words.set(task, own);
    for (const text of [input, ...answers]) for (const word of contentWords(task, text)) own.add(word);
  }
  return words;
}

/** Whole numbers in [low, high), by hash. */
const draw = (low: number, high: number, ...name: string[]) => low + Math.floor((high - low) * hash(...name));
const pick = <T>(list: readonly T[], ...name: string[]): T => list[draw(0, list.length, ...name)]!;
const made = (task: string, make: (name: string) => Omit<TaskRow, "task"> | undefined): TaskRow[] => {
  const rows = new Map<string, TaskRow>();
  for (let i = 0; rows.size < NUM_MADE; i++) {
    const row = make(`${task} ${i}`);
    if (row) rows.set(row.input, { task, ...row });
  }
  return [...rows.values()];
};

const largerAnimal = made("larger_animal", (name) => {
  const [a, b] = [pick(ANIMALS, name, "a"), pick(ANIMALS, name, "b")];
  const [smaller, larger] = a.kilograms < b.kilograms ? [a, b] : [b, a];
  if (larger.kilograms < LEAST_RATIO * smaller.kilograms) return undefined;
  return { input: `${a.name}, ${b.name}`, answers: [larger.name] };
});

const taxonomyAnimal = made("taxonomy_animal", (name) => {
  const places = Array.from({ length: draw(4, 7, name, "length") }, (_, i) => {
    const isAnimal = hash(name, "living", `${i}`) < 0.5;
    return { isAnimal, word: pick(isAnimal ? LIVING : NOT_LIVING, name, `${i}`) };
  });
  const animals = places.flatMap(({ isAnimal, word }) => (isAnimal ? [word] : []));
  const words = places.map(({ word }) => word);
  if (animals.length === 0 || new Set(words).size < words.length) return undefined;
  return { input: words.join(", "), answers: [animals.join(", ")] };
});

const activeToPassive = made("active_to_passive", (name) => {
  const [who, whom] = ["who", "whom"].map((role) => {
    const isPlural = hash(name, role, "plural") < 0.5;
    return { isPlural, words: `${pick(PEOPLE, name, role)}${isPlural ? "s" : ""}` };
  }) as [{ isPlural: boolean; words: string }, { isPlural: boolean; words: string }];
  if (who.words === whom.words) return undefined;
  const verb = pick(VERBS, name, "verb");
  return {
    input: `The ${who.words} ${verb} the ${whom.words}.`,
    answers: [`The ${whom.words} ${whom.isPlural ? "were" : "was"} ${verb} by the ${who.words}.`],
  };
});

/** Numbers of three digits, from 200: the greatest in training is 198. */
const sum = made("sum", (name) => {
  const [a, b] = [draw(200, 1000, name, "a"), draw(200, 1000, name, "b")];
  return { input: `${a} ${b}`, answers: [`${a + b}`] };
});
const diff = made("diff", (name) => {
  const [a, b] = [draw(200, 1000, name, "a"), draw(200, 1000, name, "b")];
  return a < b ? undefined : { input: `${a} ${b}`, answers: [`${a - b}`] };
});

const UNITS = wordsOf(`
  zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen
`);
const TENS = wordsOf("zero ten twenty thirty forty fifty sixty seventy eighty ninety");

/** Numbers of five digits: those of training have one to four. */
const numToVerbal = made("num_to_verbal", (name) => {
  const number = draw(10_000, 100_000, name);
  return { input: `${number}`, answers: [inWords(number)] };
});

/** As the source writes numbers: "four thousand, seven hundred and eleven", "five thousand and six". Below a million. */
export function inWords(number: number): string {
  if (number < 20) return UNITS[number]!;
  if (number < 100) return TENS[Math.floor(number / 10)]! + (number % 10 ? `-${UNITS[number % 10]}` : "");
  const [unit, word] = number < 1000 ? [100, "hundred"] : [1000, "thousand"];
  const rest = number % unit;
  const joint = rest >= 100 ? ", " : " and ";
  return `${inWords(Math.floor(number / unit))} ${word}${rest ? joint + inWords(rest) : ""}`;
}

const spelling = WORDS.flatMap((word): TaskRow[] => [
  { task: "first_word_letter", input: word, answers: [word[0]!] },
  { task: "second_word_letter", input: word, answers: [word[1]!] },
  { task: "letters_list", input: word, answers: [[...word].join(" ")] },
]);

/**
 * Held-out wordings of each task that differ from each one trained by more than a word, the place of the input apart. With wordings that have the
 * input in them a few of the human ones are no longer unseen.
 */
export function unseenWordings(
  plain: Readonly<Record<string, Wordings>>,
  inline: Readonly<Record<string, Wordings>>,
): Record<string, string[]> {
  return Object.fromEntries(
    Object.keys(TASKS).map((task) => {
      const heldOut = [...plain[task]!.heldOut, ...inline[task]!.heldOut];
      return [task, heldOut.filter((wording) => isFarFrom(wording, inline[task]!.train))];
    }),
  );
}

/** Whether a wording differs from each of the others by more than a word, the place of the input apart. */
export function isFarFrom(wording: string, others: readonly string[]): boolean {
  return others.every((other) => wordDistance(withoutInput(wording), withoutInput(other)) > 1);
}

export interface UnseenSources {
  train: readonly TaskRow[];
  /** `unseen-questions.jsonl`: questions of ours that are not made of lists of words. */
  questions: readonly TaskRow[];
  /** `plain-questions.jsonl`. */
  plain: readonly EvalRow[];
  instructions: Readonly<Record<string, Wordings>>;
  /** Those of `instructions` that are not of the source. */
  ours: Readonly<Record<string, readonly string[]>>;
  /** `instructions` with those that have the input in them. */
  inline: Readonly<Record<string, Wordings>>;
}

/** @throws {Error} if a question has a word of its task's training rows, or a plain one a known wording */
export function prepareUnseen({ train, questions, plain, instructions, ours, inline }: UnseenSources) {
  const rows = [
    ...[...largerAnimal, ...taxonomyAnimal, ...activeToPassive, ...sum, ...diff, ...numToVerbal],
    ...[...spelling, ...questions],
  ];
  const trained = vocabularies(train);
  for (const { task, input } of rows) {
    const seen = contentWords(task, input).find((word) => trained.get(task)!.has(word));
    if (seen !== undefined)
      throw new Error(`unseen words: wanted none of ${task}'s training rows, got "${seen}" in "${input}". Reword it.`);
  }
  const known = Object.values(inline).flatMap((own) => [...own.train, ...own.validation, ...own.heldOut]);
  for (const { instruction } of plain)
    if (!isFarFrom(instruction, known))
      throw new Error(`plain questions: wanted new wordings, got "${instruction}". Reword it.`);
  const wordings = unseenWordings(instructions, inline);
  const human = (task: string) => instructions[task]!.train.filter((wording) => !ours[task]!.includes(wording));
  return {
    words: evalRows("test-words", rows, human),
    crossed: evalRows("test-words", rows, (task) => wordings[task]!),
    plain: plain.map((row) => ({ ...row, scorer: TASKS[row.task]?.scorer ?? "any" })),
  };
}

/** The committed files that the tests are made from. */
export function readSources(): UnseenSources {
  const path = (name: string) => join(import.meta.dirname, name);
  const json = (name: string) => JSON.parse(readFileSync(path(name), "utf8"));
  const lines = (text: string) =>
    text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line));
  return {
    train: lines(gunzipSync(readFileSync(path("data/train.jsonl.gz"))).toString("utf8")),
    questions: lines(readFileSync(path("unseen-questions.jsonl"), "utf8")),
    plain: lines(readFileSync(path("plain-questions.jsonl"), "utf8")),
    instructions: json("data/instructions.json"),
    ours: json("wordings.json"),
    inline: json("data/instructions-inline.json"),
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  for (const [name, rows] of Object.entries(prepareUnseen(readSources()))) {
    writeFileSync(join(import.meta.dirname, "data", `test-${name}.jsonl`), jsonLines(rows));
    console.log(`test-${name}.jsonl`, rows.length);
  }
}
