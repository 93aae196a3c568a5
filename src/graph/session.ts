/** Running graphs with ONNX Runtime. Results land in buffers that are made once and reused by every run. */
import type * as Ort from "onnxruntime-node";
import { ShapeError } from "../errors.ts";
import { type Graph, size } from "./graph.ts";
import { loadOnnxRuntime } from "./onnxRuntime.ts";

export type TensorData = Float32Array | Int32Array;

/** How graphs are run. */
export interface SessionOptions {
  /** Worker threads of one operator. */
  threads?: number | undefined;
  /** Let idle threads spin: faster alone on the machine, ruinous beside another busy process. */
  spinning?: boolean | undefined;
}

export interface Session {
  /** 2·m·n·k over all matrix products of one run. */
  readonly flops: number;
  /**
   * Runs the graph.
   *
   * @param feeds one array per input, in row-major order; not copied
   * @param into result buffers to use instead of the session's own
   * @returns the outputs; valid until the next run
   * @throws {ShapeError} if an input is missing or of the wrong length
   */
  run(
    feeds: Readonly<Record<string, TensorData>>,
    into?: Readonly<Record<string, TensorData>>,
  ): Promise<Record<string, TensorData>>;
  release(): Promise<void>;
}

/** Compiles a graph. Expensive (up to seconds): keep the session. */
export async function compile(graph: Graph, { threads = 0, spinning = true }: SessionOptions = {}): Promise<Session> {
  const ort = await loadOnnxRuntime();
  const session = await ort.InferenceSession.create(graph.encode(), {
    executionProviders: ["cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    executionMode: "sequential",
    graphOptimizationLevel: "all",
    // Else each session keeps the memory of its largest run: 2 to 3 GB for every new shape of a model of 135 M parameters.
    enableCpuMemArena: false,
    enableMemPattern: false,
    logSeverityLevel: 3,
    extra: { session: { intra_op: { allow_spinning: spinning ? "1" : "0" } } },
  });
  const own: Record<string, TensorData> = {}; // made at the first run that needs them
  const wrap = (data: TensorData, shape: readonly number[]) =>
    data instanceof Int32Array ? new ort.Tensor("int32", data, shape) : new ort.Tensor("float32", data, shape);

  return {
    flops: graph.flops,
    async run(feeds, into = {}) {
      const inputs: Record<string, Ort.Tensor> = {};
      for (const { name, shape } of graph.inputs) {
        const data = feeds[name];
        if (data?.length !== size(shape))
          throw new ShapeError(`${graph.name}: input "${name}"`, `[${shape.join(", ")}]`, [data?.length ?? "nothing"]);
        inputs[name] = wrap(data, shape);
      }
      const results: Record<string, TensorData> = {};
      const fetches: Record<string, Ort.Tensor> = {};
      for (const [name, { shape, dtype }] of graph.outputs) {
        if (!into[name]) own[name] ??= new (dtype === "int32" ? Int32Array : Float32Array)(size(shape));
        const buffer = (into[name] ?? own[name])!;
        results[name] = buffer;
        fetches[name] = wrap(buffer, shape);
      }
      await session.run(inputs, fetches);
      return results;
    },
    release: () => session.release(),
  };
}

/** Sessions that a cache keeps. */
const MAX_SESSIONS = 24;

/** Sessions by key, typically a batch shape: each graph is built and compiled once, and again when it has not been asked for in a long time. */
export class SessionCache {
  /** The one that was asked for last comes last. */
  private readonly sessions = new Map<string, Promise<Session>>();

  private readonly options: SessionOptions;

  constructor(options: SessionOptions = {}) {
    this.options = options;
  }

  /** A session that is good until {@link MAX_SESSIONS} others have been asked for. */
  async get(key: string, build: () => Graph): Promise<Session> {
    const session = this.sessions.get(key) ?? compile(build(), this.options);
    this.sessions.delete(key);
    this.sessions.set(key, session);
    const [oldest, ...others] = this.sessions.keys();
    if (others.length >= MAX_SESSIONS) {
      const old = this.sessions.get(oldest!)!;
      this.sessions.delete(oldest!);
      await (await old).release();
    }
    return session;
  }

  async release(): Promise<void> {
    const all = [...this.sessions.values()];
    this.sessions.clear();
    for (const session of all) await (await session).release();
  }
}
