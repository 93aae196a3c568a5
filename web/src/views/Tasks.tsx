/** Saved masks of kinds of tasks: add, delete, take along, and how far they overlap. */
import { useState } from "preact/hooks";
import { deleteTask, getMaskFile, type SavedTask, type ServedModel, saveTask } from "../api.ts";
import { type Bits, decodeLayers, mean, overlapPerLayer } from "../channels.ts";
import { percent } from "../format.ts";
import { Icon } from "../icons.tsx";
import { maskLayers } from "../masks.ts";
import { CopyButton, DeleteButton, Empty, Failure, KeepChoice, MaskById, useLoaded } from "../parts.tsx";
import { loadTasks, tasks } from "../session.ts";
import { keptShare } from "../settings.ts";
import { useStore } from "../store.ts";

export function Tasks({ model }: { model: ServedModel }) {
  const saved = useStore(tasks);
  if (saved.state === "loading") {
    return (
      <p class="loading" role="status">
        Loading tasks …
      </p>
    );
  }
  if (saved.state === "failed") {
    return (
      <div class="centre">
        <Failure error={saved.error} retry={loadTasks} />
      </div>
    );
  }
  return (
    <div class="page">
      <NewTask model={model} />
      {saved.value.length === 0 ? (
        <Empty title="No tasks yet">
          <p>
            A task is an instruction whose mask you keep, for every prompt of that kind: choose it as the mask of a
            chat, send <code>"mask": "task:NAME"</code> to the API, or export its sub-network as a model of its own.
          </p>
        </Empty>
      ) : (
        <>
          <ul class="tasks">
            {saved.value.map((task) => (
              <TaskCard key={task.name} model={model} task={task} />
            ))}
          </ul>
          {saved.value.length > 1 && <OverlapMatrix model={model} saved={saved.value} />}
        </>
      )}
    </div>
  );
}

function NewTask({ model }: { model: ServedModel }) {
  const [name, setName] = useState("");
  const [instruction, setInstruction] = useState("");
  const [isSaving, setIsSaving] = useState(false);
  const saved = useStore(tasks);
  const isKnown = saved.state === "ready" && saved.value.some((task) => task.name === name.trim());
  const [error, setError] = useState<unknown>();
  const save = async (event?: Event) => {
    event?.preventDefault();
    setIsSaving(true);
    setError(undefined);
    try {
      await saveTask(model.id, name.trim(), { instruction: instruction.trim(), ...keptShare() });
      setName("");
      setInstruction("");
      await loadTasks();
    } catch (failure) {
      setError(failure);
    }
    setIsSaving(false);
  };
  return (
    <form class="task-form" onSubmit={save}>
      <label class="field">
        <span>Name</span>
        <input
          required
          pattern="[A-Za-z0-9][A-Za-z0-9_\-]*"
          title="letters, digits, _ and -"
          maxLength={64}
          value={name}
          onInput={(event) => setName(event.currentTarget.value)}
        />
      </label>
      <label class="field wide">
        <span>Instruction</span>
        <input required value={instruction} onInput={(event) => setInstruction(event.currentTarget.value)} />
      </label>
      <KeepChoice model={model} />
      <button type="submit" class="button primary" disabled={isSaving || !name.trim() || !instruction.trim()}>
        <Icon name="plus" /> {isSaving ? "Saving …" : isKnown ? "Replace task" : "Save task"}
      </button>
      {error !== undefined && <Failure error={error} retry={save} />}
    </form>
  );
}

function TaskCard({ model, task }: { model: ServedModel; task: SavedTask }) {
  const [error, setError] = useState<unknown>();
  const attempt = (action: () => Promise<void>) => async () => {
    setError(undefined);
    await action().catch(setError);
  };
  const remove = attempt(async () => {
    await deleteTask(model.id, task.name);
    await loadTasks();
  });
  const download = attempt(async () => {
    const address = URL.createObjectURL(await getMaskFile(model.id, task.maskId));
    Object.assign(document.createElement("a"), { href: address, download: "mask.json" }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000); // the download reads it after the click
  });
  return (
    <li class="card task">
      <div class="task-head">
        <div>
          <h2>{task.name}</h2>
          <p>{task.instruction}</p>
        </div>
        <DeleteButton what={`task ${task.name}`} onDelete={remove} />
      </div>
      <MaskById model={model.id} id={task.maskId} dFfn={model.dFfn} prompt={`task:${task.name}`} />
      <div class="task-export">
        <button type="button" class="button" onClick={download}>
          <Icon name="download" /> mask.json
        </button>
        <code>{exportCommand}</code>
        <CopyButton text={exportCommand} label="Copy" />
      </div>
      {error !== undefined && <Failure error={error} />}
    </li>
  );
}

/** The server tells no paths. */
const exportCommand = "ifprune export MODEL_FOLDER OUT --mask mask.json";

function OverlapMatrix({ model, saved }: { model: ServedModel; saved: SavedTask[] }) {
  const ids = saved.map(({ maskId }) => maskId);
  const masks = useLoaded(
    () => Promise.all(ids.map(async (id): Promise<Bits> => decodeLayers(await maskLayers(model.id, id)))),
    [model.id, ids.join(" ")],
  );
  return (
    <section class="card" aria-labelledby="overlap-title">
      <h2 id="overlap-title">Overlap of tasks</h2>
      <p class="note">
        Share of kept channels that two tasks have in common, mean over layers. Chance:{" "}
        {percent(model.tFfn / model.dFfn)}.
      </p>
      {masks.state === "failed" && <Failure error={masks.error} />}
      {masks.state === "ready" && masks.value.length === saved.length && (
        <div class="scroll">
          <table class="heat">
            <thead>
              <tr>
                <td />
                {saved.map(({ name }) => (
                  <th key={name} scope="col">
                    <span>{name}</span>
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {saved.map(({ name }, i) => (
                <tr key={name}>
                  <th scope="row">{name}</th>
                  {saved.map((other, j) => {
                    const share = mean(overlapPerLayer(masks.value[i]!, masks.value[j]!));
                    return (
                      <td key={other.name} class={share > 0.6 ? "strong" : ""} style={{ "--share": share }}>
                        {Math.round(share * 100)}
                      </td>
                    );
                  })}
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
    </section>
  );
}
