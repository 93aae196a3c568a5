/**
 * Batches for training steps. A stream is a pure function of (data, options): a resumed run makes the stream anew and skips.
 * Ranges of the options are the recipe's, and checked with it.
 *
 * Shapes: B examples · T tokens of an example · P predictor inputs · Tp tokens of a predictor input
 */
import { OptionError } from "../errors.ts";
import { IGNORED, labelledTurns } from "../net/labels.ts";
import { Random } from "../random.ts";
import { planBuckets } from "./buckets.ts";
import { exampleLength, type Question, rowLength, type SftData, type TextData, type Turn } from "./data.ts";

export interface Batch {
  B: number;
  T: number;
  /** `[B, T]`, padded at the end. Padding is id 0: causal attention and ignored labels make it invisible. */
  ids: Int32Array;
  /** `[B, T]`, the token that follows each position, or IGNORED. */
  labels: Int32Array;
  /** Inputs of the predictor: one per example in SFT, or two with twins, chunks - 1 per example in CPT, 0 without a predictor. */
  P: number;
  Tp: number;
  /** `[P, Tp]`, BOS first, padded at the end with id 0. In CPT those of one example are neighbours; twins follow all rows' own. */
  predictorIds: Int32Array;
  /** `[P]`, position of the last token that is not padding, in 0..Tp-1. */
  predictorLast: Int32Array;
  /** `[B]`, index into the data's domains. */
  domains: Int32Array;
  /** The (first) question of each row, `[B]`; empty for text. */
  questions: readonly Question[];
  /** Place of each row among those of a `RowStream`, `[B]`. */
  rows?: Int32Array;
  /** `[B, T]`, what each token of a `RowStream` sees in its row: `Sees` in `ops.ts`. */
  starts?: Int32Array;
  shared?: Int32Array;
  /** The one mask of all rows of a `RowStream` that have masks. */
  mask?: number;
  /** Positions that are not padding. */
  tokens: number;
  /** Positions with a label. */
  labelled: number;
}

export interface BatchStream {
  next(): Batch;
  /** Passes over `count` batches without making them. */
  skip(count: number): void;
}

/** A static shape of SFT batches. */
export interface Bucket {
  B: number;
  T: number;
  Tp: number;
}

export interface SftOptions {
  seed: number | string;
  /** B is as many rows of T tokens as fit in, at least 1. */
  tokensPerBatch: number;
  /** Number of different T, at most; 6 if absent. */
  maxBuckets?: number | undefined;
}

/** Tp is rounded up to a multiple of this, so that data that changes a little keeps its shapes. */
const TP_MULTIPLE = 4;

/**
 * Examples drawn in turn from the domains (by weight), without repetition within an epoch of a domain, in a wording drawn
 * anew each time. A draw waits in the bucket of its length until there are B of them: every example drawn is used once.
 */
export class SftStream implements BatchStream {
  readonly buckets: readonly Bucket[];
  /** Expected share of padding among the LLM's positions. */
  readonly waste: number;
  readonly #data: SftData;
  readonly #draws: DomainDraws;
  /** Per bucket: rows that wait. */
  readonly #waiting: Row[][];

  constructor(data: SftData, options: SftOptions) {
    const { seed, tokensPerBatch, maxBuckets = 6 } = options;
    const lengths = measure(data);
    const plan = planBuckets(lengths.weightOf, maxBuckets);
    this.#data = data;
    this.#draws = questionDraws(data, seed);
    this.#waiting = plan.lengths.map(() => []);
    this.waste = plan.waste;
    this.buckets = plan.lengths.map((T, b) => {
      let Tp = 0;
      for (const [length, longest] of lengths.predictorOf) {
        if (length <= T && length > (plan.lengths[b - 1] ?? 0)) Tp = Math.max(Tp, longest);
      }
      return { B: Math.max(1, Math.floor(tokensPerBatch / T)), T, Tp: roundUp(Tp, TP_MULTIPLE) };
    });
  }

  next(): Batch {
    const { bucket, rows } = this.#nextRows();
    return questionBatch(this.buckets[bucket]!, rows);
  }

  skip(count: number): void {
    for (let i = 0; i < count; i++) this.#nextRows();
  }

