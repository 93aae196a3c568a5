/** Saved masks of kinds of tasks: add, change, delete, export, and how far they overlap; and models for one task. */
import { useMemo, useState } from "preact/hooks";
import { shellWord } from "../../../src/words.ts";
import { deleteTask, getMaskFile, type SavedTask, type ServedModel, saveTask } from "../api.ts";
import { type Bits, decodeLayers, fits, shareKeeping } from "../channels.ts";
import { fileName } from "../fileName.ts";
import { percent, plural } from "../format.ts";
import { Icon } from "../icons.tsx";
import { MaskStrip, StripLegend } from "../MaskStrip.tsx";
import { maskLayers } from "../masks.ts";
import { OverlapMatrix } from "../OverlapMatrix.tsx";
import { CopyButton, DeleteButton, Empty, Failure, KeepChoice, SureButton, useLoaded } from "../parts.tsx";
import { loadTasks, tasks } from "../session.ts";
import { keptShare } from "../settings.ts";
import { Store, useStore } from "../store.ts";
import { Specialize } from "./Specialize.tsx";

interface Draft {
  name: string;
  instruction: string;
  examples: readonly { input: string; output: string }[];
}
const emptyDraft: Draft = { name: "", instruction: "", examples: [] };
const draftOf = ({ name, instruction, examples = [] }: SavedTask): Draft => ({ name, instruction, examples });
/** It outlives the view. */
const drafted = new Store(emptyDraft);

export function Tasks({ model }: { model: ServedModel }) {
  const saved = useStore(tasks);
  const draft = useStore(drafted);
  const list = saved.state === "ready" ? saved.value : [];
  const masks = useTaskMasks(model, list);
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
  const hasTyped = ![emptyDraft, ...list.map(draftOf)].some((one) => JSON.stringify(one) === JSON.stringify(draft));
  const edit = (task: SavedTask) => {
    drafted.set(draftOf(task));
    document.getElementById("task-name")!.focus();
  };
  const known = list.filter(({ maskId }) => masks?.get(maskId));
  return (
    <div class="page">
      <TaskForm model={model} draft={draft} />
      {list.length === 0 ? (
        <Empty title="No tasks yet">
          <p>
            A task is an instruction whose mask you keep, for every prompt of that kind: choose it as the mask of a
            chat, send <code>"mask": "task:NAME"</code> to the API, or export its sub-network as a model of its own.
          </p>
        </Empty>
      ) : (
        <>
          <ul class="tasks">
            {list.map((task) => (
              <TaskCard key={task.name} model={model} task={task} masks={masks} hasTyped={hasTyped} onEdit={edit} />
            ))}
          </ul>
          {known.length > 1 && (
            <section class="card" aria-labelledby="overlap-title">
              <h2 id="overlap-title">Overlap of tasks</h2>
              <OverlapMatrix
                names={known.map(({ name }) => name)}
                masks={known.map(({ maskId }) => masks!.get(maskId)!)}
                dFfn={model.dFfn}
              />
            </section>
          )}
        </>
      )}
      <Specialize model={model} />
    </div>
  );
}

/** By their ids; null of one that the server no longer has. Absent until all are there. */
type TaskMasks = ReadonlyMap<string, Bits | null> | undefined;

function useTaskMasks(model: ServedModel, list: readonly SavedTask[]): TaskMasks {
  const ids = [...new Set(list.map(({ maskId }) => maskId))];
  const load = async (id: string): Promise<[string, Bits | null]> => {
    const layers = await maskLayers(model.id, id).then(decodeLayers, () => null);
    return [id, layers && fits(layers, model.numLayers, model.dFfn) ? layers : null];
  };
  const loaded = useLoaded(async () => new Map(await Promise.all(ids.map(load))), [model.id, ids.join(" ")]);
  return loaded.state === "ready" ? loaded.value : undefined;
}

interface FormProps {
  model: ServedModel;
  draft: Draft;
}

