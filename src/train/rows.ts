/**
 * Rows of text that are the same in every epoch, so that what a teacher makes of them can be kept: conversations of questions of one
 * domain, packed to a length. A batch may be asked to hold rows of one mask only.
 *
 * Shapes: B rows of a batch · T tokens of a row
 */
import { OptionError } from "../errors.ts";
import { Random } from "../random.ts";
import { type Batch, type BatchStream, DomainDraws, questionBatch, type Row } from "./batches.ts";
import { exampleLength, rowLength, type SftData } from "./data.ts";

/**
 * Every question of the data once, in one of its wordings, in conversations of up to T tokens with others of its domain: each joins the fullest one that has
 * room for it (best fit), or begins another.
 *
 * @param options `sequenceLength`: T · `seed`: order of the questions and their wordings
 */
export function packRows(data: SftData, { sequenceLength: T, seed }: { sequenceLength: number; seed: string }): Row[] {
  return data.questions.flatMap((questions, domain) => {
    const random = new Random(`${seed}/rows/${data.domains[domain]}`);
    const rows: Row[] = [];
    const lengths: number[] = [];
    for (const item of random.permutation(questions.length)) {
      const question = questions[item]!;
      const wording = question.wordings[random.int(question.wordings.length)]!;
      const turn = data.encodeTurn(question, wording)!;
      const added = 1 + exampleLength(turn); // an EOS between turns
      let fullest = -1;
      for (const [place, length] of lengths.entries())
        if (length + added <= T && length > (lengths[fullest] ?? 0)) fullest = place;
      if (fullest >= 0) {
        rows[fullest]!.turns.push(turn);
        lengths[fullest]! += added;
        continue;
      }
      const first = data.encode(question, wording);
      rows.push({ domain, question, turns: [first], predictorIds: first.predictorInputs[0] });
      lengths.push(exampleLength(first));
    }
    return rows;
  });
}

export interface RowStreamOptions {
  seed: number | string;
  tokensPerBatch: number;
  /** T */
  sequenceLength: number;
  /** Consecutive batches that share a mask too: those of a step. */
  accumulate: number;
}

/**
 * Batches of rows, drawn from the domains in turn and by weight, without repetition within an epoch of a domain. A row waits until there are enough
 * of its mask; every position but padding counts.
 */
export class RowStream implements BatchStream {
  readonly #rows: readonly Row[];
  readonly #maskOf: ((row: number) => number) | undefined;
  readonly #options: RowStreamOptions;
  readonly #B: number;
  readonly #draws: DomainDraws;
  /** Places of each domain's rows. */
  readonly #ofDomain: number[][];
  /** Rows that wait, by mask. */
  readonly #waiting = new Map<number, number[]>();
  /** Batches that are complete. */
  #ready: number[][] = [];

  /** @param maskOf the mask that a row belongs to; absent: rows of a batch need not share one */
  constructor(
    data: Pick<SftData, "domains" | "weights">,
    rows: readonly Row[],
    options: RowStreamOptions,
    maskOf?: (row: number) => number,
  ) {
    this.#rows = rows;
    this.#maskOf = maskOf;
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
    const batch = questionBatch({ B: this.#B, T, Tp: Math.ceil(longest / PREDICTOR_STEP) * PREDICTOR_STEP }, rows);
    batch.rows = Int32Array.from(places);
    for (const [row, { turns }] of rows.entries()) {
      const text = batch.ids.subarray(row * T, row * T + rowLength(turns));
      batch.labels.set(text, row * T); // any token: they only say that the position counts
    }
    batch.labelled = batch.tokens;
    if (this.#maskOf) batch.mask = this.#maskOf(places[0]!);
    return batch;
  }

  skip(count: number): void {
    for (let i = 0; i < count; i++) this.#nextPlaces();
  }

  #nextPlaces(): number[] {
    const size = this.#B * this.#options.accumulate; // rows of a step
    while (this.#ready.length === 0) {
      const { domain, item } = this.#draws.next();
      const place = this.#ofDomain[domain]![item]!;
      const mask = this.#maskOf?.(place) ?? 0;
      const waiting = this.#waiting.get(mask) ?? [];
      this.#waiting.set(mask, waiting);
      waiting.push(place);
      if (waiting.length < size) continue;
      for (let i = 0; i < size; i += this.#B) this.#ready.push(waiting.slice(i, i + this.#B));
      waiting.length = 0;
    }
    return this.#ready.shift()!;
  }
}

/** Predictor inputs are padded to a multiple of this: few graphs. */
const PREDICTOR_STEP = 16;
