/** What Prometheus reads. */
import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { FORMS, type Form } from "../../bundle/formOptions.ts";
import type { GenerationEvent, InferenceService, ServiceState } from "../service.ts";

export class Metrics {
  readonly #registry = new Registry();
  readonly #requests = this.#counter("requests", "Requests answered.", ["route", "status"]);
  readonly #masks = this.#counter("masks", "Answers by where their sub-network was: loaded, disk or cold.", [
    "from",
    "source",
  ]);
  readonly #forms = this.#counter("forms", "Answers by the form in which their mask was run, and why in that.", [
    "form",
    "reason",
  ]);
  readonly #stages = this.#counter("stage_seconds", "Time of answers, by form and stage.", ["form", "stage"]);
  readonly #promptTokens = this.#counter("prompt_tokens", "Tokens read.", []);
  readonly #firstToken = this.#histogram(
    "time_to_first_token_seconds",
    "From the request to the first text of its answer.",
    [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100],
  );
  readonly #tokens = this.#histogram("completion_tokens", "Tokens of an answer.", [1, 4, 16, 64, 256, 1024, 4096]);

  constructor(service: InferenceService) {
    const gauge = (name: string, help: string, read: (state: ServiceState) => number) =>
      new Gauge({
        name,
        help,
        registers: [this.#registry],
        collect() {
          this.set(read(service.state()));
        },
      });
    gauge("ifprune_running", "Requests that run.", (state) => state.running);
    gauge("ifprune_queued", "Requests that wait.", (state) => state.queued);
    new Gauge({
      name: "ifprune_subnetworks",
      help: "Sub-networks in memory; of the resident form, masks that have caches.",
      labelNames: ["form"],
      registers: [this.#registry],
      collect() {
        const loaded = service.state().subnetworks;
        for (const form of FORMS) this.set({ form }, loaded.filter((one) => one.form === form).length);
      },
    });
    gauge("ifprune_subnetwork_bytes", "Memory of sub-networks.", (state) => state.memoryBytes);
    gauge("ifprune_memory_limit_bytes", "Most memory of sub-networks.", (state) => state.memoryLimit);
    gauge("process_resident_memory_bytes", "Memory of the process.", () => process.memoryUsage.rss());
    // Garbage that waits for its collection is in this part of it, which therefore comes and goes.
    gauge("nodejs_heap_size_total_bytes", "Memory of JavaScript.", () => process.memoryUsage().heapTotal);
  }

  request(route: string, status: number): void {
    this.#requests.inc({ route, status });
  }

  /** Measures an answer under way, from now on. */
  async *measured(events: AsyncGenerator<GenerationEvent, void, void>): AsyncGenerator<GenerationEvent, void, void> {
    const start = performance.now();
    let hasText = false;
    let form: Form = "gathered";
    for await (const event of events) {
      if (event.type === "start") {
        this.#masks.inc({ from: event.mask.from, source: event.mask.source });
        form = event.mask.form;
        this.#forms.inc({ form, reason: event.mask.formReason });
        this.#promptTokens.inc(event.promptTokens);
      } else if (event.type === "end") {
        this.#tokens.observe(event.completionTokens);
        for (const [stage, ms] of Object.entries(event.ms)) this.#stages.inc({ form, stage }, ms / 1000);
      } else if (event.type === "text" && !hasText) {
        hasText = true;
        this.#firstToken.observe((performance.now() - start) / 1000);
      }
      yield event;
    }
  }

  async response(): Promise<Response> {
    return new Response(await this.#registry.metrics(), { headers: { "content-type": this.#registry.contentType } });
  }

  #counter<const T extends string>(name: string, help: string, labelNames: readonly T[]): Counter<T> {
    return new Counter({ name: `ifprune_${name}_total`, help, labelNames, registers: [this.#registry] });
  }

  #histogram(name: string, help: string, buckets: number[]): Histogram {
    return new Histogram({ name: `ifprune_${name}`, help, buckets, registers: [this.#registry] });
  }
}
