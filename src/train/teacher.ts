/**
 * What a teacher makes of fixed rows: its hidden states after the final norm, from which its output matrix makes its logits. They are computed
 * when they are first asked for and kept in a file, in half precision: 2·Dt bytes a token, where logits would take 2·V. So further epochs, and other
 * runs on the same rows, do without the teacher.
 *
 *     FOLDER/HASH/states      half precision [rows, T, Dt], little-endian
 *     FOLDER/HASH/checksums   CRC-32 of each row's states [rows], uint32, 0 where there are none yet
 *
 * HASH is of the teacher's weights, the rows' token ids and what these see: states of another teacher or other data are never read. A row that does not match its
 * checksum, half-written before a power cut or altered since, is computed anew.
 *
 * Shapes: B rows at a time · T tokens of a row · Dt width of the teacher · V vocabulary
 */
import { createHash } from "node:crypto";
import { closeSync, constants, fstatSync, ftruncateSync, openSync, readSync } from "node:fs";
import { join } from "node:path";
import { crc32 } from "node:zlib";
import { OptionError } from "../errors.ts";
import { asBytes, makeFolders, refuseLink, writeFully, writing } from "../files.ts";
import type { Model } from "../formats/huggingface.ts";
import { decodeBlocks, encodeWeights } from "../formats/quantize.ts";
import { Graph } from "../graph/graph.ts";
import { compile, type Session, type SessionOptions } from "../graph/session.ts";
import { decoder, parameterInputs } from "../net/decoder.ts";
import { PREFIX, seesInputs, type TeacherHead } from "../net/step.ts";

export interface TeacherOptions {
  /** Where states are kept; made if need be. */
  folder: string;
  /** T */
  sequenceLength: number;
  session: SessionOptions;
}

/** Rows that the teacher reads at a time: always as many, so that states do not depend on which rows are asked for together. */
const BATCH = 4;

/** Token ids, and what each sees where several texts share the row (`Sees` in `ops.ts`). Absent: all before it. */
export interface TaughtRow {
  ids: Int32Array;
  starts?: Int32Array | undefined;
  shared?: Int32Array | undefined;
}

export class Teacher implements AsyncDisposable {
  readonly head: TeacherHead;
  /** Output matrix [V, Dt]. */
  readonly headWeight: Float32Array;
  readonly #model: Model;
  readonly #rows: readonly TaughtRow[];
  readonly #options: TeacherOptions;
  readonly #files: { states: number; checksums: number };
  readonly #checksums: Uint32Array;
  #session: Session | undefined;

