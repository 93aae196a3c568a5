/** Builds the sub-networks of some masks of a bundle: `subnetworks.ts BUNDLE ROOT`. */
import { Bundle } from "../../src/bundle/bundle.ts";
import { openSubnetwork } from "../../src/bundle/subnetworkCache.ts";
import { masksOf } from "./masks.ts";

const [path, root] = process.argv.slice(2) as [string, string];
using bundle = new Bundle(path);
for (const mask of masksOf(bundle)) await openSubnetwork(bundle, mask, { root });
