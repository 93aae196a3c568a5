/**
 * Further plain prompts to be trained on, of our own: topics by ways of asking, so that the plain part is as varied as what people ask. None is held out, one of the 200 questions, or a
 * plain prompt already. Writes `data/plain-further.jsonl`, the same each time.
 *
 *     npx tsx experiments/smollm2/plainGrid.ts
 */
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import { Random } from "../../src/random.ts";
import { sameWording } from "../suite/split.ts";
import { readLines } from "./sources.ts";

/** `X` in a form stands for the topic. Each topic is asked in `each` of the forms, drawn. */
interface Grid {
  topics: readonly string[];
  forms: readonly string[];
  each: number;
}

const list = (text: string) => text.split("|").map((part) => part.trim());

/** By task. */
const GRIDS: Readonly<Record<string, Grid>> = {
  explain: {
    topics: list(
      "a volcano|an earthquake|magnetism|electricity|recycling|evaporation|a black hole|the water cycle|climate change|the immune system|a battery|a microscope|solar energy|the Roman Empire|the Industrial Revolution|the printing press|a glacier|a coral reef|the ozone layer|a tornado|a solar eclipse|the nervous system|a calorie|a balanced diet|meditation|stress|the stock market|a bank account|interest on a loan|insurance|a contract|the United Nations|a constitution|an election|a fable|a sonnet|irony|a symphony|impressionism|a museum|a compass|a database|cloud computing|encryption|a firewall|open source software|a robot|machine learning|a neural network|virtual reality|a barcode|GPS|a fossil|a desert|the food chain|hibernation|pollination|friction|sound|a lever|an alloy|yeast|a marathon|a patent|a charity|a trade union|globalisation|supply and demand|a hypothesis|a placebo",
    ),
    forms: list(
      "What is X?|Explain X in simple words.|Explain X to a ten-year-old.|Tell me about X in two sentences.|Give me a short definition of X.|Why does X matter?|Write three facts about X.|I have never heard of X. Can you explain it?|Explain X to me like I am new to it.|In one sentence, what is X?",
    ),
    each: 4,
  },
  "how-to": {
    topics: list(
      "bake bread|clean a keyboard|learn to swim|write a cover letter|save water at home|grow herbs indoors|wash a wool sweater|paint a room|pack a suitcase|make lemonade|train a puppy|remember names|stay focused while studying|plan a birthday party|organise a small kitchen|read faster|speak with more confidence|stop biting my nails|make a paper plane|wrap a present|iron a shirt|cook pasta|make a green salad|brew coffee|cut an onion|get rid of ants|care for a houseplant|take notes in class|learn the guitar|start running|stretch after exercise|ask for a raise|apologise to a friend|give good feedback|write a résumé|open a bank account|plan a trip on a small budget|choose a mattress|fold a shirt|find a new hobby|make a to-do list|prepare for a hike|set up a tent|clean a whiteboard|sew on a button|draw a cat|bake cookies|keep a diary|hang a picture|defrost a freezer",
    ),
    forms: list(
      "How do I X?|How can I X? Keep it short.|Give me three tips to X.|Explain step by step how to X.|What do I need to X?|Is it hard to X?|Give me one good tip to X.|I want to X. Where do I start?",
    ),
    each: 3,
  },
  lists: {
    topics: list(
      "fruits|animals that live in Africa|rivers|kinds of cheese|board games|flowers|trees|birds|cities in Italy|breakfast ideas|desserts|soups|jobs in a hospital|school subjects|pieces of furniture|tools for the garden|words that describe a person|adjectives for food|verbs of movement|kinds of weather|sports without a ball|styles of music|famous scientists|countries in Europe|countries in Asia|things in a kitchen|things to do in a park|ideas for a rainy weekend|healthy drinks|vehicles|insects|animals of the sea|farm animals|metals|materials to build a house|hobbies for children|questions to ask a new colleague|reasons to drink water|ways to save energy|ways to relax|items for a first aid kit|ingredients of a pizza|names for a dog|names for a café|titles for a book about the sea|gifts for a teacher|New Year's resolutions|inventions that changed the world|things that are round|things that are made of wood",
    ),
    forms: list(
      "Name three X.|List five X.|Give me four X.|Can you list some X?|Write a list of six X.|Tell me two X.|I need a list of X.|Name some X and say one thing about each.",
    ),
    each: 3,
  },
  writing: {
    topics: list(
      "a lighthouse|an old bridge|the first snow|a train journey|a lonely robot|a market in the morning|a storm at sea|a walk in the forest|a city at night|an old friendship|a broken clock|a small village|a hidden garden|an empty theatre|a curious fox|a brave mouse|a dragon who is afraid of fire|the last day of school|a letter that never arrived|a summer evening|autumn leaves|a river|the stars|a cup of tea|a forgotten toy|an astronaut|a baker who cannot sleep|a long road|a violin|an island",
    ),
    forms: list(
      "Write a short poem about X.|Write two sentences about X.|Write a story about X in four sentences.|Describe X in one sentence.|Give me a title for a story about X.|Write a haiku about X.|Write the first line of a story about X.|Write two rhyming lines about X.|Tell me a very short story about X.",
    ),
    each: 4,
  },
  messages: {
    topics: list(
      "my teacher: I will be late tomorrow|my boss: I cannot come on Friday|a client: the meeting is moved to Tuesday|my landlord: the window does not close|a colleague: thank you for the help yesterday|the library: I cannot find a book that I borrowed|a shop: my order has not arrived|my neighbour: the music is too loud at night|a friend: I have two tickets for a concert|the doctor's office: I would like an appointment|my team: the deadline is on Monday|my sister: happy birthday|a hotel: I would like to cancel my booking|my coach: I hurt my knee|a new neighbour: welcome to the street|my aunt: thank you for the present|a company: I am interested in the job|my roommate: please wash the dishes|the school: my daughter is ill|a restaurant: a table for four at seven|a customer: we are sorry about the delay|my cousin: I will visit next week|my professor: I have a question about the homework|the bank: I lost my card|a friend: I am sorry that I forgot our meeting",
    ),
    forms: list(
      "Write a short email to X.|Write a polite message to X.|Draft a text message to X.|Write a friendly note to X.|Write one sentence to X.|Help me write to X.",
    ),
    each: 3,
  },
  rewriting: {
    topics: list(
      "I go to the market every morning.|She is reading a book in the garden.|They are going to build a new school.|The dog chased the ball across the field.|We have not seen the film yet.|My brother plays football on Sundays.|The teacher explains the lesson to the class.|It is going to rain this afternoon.|He wants to buy a cheap car.|The children are singing in the hall.|I do not like to wait for the bus.|The old man walks slowly down the street.|Our train leaves at nine.|The cat sleeps on the warm chair.|Please close the door.|The soup is too hot to eat.|They live in a small house near the sea.|She can speak three languages.|The shop opens at ten and closes at six.|We will meet in front of the cinema.",
    ),
    forms: list(
      "Rewrite in the past tense: X|Rewrite in the future tense: X|Turn this into a question: X|Say this more politely: X|Say this in other words: X|Make this sentence negative: X|Translate into French: X|Translate into Spanish: X|Translate into German: X|Translate into Italian: X|Find the verb in this sentence: X|Which nouns are in this sentence? X|Make this sentence longer: X|How many words are in this sentence? X|Write the next sentence: X|Make it sound exciting: X",
    ),
    each: 8,
  },
  countries: {
    topics: list(
      "Denmark|Hungary|Belgium|Switzerland|the Netherlands|Turkey|Argentina|Chile|Colombia|Australia|New Zealand|Thailand|Vietnam|South Africa|Nigeria|Ethiopia|Ukraine|Romania|Bulgaria|Iceland|Serbia|Croatia|Iran|Iraq|Pakistan|Indonesia|the Philippines|Malaysia|Bolivia|Ecuador",
    ),
    forms: list(
      "What is the capital of X?|Which language do people speak in X?|On which continent is X?|What is the currency of X?|Which countries border X?|Tell me one fact about X.|What food is typical of X?|Name a city in X.|What is X known for?|Is X an island?",
    ),
    each: 4,
  },
  people: {
    topics: list(
      "Galileo Galilei|Ada Lovelace|Wolfgang Amadeus Mozart|Frida Kahlo|Florence Nightingale|Socrates|Confucius|Genghis Khan|Napoleon Bonaparte|Amelia Earhart|Charles Dickens|Vincent van Gogh|Rosa Parks|Alan Turing|Louis Pasteur|Nikola Tesla|Marco Polo|Joan of Arc|Aristotle|Hans Christian Andersen",
    ),
    forms: list(
      "Who was X?|What is X famous for?|Tell me one fact about X.|In which century did X live?|Describe X in two sentences.|Where did X come from?",
    ),
    each: 3,
  },
  differences: {
    topics: list(
      "a bus and a tram|butter and margarine|a novel and a short story|a hill and a mountain|an ocean and a river|a city and a village|a fox and a wolf|a bee and a wasp|a violin and a cello|football and rugby|a doctor and a nurse|a bank and a shop|paper and plastic|an email and a letter|a debit card and a credit card|a frog and a toad|running and walking|a fork and a spoon|oil and water|silver and gold|a poem and a song|a teacher and a coach|rice and pasta|a sofa and an armchair|a state and a country|the sun and the moon|a keyboard and a mouse|Wi-Fi and Bluetooth|hardware and software|a joke and a riddle",
    ),
    forms: list(
      "What is the difference between X?|Compare X in two sentences.|What do X have in common?|X: which do you prefer?|How are X different? Answer briefly.",
    ),
    each: 2,
  },
  words: {
    topics: list(
      "brave|generous|fragile|enormous|silent|ancient|rapid|gentle|stubborn|clever|journey|harvest|shelter|whisper|promise|borrow|celebrate|hesitate|imagine|reluctant|abundant|remote|transparent|temporary|efficient|accurate|reliable|humble|jealous|patient|sincere|elegant|fierce|vague|obvious|rare|urgent|loyal|narrow|modest",
    ),
    forms: list(
      'What does "X" mean?|Use the word "X" in a sentence.|Give me a synonym for "X".|Explain the word "X" to a child.|Is "X" a noun, a verb or an adjective?|Write a short sentence with "X".|What is a word that rhymes with or sounds like "X"?|How many letters does the word "X" have?',
    ),
    each: 3,
  },
  programs: {
    topics: list(
      "finds the largest number in a list|counts the vowels in a word|reverses a list|removes duplicates from a list|computes the factorial of a number|checks whether a word is a palindrome|converts Celsius to Fahrenheit|adds all numbers in a list|reads a file line by line|sorts a list of names|counts the words in a text|returns the first letter of a word|multiplies two numbers|checks whether a number is prime|prints the even numbers up to ten|joins two lists|finds the shortest word in a list|computes the average of three numbers|turns a text into capital letters|asks for a name and says hello",
    ),
    forms: list(
      "Write a Python function that X.|Write some Python code that X.|How would I write a program that X?|Write a JavaScript function that X.|Show me a short Python example that X.",
    ),
    each: 3,
  },
  advice: {
    topics: list(
      "I am tired.|I have a test tomorrow.|I lost my wallet.|My friend is angry with me.|I cannot sleep.|It is my first day at work.|I want to eat something sweet.|My computer is slow.|I am going on a trip next week.|My plant is dying.|I moved to a new city.|I have nothing to do today.|I am cold.|I won a prize!|My bike was stolen.|I am learning English.|I have too much work.|My dog does not eat.|I forgot my password.|I want to read a good book.",
    ),
    forms: list("X|X What should I do?|X Can you help me?|X Give me one piece of advice.|X What would you say?"),
    each: 3,
  },
  animals: {
    topics: list(
      "dolphins|owls|camels|sharks|spiders|horses|penguins|bats|snakes|ants|octopuses|wolves|squirrels|parrots|turtles|foxes|butterflies|crocodiles|giraffes|hedgehogs",
    ),
    forms: list(
      "What do X eat?|Where do X live?|Tell me something about X.|Are X dangerous?|How do X sleep?|Write one sentence about X.|Do X make good pets?",
    ),
    each: 3,
  },
};