  /**
   * @param model of the same vocabulary as who learns from it
   * @param rows of at most T tokens each
   * @throws {FileError} if the folder cannot be written
   */
  constructor(model: Model, rows: readonly TaughtRow[], options: TeacherOptions) {
    const { config, weights } = model;
    this.#model = model;
    this.#rows = rows;
    this.#options = options;
    this.head = { width: config.width, vocabSize: config.vocabSize, logitSoftCap: config.logitSoftCap };
    this.headWeight = weights.get(config.tieEmbeddings ? "model.embed_tokens.weight" : "lm_head.weight")!.data;
    const folder = join(options.folder, identity(model, rows, options.sequenceLength));
    const open = (name: string, bytes: number): number =>
      writing(join(folder, name), () => {
        refuseLink(join(folder, name));
        const descriptor = openSync(join(folder, name), constants.O_RDWR | constants.O_CREAT);
        if (fstatSync(descriptor).size !== bytes) ftruncateSync(descriptor, bytes); // what has not been written reads as 0 and takes no space
        return descriptor;
      });
    makeFolders(folder);
    refuseLink(folder);
    this.#files = {
      states: open("states", rows.length * this.#rowBytes),
      checksums: open("checksums", rows.length * Uint32Array.BYTES_PER_ELEMENT),
    };
    this.#checksums = new Uint32Array(rows.length);
    readSync(this.#files.checksums, new Uint8Array(this.#checksums.buffer), 0, this.#checksums.byteLength, 0);
  }

  /** States of rows, [places · T, Dt], 0 in padding. */
  async states(places: Int32Array): Promise<Float32Array> {
    const size = this.#options.sequenceLength * this.head.width;
    const all = new Float32Array(places.length * size);
    const missing: number[] = [];
    for (const [i, place] of places.entries()) {
      const kept = this.#read(place);
      if (kept) all.set(kept, i * size);
      else missing.push(i);
    }
    for (let from = 0; from < missing.length; from += BATCH) {
      const some = missing.slice(from, from + BATCH);
      const computed = await this.#compute(some.map((i) => places[i]!));
      for (const [row, i] of some.entries()) {
        const bytes = encodeWeights(computed.subarray(row * size, (row + 1) * size), "F16");
        this.#write(places[i]!, bytes);
        all.set(decodeBlocks(bytes, "F16"), i * size);
      }
    }
    return all;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#session?.release();
    closeSync(this.#files.states);
    closeSync(this.#files.checksums);
  }

  /** T */
  get sequenceLength(): number {
    return this.#options.sequenceLength;
  }

  get #rowBytes(): number {
    return this.#options.sequenceLength * this.#model.config.width * 2;
  }

  #read(place: number): Float32Array | undefined {
    if (this.#checksums[place] === 0) return undefined;
    const bytes = Buffer.allocUnsafeSlow(this.#rowBytes);
    const count = readSync(this.#files.states, bytes, 0, bytes.length, place * bytes.length);
    return count === bytes.length && checksum(bytes) === this.#checksums[place]
      ? decodeBlocks(bytes, "F16")
      : undefined;
  }

  #write(place: number, bytes: Uint8Array): void {
    this.#checksums[place] = checksum(bytes);
    const own = new Uint8Array(this.#checksums.buffer, place * 4, 4);
    const write = () => {
      writeFully(this.#files.states, bytes, place * bytes.length);
      writeFully(this.#files.checksums, own, place * 4);
    };
    writing(this.#options.folder, write, "What is there stays, and is used again.");
  }

  /** At most BATCH rows. */
  async #compute(places: readonly number[]): Promise<Float32Array> {
    const { sequenceLength: T, session } = this.#options;
    const { config, weights } = this.#model;
    this.#session ??= await compile(statesGraph(config, BATCH, T), session);
    const empty = () => new Int32Array(BATCH * T);
    const feeds = { ids: empty(), starts: empty(), shared: empty() };
    for (const [row, place] of places.entries()) {
      const own = this.#rows[place]!;
      for (const [name, data] of Object.entries(feeds)) data.set(own[name as keyof TaughtRow] ?? [], row * T);
    }
    const parameters = Object.fromEntries([...weights].map(([name, { data }]) => [PREFIX.llm + name, data]));
    const { states } = (await this.#session.run({ ...parameters, ...feeds })) as { states: Float32Array };
    for (let row = 0; row < BATCH; row++) {
      const place = places[row];
      const length = place === undefined ? 0 : this.#rows[place]!.ids.length;
      states.fill(0, (row * T + length) * config.width, (row + 1) * T * config.width);
    }
    const largest = states.reduce((max, value) => Math.max(max, Math.abs(value)), 0);
    if (!(largest < LARGEST_HALF))
      throw new OptionError(
        `teacher: wanted hidden states below ${LARGEST_HALF}, the largest of half precision, got ${largest}. Is the teacher a sound model?`,
      );
    return states;
  }
}

const LARGEST_HALF = 65_504;

/** Never 0, which stands for none. */
const checksum = (bytes: Uint8Array) => crc32(bytes) || 1;

function statesGraph(config: Model["config"], B: number, T: number): Graph {
  const graph = new Graph(`teacher B=${B} T=${T}`);
  const ids = graph.input("ids", [B, T], "int32");
  const parameters = parameterInputs(graph, config, PREFIX.llm);
  graph.output("states", decoder(config, parameters, ids, undefined, undefined, seesInputs(graph, { B, T })));
  return graph;
}

function identity({ config, weights }: Model, rows: readonly TaughtRow[], sequenceLength: number): string {
  const hash = createHash("sha256").update(JSON.stringify({ config, sequenceLength }));
  for (const [name, { data }] of weights) hash.update(name).update(asBytes(data));
  for (const { ids, starts, shared } of rows) {
    hash.update(`${ids.length}`).update(asBytes(ids));
    if (starts && shared) for (const sees of [starts, shared]) hash.update(asBytes(sees));
  }
  return hash.digest("hex").slice(0, 32);
}
