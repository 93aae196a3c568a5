/** The package that runs graphs. A file of its own, as programs that check types of libraries may not have it. */
import type * as Ort from "onnxruntime-node";
import { loadPeer } from "../package.ts";

/**
 * ONNX Runtime, without its telemetry: on Linux and macOS it writes a device's number into the user's cache and sends to Microsoft what is run, unless the environment says no
 * when it starts. Whoever sets the variable decides.
 *
 * @throws as `loadPeer`
 */
export function loadOnnxRuntime(): Promise<typeof Ort> {
  process.env.ORT_DISABLE_TELEMETRY ??= "1";
  return loadPeer("onnxruntime-node", "ONNX Runtime", () => import("onnxruntime-node"));
}
