/**
 * The part of the ONNX protobuf schema that we write, and its encoder. Field numbers are those of onnx.proto (IR version 10).
 * Every file made here opens in any ONNX tool.
 */
import protobuf from "protobufjs/light.js";

const IR_VERSION = 10;
const OPSET = 21;

/** Element types by their ONNX codes. */
const DTYPES = { float32: 1, int32: 6, int64: 7, bool: 9 } as const;
export type DType = keyof typeof DTYPES;

export type Attribute = number | readonly number[] | string | { readonly float: number };

const field = (id: number, type: string, repeated = false) => ({
  id,
  type,
  ...(repeated && { rule: "repeated" as const }),
});

const schema = protobuf.Root.fromJSON({
  nested: {
    ModelProto: {
      fields: {
        irVersion: field(1, "int64"),
        producerName: field(2, "string"),
        graph: field(7, "GraphProto"),
        opsetImport: field(8, "OperatorSetIdProto", true),
      },
    },
    OperatorSetIdProto: { fields: { domain: field(1, "string"), version: field(2, "int64") } },
    GraphProto: {
      fields: {
        node: field(1, "NodeProto", true),
        name: field(2, "string"),
        initializer: field(5, "TensorProto", true),
        input: field(11, "ValueInfoProto", true),
        output: field(12, "ValueInfoProto", true),
      },
    },
    NodeProto: {
      fields: {
        input: field(1, "string", true),
        output: field(2, "string", true),
        name: field(3, "string"),
        opType: field(4, "string"),
        attribute: field(5, "AttributeProto", true),
        domain: field(7, "string"),
      },
    },
    AttributeProto: {
      fields: {
        name: field(1, "string"),
        f: field(2, "float"),
        i: field(3, "int64"),
        s: field(4, "bytes"),
        ints: field(8, "int64", true),
        type: field(20, "int32"),
      },
    },
    TensorProto: {
      fields: {
        dims: field(1, "int64", true),
        dataType: field(2, "int32"),
        name: field(8, "string"),
        rawData: field(9, "bytes"),
      },
    },
    ValueInfoProto: { fields: { name: field(1, "string"), type: field(2, "TypeProto") } },
    TypeProto: { fields: { tensorType: field(1, "TypeTensor") } },
    TypeTensor: { fields: { elemType: field(1, "int32"), shape: field(2, "TensorShapeProto") } },
    TensorShapeProto: { fields: { dim: field(1, "Dimension", true) } },
    Dimension: { fields: { dimValue: field(1, "int64") } },
  },
});
const ModelProto = schema.lookupType("ModelProto");

export interface OnnxNode {
  op: string;
  domain: "" | "com.microsoft";
  inputs: readonly string[];
  outputs: readonly string[];
  attributes: Readonly<Record<string, Attribute>>;
}

export interface OnnxValue {
  name: string;
  dtype: DType;
  shape: readonly number[];
}

export interface OnnxGraph {
  name: string;
  nodes: readonly OnnxNode[];
  inputs: readonly OnnxValue[];
  outputs: readonly OnnxValue[];
  initializers: readonly (OnnxValue & { bytes: Uint8Array })[];
}

/** Serialises a graph as an ONNX model file. */
export function encodeOnnx(graph: OnnxGraph): Uint8Array {
  const message = ModelProto.create({
    irVersion: IR_VERSION,
    producerName: "ifprune",
    opsetImport: [
      { domain: "", version: OPSET },
      { domain: "com.microsoft", version: 1 },
    ],
    graph: {
      name: graph.name,
      node: graph.nodes.map((node, i) => ({
        name: `${node.op}_${i}`,
        opType: node.op,
        domain: node.domain,
        input: node.inputs,
        output: node.outputs,
        attribute: Object.entries(node.attributes).map(([name, value]) => ({ name, ...encodeAttribute(value) })),
      })),
      initializer: graph.initializers.map(({ name, dtype, shape, bytes }) => ({
        name,
        dataType: DTYPES[dtype],
        dims: shape,
        rawData: bytes,
      })),
      input: graph.inputs.map(encodeValue),
      output: graph.outputs.map(encodeValue),
    },
  });
  return ModelProto.encode(message).finish();
}

function encodeValue({ name, dtype, shape }: OnnxValue): object {
  const dim = shape.map((dimValue) => ({ dimValue }));
  return { name, type: { tensorType: { elemType: DTYPES[dtype], shape: { dim } } } };
}

/** A plain number is an ONNX int; floats are marked, since JavaScript cannot tell 1 from 1.0. */
function encodeAttribute(value: Attribute): object {
  if (typeof value === "number") return { type: 2, i: value };
  if (typeof value === "string") return { type: 3, s: new TextEncoder().encode(value) };
  if ("float" in value) return { type: 1, f: value.float };
  return { type: 7, ints: value };
}
