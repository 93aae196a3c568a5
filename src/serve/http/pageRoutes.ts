/** What the page asks beyond OpenAI's API: models, masks, tasks and the state of the server. Shapes in `pageApi.ts`. */
import { isAbsolute } from "node:path";
import { Hono } from "hono";
import { FileError } from "../../errors.ts";
import type { Mask } from "../../mask/mask.ts";
import { maskToJson } from "../../mask/maskFile.ts";
import { isNoPlace } from "../../refusals.ts";
import { EventBuffer } from "../eventBuffer.ts";
import { type AddStage, type ServedModel, taskName, taskNameWords } from "../service.ts";
import { ApiError, invalid } from "./apiErrors.ts";
import type { Env, Handled } from "./context.ts";
import { budgetOf, gone, servedModel, storedMask, streamed } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import type { AddEvent, PageMask, PageModel, PageState, StoredMask } from "./pageApi.ts";
import { parseAdd, parseMask, parseTask } from "./schemas.ts";

export function pageRoutes(): Hono<Env> {
  const app = new Hono<Env>();
  app.get("/models", (c) => c.json(c.var.service.models().map((model) => pageModel(c, model)) satisfies PageModel[]));
  app.post("/models", async (c) => {
    if (!c.var.allowModels)
      throw new ApiError(403, "models_not_allowed", "This server adds no models. Start it with --allow-models.", {
        type: "permission_error",
      });
    const { name } = parseAdd(await readJsonBody(c.req.raw));
    const stop = new AbortController();
    return streamed(c, adding(c, name, AbortSignal.any([c.req.raw.signal, stop.signal])), stop);
  });
  app.get("/state", (c) => {
    const { service, allowModels: allowsModels, jobs } = c.var;
    const models = service.models().map(({ id }) => id);
    const state: PageState = { ...service.state(), models, allowsModels, allowsSpecialize: jobs !== undefined };
    return c.json(state);
  });

  app.post("/mask", async (c) => {
    const body = parseMask(await readJsonBody(c.req.raw));
    const model = servedModel(c.var.service, body.model);
    const how = { ...budgetOf(model, body), signal: c.req.raw.signal };
    const { info, mask } = await c.var.service.mask(model.id, body.instruction, how);
    return c.json({ info, ...channels(mask) } satisfies PageMask);
  });
  const stored = (c: { var: Env["Variables"] }, model: string, id: string): Mask =>
    storedMask(c.var.service, servedModel(c.var.service, model).id, id);
  app.get("/masks/:model/:id", (c) => {
    const { model, id } = c.req.param();
    const mask = stored(c, model, id);
    const { tFfn, dFfn } = mask;
    return c.json({ info: { id, tFfn, dFfn }, ...channels(mask) } satisfies StoredMask);
  });
  app.get("/masks/:model/:id/file", (c) => {
    const { model, id } = c.req.param();
    const json = maskToJson(stored(c, model, id));
    c.header("content-disposition", 'attachment; filename="mask.json"');
    return c.json(json);
  });

  app.get("/tasks/:model", (c) => c.json(c.var.service.tasks(servedModel(c.var.service, c.req.param("model")).id)));
  app.get("/tasks/:model/:name", (c) => c.json(savedTask(c.var.service, c.req.param("model"), c.req.param("name"))));
  app.put("/tasks/:model/:name", async (c) => {
    const { model, name } = c.req.param();
    if (!taskName.test(name)) throw invalid("name", `wanted ${taskNameWords}.`);
    const body = parseTask(await readJsonBody(c.req.raw));
    const served = servedModel(c.var.service, model);
    const { instruction, examples } = body;
    return c.json(await c.var.service.saveTask(served.id, name, instruction, { ...budgetOf(served, body), examples }));
  });
  app.delete("/tasks/:model/:name", (c) => {
    const { model, name } = c.req.param();
    savedTask(c.var.service, model, name);
    c.var.service.deleteTask(model, name);
    return c.body(null, 204);
  });
  return app;
}

/** Other machines are not told where files are. */
export function pageModel(
  { var: { isLocal } }: { var: Env["Variables"] },
  { location, ...model }: ServedModel,
): PageModel {
  return { ...model, ...((isLocal || !isAbsolute(location)) && { location }) };
}

/** Adds a model; its progress a few times a second. */
async function* adding(c: Handled, name: string, signal: AbortSignal): AsyncGenerator<AddEvent, void, void> {
  const events = new EventBuffer<AddEvent>();
  let last = { stage: "", at: 0 };
  const onProgress = (stage: AddStage, done: number, total: number) => {
    const now = performance.now();
    if (stage === last.stage && now - last.at < progressMs && done < total) return;
    last = { stage, at: now };
    events.push({ stage, done, total });
  };
  const stop = new AbortController();
  const added = c.var.service.addModel(name, { signal: AbortSignal.any([signal, stop.signal]), onProgress }).then(
    (model) => {
      c.var.entry.model = model.id;
      events.push({ model: pageModel(c, model) });
      events.end();
    },
    (error) => events.fail(signal.aborted ? gone(error) : toldFully(error)),
  );
  try {
    yield* events.read();
  } finally {
    stop.abort();
    await added;
  }
}

const progressMs = 200;

/** Who may add models named the file, and is told what is wrong with it. */
function toldFully(error: unknown): unknown {
  if (!(error instanceof FileError) || isNoPlace(error.cause)) return error;
  return new ApiError(400, "model_unavailable", error.message, { param: "name", cause: error });
}

function savedTask(service: Env["Variables"]["service"], model: string, name: string) {
  const task = service.tasks(servedModel(service, model).id).find((one) => one.name === name);
  if (!task) throw new ApiError(404, "task_not_found", "The task does not exist.", { param: "name" });
  return task;
}

function channels({ dFfn, layers, lambda }: Mask): Pick<PageMask, "layers" | "lambda"> {
  const bits = layers.map((kept) => {
    const bytes = Buffer.alloc(Math.ceil(dFfn / 8));
    for (const channel of kept) bytes[channel >> 3]! |= 1 << (channel & 7);
    return bytes.toString("base64");
  });
  const weights = lambda?.map((row) => Buffer.from(row.map((weight) => Math.ceil(255 * weight))).toString("base64"));
  return { layers: bits, ...(weights && { lambda: weights }) };
}
