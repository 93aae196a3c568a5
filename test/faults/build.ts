/** Opens sub-networks, each twice, so that it is built and then found: `build.ts ROOT NUMBER…`. */
import { openBundle, openNumbered } from "./subnetworks.ts";

const [root, ...numbers] = process.argv.slice(2) as [string, ...string[]];
using bundle = openBundle();
for (const number of numbers) for (let time = 0; time < 2; time++) await openNumbered(bundle, Number(number), root);
