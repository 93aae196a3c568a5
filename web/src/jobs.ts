/** Jobs of the server, which make models for one task. They go on there, whatever the page does; it asks again while its reader looks. */
import { getJobs, type SpecializeJob } from "./api.ts";
import { keyState } from "./session.ts";
import { Store } from "./store.ts";

/** The last list that came, and why none has come since. */
export const jobs = new Store<{ list: SpecializeJob[]; error?: unknown }>({ list: [] });

export async function loadJobs(): Promise<void> {
  try {
    jobs.set({ list: await getJobs() });
  } catch (error) {
    jobs.set({ ...jobs.value, error });
  }
}

const [SOON_MS, LATER_MS] = [2000, 8000];
const moving: readonly SpecializeJob["state"][] = ["running", "stopping", "elsewhere"];
const isRunning = () => jobs.value.list.some(({ state }) => moving.includes(state));

/** Asks every two seconds while one runs, and now and then for what others begin. */
export function watchJobs(): () => void {
  let timer: ReturnType<typeof setTimeout>;
  let isOver = false;
  const ask = async () => {
    if (!document.hidden && keyState.value === "given") await loadJobs();
    if (!isOver) timer = setTimeout(ask, isRunning() ? SOON_MS : LATER_MS);
  };
  void ask();
  return () => {
    isOver = true;
    clearTimeout(timer);
  };
}
