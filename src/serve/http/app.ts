/** The whole HTTP side as one function from a request to a response; `server.ts` puts it on a socket. */
import { Hono } from "hono";
import { matchedRoutes } from "hono/route";
import type { SpecializeJobs } from "../../specialize/jobs.ts";
import type { InferenceService, MaskRequest, ServedModel } from "../service.ts";
import { ApiError } from "./apiErrors.ts";
import { chat } from "./chat.ts";
import { completions } from "./completions.ts";
import type { Env, LogEntry } from "./context.ts";
import { embeddings } from "./embeddings.ts";
import { noteError, servedModel } from "./generation.ts";
import { Metrics } from "./metrics.ts";
import { ollamaRoutes } from "./ollama.ts";
import { type PageFiles, pageResponse } from "./page.ts";
import { pageRoutes } from "./pageRoutes.ts";
import { responses } from "./responses.ts";
import { authorize, guard, isLoopback, responseHeaders, type SecurityOptions } from "./security.ts";
import { specializeRoutes } from "./specializeRoutes.ts";

/** Who may ask, what is logged, and the page. */
export interface AppOptions extends SecurityOptions {
  /** Takes a line of the log once a response has ended. */
  log?: ((entry: LogEntry) => void) | undefined;
  /** Whether prompts are in the log. */
  logPrompts?: boolean | undefined;
  page?: PageFiles | undefined;
  /** Of requests that name none. Default: the one that their prompt asks for. */
  mask?: MaskRequest | undefined;
  /** Whether clients may have models added: from this machine's folders, or downloaded. Default: false. */
  allowModels?: boolean | undefined;
  /** Does the jobs of clients who have smaller models made for their tasks. Default: they may not. */
  jobs?: SpecializeJobs | undefined;
}

/** A web-standard handler: goes on a socket with {@link listen}, or into another server. */
export interface App {
  /** Answers a request. */
  readonly fetch: (request: Request) => Response | Promise<Response>;
}

/** Methods of each route, for what is asked with another one. */
const routes: Record<string, string> = {
  "/v1/models": "GET",
  "/v1/models/:id": "GET",
  "/v1/chat/completions": "POST",
  "/v1/completions": "POST",
  "/v1/responses": "POST",
  "/v1/embeddings": "POST",
  "/api/version": "GET",
  "/api/tags": "GET",
  "/api/ps": "GET",
  "/api/show": "POST",
  "/api/chat": "POST",
  "/api/generate": "POST",
  "/api/embed": "POST",
  "/health": "GET",
  "/metrics": "GET",
  "/ifprune/models": "GET, POST",
  "/ifprune/state": "GET",
  "/ifprune/mask": "POST",
  "/ifprune/masks/:model/:id": "GET",
  "/ifprune/masks/:model/:id/file": "GET",
  "/ifprune/specialize": "GET, POST",
  "/ifprune/specialize/:name": "DELETE",
  "/ifprune/specialize/:name/go-on": "POST",
  "/ifprune/specialize/:name/stop": "POST",
  "/ifprune/specialize/:name/serve": "POST",
  "/ifprune/tasks/:model": "GET",
  "/ifprune/tasks/:model/:name": "GET, PUT, DELETE",
};

/** OpenAI's API over a service, Ollama's under `/api`, and our own routes under `/ifprune`. */
export function createApp(service: InferenceService, options: AppOptions = {}): App {
  const metrics = new Metrics(service);
  const page = options.page ?? new Map();
  const app = new Hono<Env>({ strict: false }); // a slash at the end of a path says nothing

  app.use(async (c, next) => {
    const start = performance.now();
    const entry: LogEntry = { time: new Date().toISOString(), method: c.req.method, route: "other", status: 0, ms: 0 };
    c.set("service", service);
    c.set("metrics", metrics);
    c.set("logPrompts", options.logPrompts ?? false);
    c.set("mask", options.mask ?? { kind: "auto" });
    c.set("allowModels", options.allowModels ?? false);
    c.set("jobs", options.jobs);
    c.set("isLocal", isLoopback(options.host ?? "127.0.0.1"));
    c.set("entry", entry);
    c.set("finish", () => {
      entry.ms = Math.round(performance.now() - start);
      metrics.request(entry.route, entry.status);
      options.log?.(entry);
    });
    const route = matchedRoutes(c).find(({ path }) => Object.hasOwn(routes, path))?.path;
    entry.route = route ?? (page.has(c.req.path) ? "page" : "other");
    await next();
    for (const [name, value] of Object.entries(responseHeaders)) c.res.headers.set(name, value);
    if (c.var.isStream) return;
    entry.status = c.res.status;
    c.var.finish();
  });
  app.use(guard(options));
  for (const path of ["/v1/*", "/api/*", "/ifprune/*", "/metrics"]) app.use(path, authorize(options));

  app.get("/v1/models", (c) => c.json({ object: "list", data: service.models().map(modelObject) }));
  app.get("/v1/models/:id", (c) => c.json(modelObject(servedModel(service, c.req.param("id")))));
  app.post("/v1/chat/completions", chat);
  app.post("/v1/completions", completions);
  app.post("/v1/responses", responses);
  app.post("/v1/embeddings", embeddings);
  app.route("/api", ollamaRoutes());
  app.route("/ifprune/specialize", specializeRoutes());
  app.route("/ifprune", pageRoutes());
  app.get("/health", (c) => {
    const faults = faultsOf(service.models());
    if (faults === undefined) return c.json({ status: "ok" });
    return c.json({ status: "degraded", faults }, Object.keys(faults).length < service.models().length ? 200 : 503);
  });
  app.get("/metrics", () => metrics.response());
  for (const [path, methods] of Object.entries(routes)) {
    app.all(path, () => {
      throw new ApiError(405, "method_not_allowed", `Wanted the method ${methods}.`, { headers: { allow: methods } });
    });
  }
  app.get("*", (c) => {
    const file = page.get(c.req.path);
    if (file) return pageResponse(file, c.req.raw);
    throw new ApiError(404, "not_found", "There is nothing here.");
  });
  app.notFound(() => {
    throw new ApiError(404, "not_found", "There is nothing here.");
  });
  app.onError((error, c) => {
    const told = noteError(c, error);
    for (const [name, value] of Object.entries(told.details.headers ?? {})) c.header(name, value);
    return c.json(c.req.path.startsWith("/api/") ? { error: told.message } : told.body, told.status); // as Ollama's
  });
  return app;
}

/** What is wrong with the models that do not answer. */
function faultsOf(models: readonly ServedModel[]): Record<string, string> | undefined {
  const faults = models.flatMap(({ id, fault }) => (fault === undefined ? [] : [[id, fault] as const]));
  return faults.length === 0 ? undefined : Object.fromEntries(faults);
}

/** OpenAI's four fields, and ours. */
function modelObject(model: ServedModel): object {
  const { id, created, contextLength, dFfn, tFfn, isTrained, hasTools, verifying, fault, formFlaw } = model;
  const shape = { context_length: contextLength, d_ffn: dFfn, t_ffn: tFfn };
  const ours = { ...shape, is_trained: isTrained, has_tools: hasTools, form_flaw: formFlaw, verifying, fault };
  return { id, object: "model", created, owned_by: "ifprune", ifprune: ours };
}