/** Small sums in words and figures, each once. */
function* sums(random: Random): Generator<string> {
  const draw = (low: number, high: number) => low + (random.uint32() % (high - low + 1));
  for (let i = 0; i < 16; i++) {
    const [a, b] = [draw(11, 60), draw(3, 40)];
    yield `What is ${a} plus ${b}?`;
    yield `What is ${a + b} minus ${b}?`;
    yield `How much is ${draw(3, 12)} times ${draw(13, 20)}?`;
    yield `I have ${a + 10} coins and lose ${draw(2, 10)}. How many are left?`;
    yield `A pen costs ${draw(2, 9)} euros. What do ${draw(3, 9)} pens cost?`;
    yield `What comes next: ${a}, ${a + 3}, ${a + 6}, ${a + 9}?`;
  }
}

interface PlainPrompt {
  kind: "plain";
  task: string;
  instruction: string;
}

/** @param known prompts that must not come again */
export function furtherPrompts(known: readonly string[]): PlainPrompt[] {
  const random = new Random("plain-further");
  const seen = new Set(known.map(sameWording));
  const prompts: PlainPrompt[] = [];
  const add = (task: string, instruction: string) => {
    const key = sameWording(instruction);
    if (seen.has(key)) return;
    seen.add(key);
    prompts.push({ kind: "plain", task, instruction });
  };
  for (const [task, { topics, forms, each }] of Object.entries(GRIDS)) {
    for (const topic of topics) {
      for (const i of random.permutation(forms.length).subarray(0, each)) {
        const prompt = forms[i]!.replace("X", topic);
        add(task, prompt[0]!.toUpperCase() + prompt.slice(1));
      }
    }
  }
  for (const sum of sums(random)) add("sums", sum);
  return Array.from(random.permutation(prompts.length), (i) => prompts[i]!);
}

/** Prompts that are there already, held out, or kept for tests. */
export function knownPlainPrompts(): string[] {
  return ["plain.jsonl", "heldout/plain.jsonl", "questions.jsonl", "constraints.jsonl"].flatMap((name) =>
    readLines<{ instruction: string }>(join(import.meta.dirname, "data", name)).map(({ instruction }) => instruction),
  );
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? "").href) {
  const rows = furtherPrompts(knownPlainPrompts());
  const path = join(import.meta.dirname, "data/plain-further.jsonl");
  writeFileSync(path, rows.map((row) => `${JSON.stringify(row)}\n`).join(""));
  console.log(`${path}: ${rows.length} rows`);
}