function TaskForm({ model, draft }: FormProps) {
  const setDraft = (next: Draft) => drafted.set(next);
  const { name, instruction, examples } = draft;
  const [isSaving, setIsSaving] = useState(false);
  const saved = useStore(tasks);
  const isKnown = saved.state === "ready" && saved.value.some((task) => task.name === name.trim());
  const [error, setError] = useState<unknown>();
  const save = async (event?: Event) => {
    event?.preventDefault();
    setIsSaving(true);
    setError(undefined);
    try {
      const shown = examples.map(({ input, output }) => ({ input: input.trim(), output: output.trim() }));
      await saveTask(model.id, name.trim(), { instruction: instruction.trim(), examples: shown, ...keptShare() });
      if (drafted.value === draft) setDraft(emptyDraft); // what was typed meanwhile stays
      await loadTasks();
    } catch (failure) {
      setError(failure);
    }
    setIsSaving(false);
  };
  const setExample = (i: number, change: Partial<Draft["examples"][number]>) =>
    setDraft({ ...draft, examples: examples.with(i, { ...examples[i]!, ...change }) });
  return (
    <form class="task-form" onSubmit={save}>
      <div class="form-row">
        <label class="field">
          <span>Name</span>
          <input
            id="task-name"
            required
            pattern="[^\/\\]+"
            title="one line, without / and \"
            maxLength={64}
            value={name}
            onInput={(event) => setDraft({ ...draft, name: event.currentTarget.value })}
          />
        </label>
        <label class="field wide">
          <span>Instruction</span>
          <input
            required
            value={instruction}
            onInput={(event) => setDraft({ ...draft, instruction: event.currentTarget.value })}
          />
        </label>
      </div>
      {examples.length > 0 && (
        <fieldset class="task-examples">
          <legend>Examples that the instruction shows</legend>
          {examples.map(({ input, output }, i) => (
            <div key={i} class="task-example">
              <input
                required
                aria-label={`Input of example ${i + 1}`}
                placeholder="input"
                value={input}
                onInput={(event) => setExample(i, { input: event.currentTarget.value })}
              />
              <span aria-hidden="true">→</span>
              <input
                required
                aria-label={`Output of example ${i + 1}`}
                placeholder="output"
                value={output}
                onInput={(event) => setExample(i, { output: event.currentTarget.value })}
              />
              <button
                type="button"
                class="quiet"
                aria-label={`Remove example ${i + 1}`}
                title="Remove"
                onClick={() => setDraft({ ...draft, examples: examples.toSpliced(i, 1) })}
              >
                <Icon name="trash" />
              </button>
            </div>
          ))}
        </fieldset>
      )}
      <div class="form-row">
        <button
          type="button"
          class="button"
          onClick={() => setDraft({ ...draft, examples: [...examples, { input: "", output: "" }] })}
        >
          <Icon name="plus" /> Add an example
        </button>
        <KeepChoice model={model} />
        <button type="submit" class="button primary" disabled={isSaving || !name.trim() || !instruction.trim()}>
          {isSaving ? "Saving …" : isKnown ? "Replace task" : "Save task"}
        </button>
      </div>
      {error !== undefined && <Failure error={error} retry={save} />}
    </form>
  );
}

interface CardProps {
  model: ServedModel;
  task: SavedTask;
  masks: TaskMasks;
  /** Whether the form has what is saved nowhere. */
  hasTyped: boolean;
  onEdit: (task: SavedTask) => void;
}

function TaskCard({ model, task, masks, hasTyped, onEdit }: CardProps) {
  const { examples = [] } = task;
  const command = exportCommand(model, task.name);
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
    Object.assign(document.createElement("a"), { href: address, download: `${fileName(task.name)}.mask.json` }).click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000); // the download reads it after the click
  });
  return (
    <li class="card task">
      <div class="task-head">
        <div>
          <h2>{task.name}</h2>
          <p>{task.instruction}</p>
        </div>
        <div class="task-actions">
          <SureButton
            label={`Edit task ${task.name}`}
            title="Edit"
            question="Replace what is typed?"
            isSure={!hasTyped}
            onSure={() => onEdit(task)}
          >
            <Icon name="edit" /> Edit
          </SureButton>
          <DeleteButton what={`task ${task.name}`} onDelete={remove} />
        </div>
      </div>
      {examples.length > 0 && (
        <details>
          <summary>{plural(examples.length, "example")}</summary>
          <ul class="examples-shown">
            {examples.map(({ input, output }, i) => (
              <li key={i}>
                {input} → {output}
              </li>
            ))}
          </ul>
        </details>
      )}
      <TaskMask model={model} id={task.maskId} masks={masks} />
      <div class="task-export">
        <p class="note">
          As a model of its own, on the server's machine
          {model.location === undefined && ` (where ${model.id} is a folder there, write its path)`}:
        </p>
        <code class="command">{command}</code>
        <div class="task-actions">
          <CopyButton text={command} label="Copy" />
          <button type="button" class="quiet" onClick={download}>
            <Icon name="download" /> Mask as a file
          </button>
        </div>
      </div>
      {error !== undefined && <Failure error={error} />}
    </li>
  );
}

const exportCommand = ({ id, location = id }: ServedModel, name: string): string =>
  `ifprune export ${shellWord(location)} ${fileName(name)} --mask ${shellWord(`task:${name}`)}`;

interface TaskMaskProps {
  model: ServedModel;
  id: string;
  masks: TaskMasks;
}

/** Coloured by how many of the other tasks' masks keep a channel. */
function TaskMask({ model: { numLayers, dFfn }, id, masks }: TaskMaskProps) {
  const { layers, others, common } = useMemo(() => {
    const others = [...(masks ?? [])].flatMap(([other, bits]) => (bits && other !== id ? [bits] : []));
    const common = others.length > 0 ? shareKeeping(others, numLayers, dFfn) : undefined;
    return { layers: masks?.get(id), others: others.length, common };
  }, [masks, id, numLayers, dFfn]);
  if (layers === null) return <p class="note">The server no longer has this mask.</p>;
  if (!layers) return <div class="strip-placeholder" />;
  return (
    <>
      <MaskStrip
        layers={layers}
        dFfn={dFfn}
        common={common}
        describe={(share) => (share > 0 ? `kept by ${percent(share)} of the other tasks` : "kept by no other task")}
        label={`Mask of ${numLayers} layers. Up and down walk through the layers, left and right within one.`}
      />
      {common && <StripLegend low={`shared with ${plural(others, "other task")}`} high="only here" />}
    </>
  );
}
