/** Compiles a graph, in a process or a thread of its own. */
import { Graph } from "../../src/graph/graph.ts";
import { compile } from "../../src/graph/session.ts";

const graph = new Graph("identity");
graph.output("y", graph.input("x", [3]));
await (await compile(graph, { threads: 1 })).release();
