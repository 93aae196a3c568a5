/** Opens a sub-network: `build.ts ROOT NUMBER`. */
import { openBundle, openNumbered } from "./subnetworks.ts";

const [root, number] = process.argv.slice(2) as [string, string];
using bundle = openBundle();
await openNumbered(bundle, Number(number), root);