  #nextRows(): { bucket: number; rows: readonly Row[] } {
    for (;;) {
      const row = firstTurn(this.#data, this.#draws.next());
      const bucket = this.buckets.findIndex(({ T }) => exampleLength(row.turns[0]!) <= T);
      const waiting = this.#waiting[bucket]!;
      waiting.push(row);
      if (waiting.length === this.buckets[bucket]!.B) return { bucket, rows: waiting.splice(0) };
    }
  }
}

export interface ConversationOptions {
  seed: number | string;
  tokensPerBatch: number;
  /** T */
  sequenceLength: number;
  /** What asks after the first turn: the input alone, a whole prompt in one of the question's wordings, or each half of the time. */
  laterTurns: LaterTurns;
  /** Whether the predictor reads each first question twice, in a wording drawn anew. */
  twins?: boolean | undefined;
}

export type LaterTurns = "input" | "prompt" | "both";

/**
 * Conversations of up to T tokens: a question in one of its wordings, then further questions of the same domain, each answered. The
 * predictor reads the first human message alone, and its mask stays for all turns (Hou et al. 2025, §3.3). Far more labels per token than single
 * questions, and little padding.
 */
export class ConversationStream implements BatchStream {
  readonly #data: SftData;
  readonly #options: ConversationOptions;
  readonly #B: number;
  readonly #draws: DomainDraws;
  /** Per domain: a question that did not fit any more, to be asked first in the next. */
  readonly #left: (Draw | undefined)[];

  /** @param data all examples at most T tokens long */
  constructor(data: SftData, options: ConversationOptions) {
    this.#data = data;
    this.#options = options;
    this.#B = Math.max(1, Math.floor(options.tokensPerBatch / options.sequenceLength));
    this.#draws = questionDraws(data, options.seed);
    this.#left = data.domains.map(() => undefined);
  }

