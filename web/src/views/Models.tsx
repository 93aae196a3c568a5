/** What is served: sizes, whether masks were trained, what they cost; and more of them, where the server takes that. */
import { useState } from "preact/hooks";
import { add, addFailure, adding } from "../adding.ts";
import type { ServedModel } from "../api.ts";
import { bytes, count, percent } from "../format.ts";
import { Icon } from "../icons.tsx";
import { Commands, Failure } from "../parts.tsx";
import { chooseModel, models, serviceState } from "../session.ts";
import { useStore } from "../store.ts";

export function Models({ model: chosen }: { model: ServedModel }) {
  const served = useStore(models);
  const list = served.state === "ready" ? served.value : [];
  const state = useStore(serviceState);
  return (
    <div class="page">
      <ul class="models">
        {list.map((model) => (
          <ModelCard key={model.id} model={model} isChosen={model.id === chosen.id} />
        ))}
      </ul>
      {state?.allowsModels ? <AddModel /> : state && <HowToAdd />}
    </div>
  );
}

function ModelCard({ model, isChosen }: { model: ServedModel; isChosen: boolean }) {
  const { id, isTrained, numLayers, dFfn, tFfn, contextLength, numParameters, fileBytes, memoryBytes } = model;
  const { dense, subnetwork } = memoryBytes;
  const keeps = tFfn === dFfn ? "all channels, unless a share is asked for" : `${percent(tFfn / dFfn)} of the FFN`;
  return (
    <li class="card model-card">
      <div class="task-head">
        <h2>{id}</h2>
        <Tag model={model} />
      </div>
      <dl class="sizes">
        <dt>Size</dt>
        <dd>
          {count(numParameters / 1e6)} M parameters, {bytes(fileBytes)} on disk
        </dd>
        <dt>Memory</dt>
        <dd>
          about {bytes(dense)}
          {subnetwork < dense && `, a sub-network ${bytes(subnetwork)}`}
        </dd>
        <dt>Layers</dt>
        <dd>
          {numLayers} of {count(dFfn)} channels
        </dd>
        <dt>Keeps</dt>
        <dd>{keeps}</dd>
        <dt>Reads</dt>
        <dd>{count(contextLength)} tokens</dd>
      </dl>
      {model.quality && <QualityTable dFfn={dFfn} quality={model.quality} isTrained={isTrained} />}
      <button type="button" class="button" disabled={isChosen} onClick={() => chooseModel(id)}>
        {isChosen ? (
          <>
            <Icon name="done" /> In use
          </>
        ) : (
          "Use"
        )}
      </button>
    </li>
  );
}

/** What is known of masks that are made for prompts. */
function Tag({ model: { isTrained, quality, dFfn } }: { model: ServedModel }) {
  const row = quality?.rows.find(({ source, tFfn }) => source === "griffin" && tFfn / dFfn < 0.8);
  const untrained = row
    ? `untrained masks: ${row.loss.toFixed(2)} nats lost at ${percent(row.tFfn / dFfn)}`
    : "untrained masks, not measured";
  const text = isTrained ? "trained masks" : untrained;
  return <span class={`tag ${isTrained ? "trained" : ""}`}>{text}</span>;
}

function QualityTable({
  dFfn,
  quality: { prompts, tokens, rows },
  isTrained,
}: {
  dFfn: number;
  quality: NonNullable<ServedModel["quality"]>;
  isTrained: boolean;
}) {
  return (
    <details>
      <summary>What masks without training cost it</summary>
      <p class="note">
        Nats that a token of its own answers loses, and tokens that stay the likeliest: {prompts} prompts, {tokens}{" "}
        tokens.
        {isTrained && " Its trained masks are others."}
      </p>
      <table class="quality">
        <thead>
          <tr>
            <th scope="col">Keep</th>
            <th scope="col">By</th>
            <th scope="col">Nats lost</th>
            <th scope="col">Agree</th>
          </tr>
        </thead>
        <tbody>
          {rows.map(({ source, tFfn, loss, agreement }) => (
            <tr key={`${source} ${tFfn}`}>
              <th scope="row">{percent(tFfn / dFfn)}</th>
              <td>{source}</td>
              <td>{loss.toFixed(2)}</td>
              <td>{percent(agreement)}</td>
            </tr>
          ))}
        </tbody>
      </table>
    </details>
  );
}

const stageWords = { download: "Downloading", import: "Importing", measure: "Measuring what masks cost" } as const;

function AddModel() {
  const [name, setName] = useState("");
  const now = useStore(adding);
  const failure = useStore(addFailure);
  const start = async (event?: Event) => {
    event?.preventDefault();
    if (await add(name.trim())) setName("");
  };
  return (
    <section class="card" aria-labelledby="add-title">
      <h2 id="add-title">Add a model</h2>
      <form class="form-row" onSubmit={start}>
        <label class="field wide">
          <span>A bundle's folder on the server, or OWNER/NAME on the Hugging Face Hub</span>
          <input
            required
            value={name}
            disabled={now !== undefined}
            onInput={(event) => setName(event.currentTarget.value)}
          />
        </label>
        {now ? (
          <button type="button" class="button" onClick={() => now.abort.abort()}>
            <Icon name="stop" /> Stop
          </button>
        ) : (
          <button type="submit" class="button primary" disabled={!name.trim()}>
            <Icon name="plus" /> Add
          </button>
        )}
      </form>
      {now && <AddProgress {...now} />}
      {failure && <Failure error={failure.error} retry={() => void add(failure.name)} />}
      <p class="note">
        What is downloaded stays on the server's machine; stopped, it goes on from there the next time. Of a checkpoint
        or a GGUF file on that machine <code>ifprune import</code> makes a bundle.
      </p>
    </section>
  );
}

function AddProgress({
  name,
  progress,
}: {
  name: string;
  progress?: { stage: keyof typeof stageWords; done: number; total: number };
}) {
  const { stage, done, total } = progress ?? {};
  const label = stage ? `${stageWords[stage]}: ${name}` : `Adding ${name}`;
  const isBytes = stage === "download" || stage === "import";
  return (
    <div class="add-progress">
      <p role="status">{label}</p>
      <progress aria-label={label} value={stage && done} max={total} />
      {stage && (
        <p class="facts">
          {isBytes ? `${bytes(done!)} of ${bytes(total!)}` : `${count(done!)} of ${count(total!)} steps`}
        </p>
      )}
    </div>
  );
}

const commands: [string, string][] = [
  ["Bring one from the Hugging Face Hub", "ifprune pull HuggingFaceTB/SmolLM2-135M-Instruct"],
  ["Make a bundle of a checkpoint or a GGUF file", "ifprune import model.gguf my-model"],
  ["Serve several", "ifprune serve default HuggingFaceTB/SmolLM2-135M-Instruct ./my-model"],
  ["Let this page add them", "ifprune serve --allow-models"],
];

/** Adding is for whoever may use the server's disk and network: it is off unless the server was told. */
function HowToAdd() {
  return (
    <section class="card" aria-labelledby="add-title">
      <h2 id="add-title">More models</h2>
      <p class="note">This server adds none while it runs. On its machine:</p>
      <Commands commands={commands} />
    </section>
  );
}
