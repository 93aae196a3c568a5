/** What the page asks beyond OpenAI's API: masks, tasks and the state of the server. Shapes in `pageApi.ts`. */
import { Hono } from "hono";
import type { Mask } from "../../mask/mask.ts";
import { maskToJson } from "../../mask/maskFile.ts";
import { taskName } from "../service.ts";
import { ApiError, invalid } from "./apiErrors.ts";
import type { Env } from "./context.ts";
import { budgetOf, servedModel, storedMask } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import type { PageMask, StoredMask } from "./pageApi.ts";
import { parseMask, parseTask } from "./schemas.ts";

export function pageRoutes(): Hono<Env> {
  const app = new Hono<Env>();
  app.get("/models", (c) => c.json(c.var.service.models()));
  app.get("/state", (c) => c.json(c.var.service.state()));

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
    if (!taskName.test(name))
      throw invalid("name", "wanted up to 64 letters, digits, _ and -, a letter or digit first.");
    const body = parseTask(await readJsonBody(c.req.raw));
    const served = servedModel(c.var.service, model);
    return c.json(await c.var.service.saveTask(served.id, name, body.instruction, budgetOf(served, body)));
  });
  app.delete("/tasks/:model/:name", (c) => {
    const { model, name } = c.req.param();
    savedTask(c.var.service, model, name);
    c.var.service.deleteTask(model, name);
    return c.body(null, 204);
  });
  return app;
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
