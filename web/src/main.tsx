/** The page: header, one of the views by the address's hash, and the states in which there is no view to show. */
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { type ServedModel, setKey } from "./api.ts";
import { bytes, plural } from "./format.ts";
import { Icon } from "./icons.tsx";
import { Empty, Failure } from "./parts.tsx";
import {
  chooseModel,
  keyState,
  loadModels,
  modelId,
  models,
  serviceState,
  setTheme,
  theme,
  watchServer,
} from "./session.ts";
import { keepForTab, storageTrouble, useStore, writeStored } from "./store.ts";
import { Chat } from "./views/Chat.tsx";
import { Compare } from "./views/Compare.tsx";
import { Models } from "./views/Models.tsx";
import { Race } from "./views/Race.tsx";
import { Tasks } from "./views/Tasks.tsx";

const views = { chat: Chat, compare: Compare, race: Race, tasks: Tasks, models: Models } as const;
type ViewName = keyof typeof views;
const viewNames = Object.keys(views) as ViewName[];
const titles: Record<ViewName, string> = {
  chat: "Chat",
  compare: "Compare",
  race: "Race",
  tasks: "Tasks",
  models: "Models",
};

const viewOfAddress = (): ViewName => viewNames.find((name) => location.hash === `#/${name}`) ?? "chat";

function App() {
  const [view, setView] = useState(viewOfAddress);
  useEffect(() => {
    const follow = () => setView(viewOfAddress());
    addEventListener("hashchange", follow);
    void loadModels();
    const unwatch = watchServer();
    return () => {
      removeEventListener("hashchange", follow);
      unwatch();
    };
  }, []);
  useEffect(() => {
    document.title = `${titles[view]} – ifprune`;
  }, [view]);
  const trouble = useStore(storageTrouble);
  return (
    <>
      <button type="button" class="skip" onClick={() => document.getElementById("main")!.focus()}>
        Skip to content
      </button>
      <Header view={view} />
      {trouble && (
        <p class="notice" role="status">
          {trouble}
        </p>
      )}
      <main id="main" tabIndex={-1}>
        <h1 class="unseen">{titles[view]}</h1>
        <Body view={view} />
      </main>
      <KeyDialog />
    </>
  );
}

function Body({ view }: { view: ViewName }) {
  const served = useStore(models);
  const chosen = useStore(modelId);
  if (served.state === "loading") {
    return (
      <p class="loading" role="status">
        Asking the server for its models …
      </p>
    );
  }
  if (served.state === "failed") {
    return (
      <div class="centre">
        <Failure error={served.error} retry={loadModels} />
      </div>
    );
  }
  const model = served.value.find(({ id }) => id === chosen);
  if (!model) {
    return (
      <Empty title="No model is served">
        <p>
          Start the server with a bundle: <code>ifprune serve FOLDER</code>
        </p>
      </Empty>
    );
  }
  const View = views[view];
  return <View key={model.id} model={model} />;
}

function Header({ view }: { view: ViewName }) {
  const served = useStore(models);
  const chosen = useStore(modelId);
  const list: ServedModel[] = served.state === "ready" ? served.value : [];
  return (
    <header class="header">
      <a class="brand" href="#/chat">
        <svg viewBox="0 0 16 16" aria-hidden="true">
          <path d="M3 2.5v3M6 2.5v3M13 2.5v3M4.5 6.5v3M10 6.5v3M13 6.5v3M3 10.5v3M7.5 10.5v3M10 10.5v3" />
        </svg>
        ifprune
      </a>
      <nav aria-label="Views">
        {viewNames.map((name) => (
          <a key={name} href={`#/${name}`} aria-current={name === view ? "page" : undefined}>
            {titles[name]}
          </a>
        ))}
      </nav>
      <div class="header-end">
        <ServerStatus />
        {list.length > 0 && (
          <select
            class="model"
            aria-label="Model"
            value={chosen}
            onChange={(event) => chooseModel(event.currentTarget.value)}
          >
            {list.map(({ id }) => (
              <option key={id} value={id}>
                {id}
              </option>
            ))}
          </select>
        )}
        <ThemeSwitch />
      </div>
    </header>
  );
}

function ServerStatus() {
  const state = useStore(serviceState);
  if (state === undefined) return null;
  if (state === null) {
    return (
      <span class="status gone" role="status">
        <span>No answer</span>
      </span>
    );
  }
  const { running, queued, subnetworks, memoryBytes } = state;
  const title = `${plural(subnetworks.length, "network")} loaded, ${bytes(memoryBytes)}`;
  const text = running + queued > 0 ? `${running} running${queued > 0 ? `, ${queued} waiting` : ""}` : "Ready";
  return (
    <span class={`status ${running > 0 ? "busy" : "ready"}`} title={title}>
      <span>{text}</span>
    </span>
  );
}

const nextTheme = { system: "light", light: "dark", dark: "system" } as const;
const themeIcon = { system: "system", light: "sun", dark: "moon" } as const;

function ThemeSwitch() {
  const now = useStore(theme);
  const label = `Theme: ${now}. Switch to ${nextTheme[now]}`;
  const change = () => {
    setTheme(nextTheme[now]);
    writeStored("theme", nextTheme[now]);
  };
  return (
    <button type="button" class="quiet" aria-label={label} title={label} onClick={change}>
      <Icon name={themeIcon[now]} />
    </button>
  );
}

/** The server wants a key: kept for this tab. */
function KeyDialog() {
  const isOpen = useStore(keyState) === "wanted";
  const dialog = useRef<HTMLDialogElement>(null);
  const [key, changeKey] = useState("");
  useEffect(() => {
    if (isOpen) dialog.current!.showModal();
    else dialog.current!.close();
  }, [isOpen]);
  const submit = (event: Event) => {
    event.preventDefault();
    setKey(key.trim());
    changeKey("");
    keyState.set("given");
    void loadModels();
  };
  // Not when it closes: that is told late, when a wrong key may have been refused already.
  const putAway = () => keyState.set("put away");
  return (
    <dialog ref={dialog} aria-labelledby="key-title" onCancel={putAway}>
      <form onSubmit={submit}>
        <h2 id="key-title">This server wants a key</h2>
        <p>The one that it was started with (--api-key). It is kept until you close this tab.</p>
        <label class="field">
          <span>Key</span>
          <input
            type="password"
            required
            pattern="[!-~]+"
            title="printable ASCII characters without spaces"
            autocomplete="off"
            value={key}
            onInput={(event) => changeKey(event.currentTarget.value)}
          />
        </label>
        <button type="submit" class="button primary">
          Use this key
        </button>
      </form>
    </dialog>
  );
}

setTheme(theme.value);
keepForTab();
render(<App />, document.getElementById("app")!);
