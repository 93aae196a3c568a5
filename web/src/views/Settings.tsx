/** How answers are asked for: the dialog of the settings. */
import { useEffect, useRef, useState } from "preact/hooks";
import type { ServedModel } from "../api.ts";
import { changeSettings, defaultSettings, settings } from "../settings.ts";
import { useStore } from "../store.ts";

interface NumberFieldProps {
  name: "temperature" | "topP" | "seed" | "maxTokens";
  label: string;
  note: string;
  min?: number;
  max?: number;
  step: number;
  /** What nothing means; where absent, nothing is not taken. */
  empty?: string;
}

export function SettingsDialog({ model, close }: { model: ServedModel; close: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const { system, stop } = useStore(settings);
  useEffect(() => dialog.current!.showModal(), []);
  const [resets, setResets] = useState(0);
  const reset = () => {
    setResets(resets + 1);
    const { system, temperature, topP, stop, maxTokens } = defaultSettings;
    changeSettings({ system, temperature, topP, seed: undefined, stop, maxTokens });
  };
  return (
    <dialog ref={dialog} class="settings" aria-labelledby="settings-title" onClose={close}>
      <form method="dialog">
        <h2 id="settings-title">Settings of {model.id}</h2>
        <p class="note">They count from the next answer on, and are kept in this browser.</p>
        <label class="field">
          <span>System prompt</span>
          <textarea
            rows={3}
            value={model.hasChatTemplate ? system : ""}
            disabled={!model.hasChatTemplate}
            placeholder={model.hasChatTemplate ? "None" : "This model has no chat template, so it takes none."}
            onInput={(event) => changeSettings({ system: event.currentTarget.value })}
          />
        </label>
        <div class="settings-numbers" key={resets}>
          <NumberField
            name="temperature"
            label="Temperature"
            note="0: always the likeliest token"
            min={0}
            max={2}
            step={0.01}
          />
          <NumberField name="topP" label="Top-p" note="1: all tokens count" min={0} max={1} step={0.01} />
          <NumberField name="seed" label="Seed" note="Empty: another each time" step={1} empty="Any" />
          <NumberField
            name="maxTokens"
            label="Tokens"
            note="Longest answer"
            min={1}
            max={model.contextLength}
            step={1}
          />
        </div>
        <label class="field">
          <span>Stop texts, one a line: an answer ends before one of them</span>
          <textarea
            rows={2}
            placeholder="None"
            value={stop.join("\n")}
            onInput={({ currentTarget: { value } }) => changeSettings({ stop: value === "" ? [] : value.split("\n") })}
          />
        </label>
        <div class="settings-end">
          <button type="button" class="button" onClick={reset}>
            Defaults
          </button>
          <button type="submit" class="button primary">
            Done
          </button>
        </div>
      </form>
    </dialog>
  );
}

/** A number that counts once it is in range; until then the last one does, and the field says what is wrong. */
function NumberField({ name, label, note, empty, ...range }: NumberFieldProps) {
  const [text, setText] = useState(() => String(settings.value[name] ?? ""));
  const id = `settings-${name}`;
  return (
    <div class="field">
      <label for={id}>{label}</label>
      <input
        id={id}
        aria-describedby={`${id}-note`}
        type="number"
        {...range}
        required={empty === undefined}
        placeholder={empty}
        value={text}
        onInput={({ currentTarget: { validity, value, valueAsNumber } }) => {
          setText(value);
          if (validity.valid) changeSettings({ [name]: value === "" ? undefined : valueAsNumber });
        }}
      />
      <span class="note" id={`${id}-note`}>
        {note}
      </span>
    </div>
  );
}