  next(): Batch {
    const rows = Array.from({ length: this.#B }, () => this.#nextRow());
    const longest = Math.max(
      ...rows.flatMap(({ predictorIds, twin }) => [predictorIds?.length ?? 0, twin?.length ?? 0]),
    );
    return questionBatch({ B: this.#B, T: this.#options.sequenceLength, Tp: roundUp(longest, CONVERSATION_TP) }, rows);
  }

  skip(count: number): void {
    for (let i = 0; i < count * this.#B; i++) this.#nextRow();
  }

  #nextRow(): Row {
    const { sequenceLength: T, twins } = this.#options;
    const domain = this.#draws.domain();
    const first = this.#left[domain] ?? this.#draws.item(domain);
    const row = firstTurn(this.#data, first);
    if (twins) row.twin = firstTurn(this.#data, first).predictorIds;
    addTurns(row.turns, T, () => {
      const draw = this.#draws.item(domain);
      this.#left[domain] = draw; // as long as it is not known to fit
      const question = this.#data.questions[domain]![draw.item]!;
      const { laterTurns } = this.#options;
      const isPrompt = laterTurns === "prompt" || (laterTurns === "both" && draw.random.int(2) === 1);
      return this.#data.encodeTurn(question, isPrompt ? randomWording(question, draw) : undefined);
    });
    return row;
  }
}

/** Goes on with a conversation for as long as the questions that come fit in T tokens. The first that does not is drawn but not asked. */
export function addTurns(turns: Turn[], T: number, nextTurn: () => Turn | undefined): void {
  let length = rowLength(turns);
  for (;;) {
    const turn = nextTurn();
    if (!turn || length + 1 + exampleLength(turn) > T) return;
    turns.push(turn);
    length += 1 + exampleLength(turn);
  }
}

/** Predictor inputs of conversations are padded to a multiple of this: few graphs, little padding. */
const CONVERSATION_TP = 16;

/** A row of a batch: turns of one conversation, and what the predictor reads of the first. */
export interface Row {
  domain: number;
  question: Question;
  turns: Turn[];
  predictorIds: Int32Array | undefined;
  /** The same question in another wording, as the predictor reads it. */
  twin?: Int32Array | undefined;
}

function questionDraws(data: SftData, seed: number | string): DomainDraws {
  const startEpochs = data.questions.map((questions) => () => questions.length);
  return new DomainDraws(data, startEpochs, seed);
}

const randomWording = ({ wordings }: Question, { random }: Draw) => wordings[random.int(wordings.length)]!;

/** The question that was drawn, in a wording and for a predictor input drawn anew. */
function firstTurn(data: SftData, draw: Draw): Row {
  const { domain, item, random } = draw;
  const question = data.questions[domain]![item]!;
  const example = data.encode(question, randomWording(question, draw));
  const input = random.int(Math.max(1, data.numPredictorInputs));
  return { domain, question, turns: [example], predictorIds: example.predictorInputs[input] };
}

/**
 * Lengths as they will be drawn, domains by weight, questions of a domain alike, wordings alike: how often each occurs, and the
 * longest predictor input beside it.
 */
function measure(data: SftData): { weightOf: Map<number, number>; predictorOf: Map<number, number> } {
  const weightOf = new Map<number, number>();
  const predictorOf = new Map<number, number>();
  for (const [domain, questions] of data.questions.entries()) {
    for (const question of questions) {
      const weight = data.weights[domain]! / questions.length / question.wordings.length;
      for (const wording of question.wordings) {
        const example = data.encode(question, wording);
        const length = exampleLength(example);
        weightOf.set(length, (weightOf.get(length) ?? 0) + weight);
        const longest = Math.max(...example.predictorInputs.map((ids) => ids.length), predictorOf.get(length) ?? 0);
        predictorOf.set(length, longest);
      }
    }
  }
  return { weightOf, predictorOf };
}

const roundUp = (value: number, step: number) => Math.ceil(value / step) * step;

/** Rows as one batch, padded at the end. */
function questionBatch(bucket: Bucket, rows: readonly Row[]): Batch {
  const batch = emptyBatch(bucket, rows);
  const { T } = bucket;
  for (const [row, { turns }] of rows.entries()) {
    const { ids, labels } = labelledTurns(turns);
    batch.ids.set(ids, row * T);
    batch.labels.set(labels, row * T);
    batch.tokens += ids.length;
    batch.labelled += turns.reduce((sum, { answer }) => sum + answer.length, 0);
  }
  return batch;
}

/** A batch of these rows without their text, with what the predictor reads. */
export function emptyBatch({ B, T, Tp }: Bucket, rows: readonly Omit<Row, "turns">[]): Batch {
  const predictorRows = [...rows, ...rows.flatMap(({ twin }) => (twin ? [{ predictorIds: twin }] : []))];
  const P = Tp === 0 ? 0 : predictorRows.length;
  const batch: Batch = {
    B,
    T,
    ids: new Int32Array(B * T),
    labels: new Int32Array(B * T).fill(IGNORED),
    P,
    Tp,
    predictorIds: new Int32Array(P * Tp),
    predictorLast: new Int32Array(P),
    domains: Int32Array.from(rows, ({ domain }) => domain),
    questions: rows.map(({ question }) => question),
    tokens: 0,
    labelled: 0,
  };
  for (const [row, { predictorIds }] of predictorRows.entries()) {
    if (!predictorIds) continue;
    batch.predictorIds.set(predictorIds, row * Tp);
    batch.predictorLast[row] = predictorIds.length - 1;
  }
  return batch;
}

export interface TextOptions {
  seed: number | string;
  tokensPerBatch: number;
  /** T */
  sequenceLength: number;
  /** CPT: number of equal chunks of a sequence, at least 2. Absent: plain pre-training, without a predictor. */
  chunks?: number | undefined;
}

/**
 * Sequences of T tokens cut from the documents of one domain each, BOS before them: `ids` are BOS and the first T - 1 tokens,
 * `labels` the T tokens. Each epoch of a domain cuts at a new offset and in a new order.
 *
 * With chunks (CPT): chunk k = 1..chunks is the tokens that are labels of positions (k-1)·T/chunks .. k·T/chunks - 1. The
 * predictor reads BOS and chunk k for k < chunks; labels in chunk 1 are ignored, since no chunk comes before it.
 */
export class TextStream implements BatchStream {
  readonly B: number;
  readonly #data: TextData;
  readonly #options: TextOptions;
  readonly #draws: DomainDraws;
  /** Per domain: where the first sequence of the epoch begins. */
  readonly #offset: Int32Array;

  /** @throws {OptionError} on a domain with fewer than T tokens */
  constructor(data: TextData, options: TextOptions) {
    const { seed, tokensPerBatch, sequenceLength: T } = options;
    for (const [domain, tokens] of data.tokens.entries()) {
      if (data.weights[domain]! > 0 && tokens.length < T) {
        throw new OptionError(
          `batches: wanted at least ${T} tokens in domain "${data.domains[domain]}", got ${tokens.length}.`,
        );
      }
    }
    this.B = Math.max(1, Math.floor(tokensPerBatch / T));
    this.#data = data;
    this.#options = options;
    this.#offset = new Int32Array(data.domains.length);
    const startEpoch = data.tokens.map((tokens, domain) => (random: Random) => {
      this.#offset[domain] = random.int(Math.min(T, tokens.length - T + 1));
      return Math.floor((tokens.length - this.#offset[domain]!) / T);
    });
    this.#draws = new DomainDraws(data, startEpoch, seed);
  }

  next(): Batch {
    const { B } = this;
    const { sequenceLength: T, chunks = 1 } = this.#options;
    const { bosId } = this.#data;
    const chunkLength = T / chunks;
    const P = B * (chunks - 1);
    const Tp = chunks === 1 ? 0 : chunkLength + 1;
    const batch: Batch = {
      B,
      T,
      ids: new Int32Array(B * T),
      labels: new Int32Array(B * T),
      P,
      Tp,
      predictorIds: new Int32Array(P * Tp),
      predictorLast: new Int32Array(P).fill(chunkLength),
      domains: new Int32Array(B),
      questions: [],
      tokens: B * T,
      labelled: B * (chunks === 1 ? T : T - chunkLength),
    };
    for (let row = 0; row < B; row++) {
      const { domain, item } = this.#draws.next();
      const start = this.#offset[domain]! + item * T;
      const tokens = this.#data.tokens[domain]!.subarray(start, start + T);
      batch.ids[row * T] = bosId;
      batch.ids.set(tokens.subarray(0, T - 1), row * T + 1);
      batch.labels.set(tokens, row * T);
      batch.domains[row] = domain;
      if (chunks > 1) batch.labels.fill(IGNORED, row * T, row * T + chunkLength);
      for (let chunk = 0; chunk < chunks - 1; chunk++) {
        const at = (row * (chunks - 1) + chunk) * Tp;
        batch.predictorIds[at] = bosId;
        batch.predictorIds.set(tokens.subarray(chunk * chunkLength, (chunk + 1) * chunkLength), at + 1);
      }
    }
    return batch;
  }

  skip(count: number): void {
    for (let i = 0; i < count * this.B; i++) this.#draws.next();
  }
}

/** Items of domains: domains in turn by weight, off by less than one draw at any time; items of a domain in random order. */
export class DomainDraws {
  readonly #names: readonly string[];
  readonly #weights: readonly number[];
  readonly #startEpoch: readonly ((random: Random) => number)[];
  readonly #seed: number | string;
  /** Per domain: draws due to it, so far. */
  readonly #due: Float64Array;
  readonly #epochs: { number: number; random: Random; order: Int32Array; at: number }[];

  /** @param startEpoch per domain: gives the number of items of the epoch that begins */
  constructor(
    { domains, weights }: { domains: readonly string[]; weights: readonly number[] },
    startEpoch: readonly ((random: Random) => number)[],
    seed: number | string,
  ) {
    this.#names = domains;
    this.#weights = weights;
    this.#startEpoch = startEpoch;
    this.#seed = seed;
    this.#due = new Float64Array(domains.length);
    this.#epochs = domains.map(() => ({ number: -1, random: new Random(seed), order: new Int32Array(), at: 0 }));
  }

  next(): Draw {
    return this.item(this.domain());
  }

  /** The domain whose turn it is. */
  domain(): number {
    let domain = 0;
    for (let d = 0; d < this.#due.length; d++) {
      this.#due[d]! += this.#weights[d]!;
      if (this.#due[d]! > this.#due[domain]!) domain = d;
    }
    this.#due[domain]! -= 1;
    return domain;
  }

  item(domain: number): Draw {
    const epoch = this.#epochs[domain]!;
    if (epoch.at === epoch.order.length) {
      epoch.number++;
      epoch.random = new Random(`${this.#seed}/${this.#names[domain]}/${epoch.number}`);
      epoch.order = epoch.random.permutation(this.#startEpoch[domain]!(epoch.random));
      epoch.at = 0;
    }
    return { domain, item: epoch.order[epoch.at++]!, random: epoch.random };
  }
}

/** `random` is for what else is drawn about the item. */
interface Draw {
  domain: number;
  item: number;
  random: Random;
}
