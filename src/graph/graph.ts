/**
 * A graph under construction: named tensors with known shapes, ONNX nodes, and the tape from which gradients are taken.
 * Shapes are static: a graph is built for one batch shape. Knows no models.
 */
import { createHash } from "node:crypto";
import { ShapeError } from "../errors.ts";
import { type Attribute, type DType, encodeOnnx, type OnnxNode, type OnnxValue } from "./onnx.ts";

/** A value in a graph. Compared by identity. */
export interface Tensor {
  readonly graph: Graph;
  readonly name: string;
  readonly shape: readonly number[];
  readonly dtype: DType;
}

/** One differentiable step: how `output` came from `inputs`, and how a gradient flows back. */
export interface TapeEntry {
  op: string;
  inputs: readonly Tensor[];
  output: Tensor;
  /**
   * @param grad gradient of the scalar with respect to `output`
   * @param needs per input, whether its gradient is wanted; entries for unwanted inputs are ignored
   */
  backward(grad: Tensor, needs: readonly boolean[]): readonly (Tensor | undefined)[];
}

export type ConstantData = Float32Array | Int32Array | BigInt64Array;
const DTYPE_OF = new Map<unknown, DType>([
  [Float32Array, "float32"],
  [Int32Array, "int32"],
  [BigInt64Array, "int64"],
]);

export class Graph {
  readonly inputs: Tensor[] = [];
  readonly outputs = new Map<string, Tensor>();
  readonly tape: TapeEntry[] = [];
  /** Multiply-add work of all matrix products so far, as 2·m·n·k each. */
  flops = 0;
  private readonly nodes: OnnxNode[] = [];
  private readonly initializers: (OnnxValue & { bytes: Uint8Array })[] = [];
  private readonly constants = new Map<string, Tensor>();
  private readonly recorded = new Set<Tensor>();
  private counter = 0;

  constructor(readonly name: string) {}

  /** Declares a value that is fed at every run. */
  input(name: string, shape: readonly number[], dtype: DType = "float32"): Tensor {
    if (this.inputs.some((other) => other.name === name)) throw new Error(`internal: input "${name}" declared twice`);
    const tensor = this.tensor(name, shape, dtype);
    this.inputs.push(tensor);
    return tensor;
  }

  /** Names a value that every run returns. */
  output(name: string, tensor: Tensor): void {
    if (this.outputs.has(name)) throw new Error(`internal: output "${name}" declared twice`);
    this.outputs.set(name, this.emit("Identity", [tensor], tensor.shape, {}, tensor.dtype));
  }

  /** A value baked into the graph; equal constants are stored once. */
  constant(data: ConstantData, shape: readonly number[]): Tensor {
    const dtype = DTYPE_OF.get(data.constructor)!;
    if (data.length !== size(shape)) throw new ShapeError("constant", `${size(shape)} values`, [data.length]);
    const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength).slice();
    const key = `${dtype}[${shape}]${bytes.length <= 64 ? bytes : createHash("sha256").update(bytes).digest("hex")}`;
    const known = this.constants.get(key);
    if (known) return known;
    const tensor = this.tensor(`const_${this.counter++}`, shape, dtype);
    this.initializers.push({ name: tensor.name, dtype, shape, bytes });
    this.constants.set(key, tensor);
    return tensor;
  }

  scalar(value: number): Tensor {
    return this.constant(Float32Array.of(value), []);
  }

  /** One ONNX node with one result. The caller vouches for the shape; `nodes.ts` has the checked forms. */
  emit(
    op: string,
    inputs: readonly Tensor[],
    shape: readonly number[],
    attributes: Readonly<Record<string, Attribute>> = {},
    dtype: DType = "float32",
    domain: OnnxNode["domain"] = "",
  ): Tensor {
    return this.emitMany(op, inputs, [{ shape, dtype }], attributes, domain)[0]!;
  }

  /** One ONNX node with several results; `null` leaves an optional result out. */
  emitMany(
    op: string,
    inputs: readonly Tensor[],
    results: readonly ({ shape: readonly number[]; dtype?: DType } | null)[],
    attributes: Readonly<Record<string, Attribute>> = {},
    domain: OnnxNode["domain"] = "",
  ): Tensor[] {
    for (const input of inputs) {
      if (input.graph !== this)
        throw new Error(`internal: ${op} mixes tensors of graphs "${this.name}" and "${input.graph.name}"`);
    }
    const outputs = results.map((r) =>
      r ? this.tensor(`${op}_${this.counter++}`, r.shape, r.dtype ?? "float32") : null,
    );
    this.nodes.push({
      op,
      domain,
      inputs: inputs.map((t) => t.name),
      outputs: outputs.map((t) => t?.name ?? ""),
      attributes,
    });
    return outputs.filter((t) => t !== null);
  }

  /**
   * Puts a differentiable step on the tape and returns its output, a tensor of its own: a gradient that reaches a tensor by two entries
   * of the tape counts twice, so the output is neither one of the inputs nor what another step returned.
   */
  record(entry: TapeEntry): Tensor {
    if (entry.inputs.includes(entry.output) || this.recorded.has(entry.output))
      throw new Error(
        `internal: ${entry.op} returns "${entry.output.name}", which is an input or another step's output`,
      );
    this.recorded.add(entry.output);
    this.tape.push(entry);
    return entry.output;
  }

  /** The graph as an ONNX model file. */
  encode(): Uint8Array {
    const names = new Map([...this.outputs].map(([name, tensor]) => [tensor.name, name]));
    const rename = (name: string) => names.get(name) ?? name;
    return encodeOnnx({
      name: this.name,
      nodes: this.nodes.map((node) => ({
        ...node,
        outputs: node.outputs.map(rename),
        inputs: node.inputs.map(rename),
      })),
      inputs: this.inputs,
      outputs: [...this.outputs].map(([name, { dtype, shape }]) => ({ name, dtype, shape })),
      initializers: this.initializers,
    });
  }

  private tensor(name: string, shape: readonly number[], dtype: DType): Tensor {
    if (!shape.every((n) => Number.isInteger(n) && n > 0)) throw new ShapeError(name, "positive dimensions", shape);
    return { graph: this, name, shape, dtype };
  }
}

/** Number of elements. */
export function size(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
