/**
 * Rows of text that are the same in every epoch, so that what a teacher makes of them can be kept: questions of one domain with their answers, packed to a
 * length. None sees another, so each is learned as it will be asked; what all begin with, as a template's system turn, stands in a row once. A row is of one mask: where
 * masks learn, of questions that the predictor reads alike. A batch may be asked to hold rows of one mask only.
 *
 * Shapes: B rows of a batch · T tokens of a row
 */
import { OptionError } from "../errors.ts";
import { labelledTurns } from "../net/labels.ts";
import { Random } from "../random.ts";
import { type Batch, type BatchStream, DomainDraws, emptyBatch } from "./batches.ts";
import type { Question, SftData } from "./data.ts";

export interface TextRow {
  domain: number;
  /** The first one, and what the predictor reads of it. */
  question: Question;
  predictorIds: Int32Array | undefined;
  /** Of what all begin with, then of each question and answer without it. */
  ids: Int32Array;
  /** What each token sees: `Sees` in `ops.ts`. */
  starts: Int32Array;
  shared: Int32Array;
  /** That the row runs under. Absent: rows of a batch need not share one. */
  mask?: number | undefined;
}

/** Every question of the data once, in one of its wordings, a row each. @param seed order of the questions and their wordings */
export function questionRows(data: SftData, seed: string): TextRow[] {
  return data.questions.flatMap((questions, domain) => {
    const random = new Random(`${seed}/rows/${data.domains[domain]}`);
    return Array.from(random.permutation(questions.length), (item): TextRow => {
      const question = questions[item]!;
      const example = data.encode(question, question.wordings[random.int(question.wordings.length)]!);
      const { ids } = labelledTurns([example]);
      const input = data.numPredictorInputs > 1 ? random.int(data.numPredictorInputs) : 0;
      const [starts, shared] = [new Int32Array(ids.length), new Int32Array(ids.length)];
      return { domain, question, predictorIds: example.predictorInputs[input], ids, starts, shared };
    });
  });
}

/**
 * Rows of up to T tokens: each question joins the fullest row of its domain and mask that has room for it (best fit), or begins another. Questions without a mask have that of what the predictor
 * reads of them; without a predictor all share one.
 *
 * @param questions of {@link questionRows}
 */
export function packRows(questions: readonly TextRow[], T: number): TextRow[] {
  const beginning = commonBeginning(questions.map(({ ids }) => ids));
  const packed: TextRow[] = [];
  const ofKind = new Map<string, number[]>();
  for (const question of questions) {
    const kind = `${question.domain}/${question.mask ?? question.predictorIds}`;
    const places = ofKind.get(kind) ?? [];
    ofKind.set(kind, places);
    const added = question.ids.length - beginning;
    let fullest = -1;
    for (const place of places) {
      const { length } = packed[place]!.ids;
      if (length + added <= T && length > (packed[fullest]?.ids.length ?? 0)) fullest = place;
    }
    if (fullest >= 0) packed[fullest] = joined(packed[fullest]!, question, beginning);
    else places.push(packed.push(question) - 1);
  }
  return packed;
}

/** How many tokens all begin with, of each at least the last one left out. */
export function commonBeginning(texts: readonly Int32Array[]): number {
  const first = texts[0] ?? new Int32Array();
  const most = Math.min(...texts.map(({ length }) => length - 1));
  let length = 0;
  while (length < most && texts.every((ids) => ids[length] === first[length])) length++;
  return length;
}

function joined(row: TextRow, question: TextRow, beginning: number): TextRow {
  const own = question.ids.subarray(beginning);
  const after = (array: Int32Array, value: number) => Int32Array.of(...array, ...own.map(() => value));
  return {
    ...row,
    ids: Int32Array.of(...row.ids, ...own),
    starts: after(row.starts, row.ids.length),
    shared: after(row.shared, beginning),
  };
}

export interface RowStreamOptions {
  seed: number | string;
  tokensPerBatch: number;
  /** T */
  sequenceLength: number;
}

/**
 * Batches of rows, drawn from the domains in turn and by weight, without repetition within an epoch of a domain. A row waits until there are enough
 * of its mask; every position but padding counts.
 */
export class RowStream implements BatchStream {
  readonly #rows: readonly TextRow[];
  readonly #options: RowStreamOptions;
  readonly #B: number;
  readonly #draws: DomainDraws;
  /** Places of each domain's rows. */
  readonly #ofDomain: number[][];
  /** Rows that wait, by mask. */
  readonly #waiting = new Map<number, number[]>();

  constructor(data: Pick<SftData, "domains" | "weights">, rows: readonly TextRow[], options: RowStreamOptions) {
    this.#rows = rows;
    this.#options = options;
    this.#B = Math.max(1, Math.floor(options.tokensPerBatch / options.sequenceLength));
    this.#ofDomain = data.domains.map(() => []);
    for (const [place, { domain }] of rows.entries()) this.#ofDomain[domain]!.push(place);
    const empty = this.#ofDomain.findIndex((places) => places.length === 0);
    if (empty >= 0)
      throw new OptionError(
        `training data: wanted a row in domain "${data.domains[empty]}", got none. Add questions, or leave it out.`,
      );
    this.#draws = new DomainDraws(
      data,
      this.#ofDomain.map((places) => () => places.length),
      options.seed,
    );
  }

  next(): Batch {
    const { sequenceLength: T } = this.#options;
    const places = this.#nextPlaces();
    const rows = places.map((place) => this.#rows[place]!);
    const longest = Math.max(...rows.map(({ predictorIds }) => predictorIds?.length ?? 0));
    const batch = emptyBatch({ B: this.#B, T, Tp: Math.ceil(longest / PREDICTOR_STEP) * PREDICTOR_STEP }, rows);
    batch.rows = Int32Array.from(places);
    batch.starts = new Int32Array(this.#B * T);
    batch.shared = new Int32Array(this.#B * T);
    for (const [row, { ids, starts, shared }] of rows.entries()) {
      batch.ids.set(ids, row * T);
      batch.labels.set(ids, row * T); // any token: they only say that the position counts
      batch.starts.set(starts, row * T);
      batch.shared.set(shared, row * T);
      batch.tokens += ids.length;
    }
    batch.labelled = batch.tokens;
    const { mask } = rows[0]!;
    if (mask !== undefined) batch.mask = mask;
    return batch;
  }

  skip(count: number): void {
    for (let i = 0; i < count; i++) this.#nextPlaces();
  }

  #nextPlaces(): number[] {
    for (;;) {
      const { domain, item } = this.#draws.next();
      const place = this.#ofDomain[domain]![item]!;
      const mask = this.#rows[place]!.mask ?? 0;
      const waiting = this.#waiting.get(mask) ?? [];
      this.#waiting.set(mask, waiting);
      waiting.push(place);
      if (waiting.length === this.#B) return waiting.splice(0);
    }
  }
}

/** Predictor inputs are padded to a multiple of this: few graphs. */
const PREDICTOR_STEP = 16;
