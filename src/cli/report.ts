import { join } from "node:path";
import { writeReport } from "../report/report.ts";
import { checkOut } from "./options.ts";

/** `ifprune report` */
export function reportAction(inputs: string[], { out }: { out: string }): void {
  checkOut(out, [...inputs, ...inputs.map((path) => join(path, "metrics.jsonl"))]);
  writeReport(inputs, out);
  process.stderr.write(`${out}\n`);
}
