import { availableParallelism } from "node:os";
import { measureBandwidth, mostReaders } from "../bundle/bandwidth.ts";
import type { Budget } from "../bundle/budget.ts";
import { estimate, type ModelBytes, readStoredModel } from "../bundle/estimate.ts";
import { availableBytes, byteSize } from "../bundle/memory.ts";
import { printJson } from "./options.ts";

interface Options extends Budget {
  context?: number;
  threads?: number;
  json?: boolean;
}

/** `ifprune estimate` */
export async function estimateAction(
  path: string,
  { keep, maxLoss, tFfn, context, threads: wanted = availableParallelism(), json }: Options,
): Promise<void> {
  const model = readStoredModel(path);
  const { config } = model;
  const { dense, subnetwork, resident, ...rest } = estimate(model, { keep, maxLoss, tFfn, contextLength: context });
  const available = availableBytes();
  const threads = Math.min(wanted, mostReaders());
  const bandwidth = await measureBandwidth(threads);
  const judged = (bytes: ModelBytes, predictor: number) => ({
    ...bytes,
    maxTokensPerSecond: bandwidth / bytes.perToken,
    fits: bytes.total + predictor <= available,
  });
  const columns = {
    dense: judged(dense, 0),
    subnetwork: judged(subnetwork, rest.predictor),
    ...(resident && { resident: judged(resident, rest.predictor) }),
  };
  if (json) return printJson({ ...rest, ...columns, available, bandwidth, threads });

  const { family, numLayers, width, ffnWidth } = config;
  const share = ((100 * rest.tFfn) / ffnWidth).toFixed(0);
  const row = (name: string, cell: (column: (typeof columns)["dense"]) => string) => [
    name,
    ...Object.values(columns).map(cell),
  ];
  const withPredictor = [subnetwork, ...(resident ? [resident] : [])];
  const rows = [
    ["", "dense", "sub-network", ...(resident ? ["resident"] : [])],
    row("attention, norms, embeddings", ({ shared }) => byteSize(shared)),
    row("FFN", ({ ffn }) => byteSize(ffn)),
    row("key/value cache", ({ kvCache }) => byteSize(kvCache)),
    row("compute buffers, about", ({ compute }) => byteSize(compute)),
    ...(dense.repacked > 0 ? [row("wider copies of weights (AMX)", ({ repacked }) => byteSize(repacked))] : []),
    ["predictor", "", ...withPredictor.map(() => (rest.predictor > 0 ? byteSize(rest.predictor) : "none"))],
    ["in all", byteSize(dense.total), ...withPredictor.map(({ total }) => byteSize(total + rest.predictor))],
    row("fits", ({ fits }) => (fits ? "yes" : "no")),
    row("read per token", ({ perToken }) => byteSize(perToken)),
    row("decode, at most", ({ maxTokensPerSecond }) => `${maxTokensPerSecond.toFixed(1)} tokens/s`),
  ];
  const table = rows.map(([name, ...cells]) => name!.padEnd(30) + cells.map((cell) => cell.padStart(18)).join(""));
  process.stdout.write(
    `${[
      `${family}, ${numLayers} layers, width ${width}; ${rest.tFfn} of ${ffnWidth} FFN channels (${share} %), ${rest.contextLength} tokens of context`,
      "",
      ...table,
      "",
      ...(resident
        ? [
            "Sub-networks take that each; resident masks share one model, and each that answers has a cache of its own.",
            "",
          ]
        : []),
      `Available: ${byteSize(available)}. Memory is read at ${byteSize(bandwidth)}/s by ${threads} thread${threads === 1 ? "" : "s"}.`,
    ].join("\n")}\n`,
  );
}
