/** Jobs that make smaller models for one task, where the server was told to allow them. Shapes in `pageApi.ts`. */
import { Hono } from "hono";
import { InputError } from "../../errors.ts";
import type { SpecializeJob } from "../../specialize/jobState.ts";
import type { SpecializeJobs } from "../../specialize/jobs.ts";
import { ApiError, invalid } from "./apiErrors.ts";
import type { Env } from "./context.ts";
import { servedModel } from "./generation.ts";
import { readJsonBody } from "./limits.ts";
import { pageModel } from "./pageRoutes.ts";
import { parseSpecialize } from "./schemas.ts";

type Asking = { var: Env["Variables"] };

export function specializeRoutes(): Hono<Env> {
  const app = new Hono<Env>();
  app.get("/", (c) => c.json(allowed(c).list() satisfies SpecializeJob[]));
  app.post("/", async (c) => {
    const jobs = allowed(c);
    const {
      prompts,
      examples,
      max_loss: maxLoss,
      max_tokens: maxTokens,
      ...body
    } = parseSpecialize(await readJsonBody(c.req.raw));
    const { service, entry } = c.var;
    const { id, isTrained, location } = servedModel(service, body.model);
    entry.model = id;
    if (isTrained)
      throw invalid(
        "model",
        `wanted a dense model, got "${id}", whose channels were trained under masks. Take the one that it was made from.`,
      );
    if (service.models().some((model) => model.id === body.name))
      throw invalid("name", `wanted a new name, got "${body.name}", a model that is served.`);
    const rows = prompts !== undefined ? "prompts" : examples !== undefined ? "examples" : undefined;
    jobs.begin({ ...body, rows, maxLoss, maxTokens }, location, prompts ?? examples);
    return c.json(found(jobs, body.name), 201);
  });
  app.post("/:name/go-on", (c) => {
    const jobs = allowed(c);
    const { name } = found(jobs, c.req.param("name")).asked;
    jobs.goOn(name);
    return c.json(found(jobs, name));
  });
  app.post("/:name/stop", async (c) => {
    const jobs = allowed(c);
    const { name } = found(jobs, c.req.param("name")).asked;
    await jobs.stop(name);
    return c.json(found(jobs, name));
  });
  app.post("/:name/serve", async (c) => {
    const { service } = c.var;
    const jobs = allowed(c);
    const { asked, state } = found(jobs, c.req.param("name"));
    const { name } = asked;
    if (state !== "done") throw new InputError(`specialize: wanted a job that is done, got "${name}", which is not.`);
    const isServed = service.models().some(({ id }) => id === name);
    return c.json(pageModel(c, isServed ? servedModel(service, name) : await service.addModel(jobs.out(name))));
  });
  app.delete("/:name", (c) => {
    const jobs = allowed(c);
    const { name } = found(jobs, c.req.param("name")).asked;
    if (c.var.service.models().some(({ id }) => id === name))
      throw new InputError(`specialize: wanted a job whose model is not served, got "${name}", which is.`);
    jobs.remove(name);
    return c.body(null, 204);
  });
  return app;
}

/** @throws {ApiError} if the server does no jobs */
function allowed({ var: { jobs } }: Asking): SpecializeJobs {
  if (jobs) return jobs;
  throw new ApiError(403, "specialize_not_allowed", "This server makes no models. Start it with --allow-specialize.", {
    type: "permission_error",
  });
}

/** @throws {ApiError} if there is none of the name */
function found(jobs: SpecializeJobs, name: string): SpecializeJob {
  const job = jobs.list().find(({ asked }) => asked.name === name);
  if (!job) throw new ApiError(404, "job_not_found", "The job does not exist.", { param: "name" });
  return job;
}
