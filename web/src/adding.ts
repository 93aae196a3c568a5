/** Models that are being added. They come along while another view is shown. */
import { type AddEvent, addModel } from "./api.ts";
import { addServed, askServer } from "./session.ts";
import { Store } from "./store.ts";

export interface Adding {
  name: string;
  /** Absent until the server tells some. */
  progress?: Exclude<AddEvent, { model: unknown }>;
  abort: AbortController;
}

/** The one under way. */
export const adding = new Store<Adding | undefined>(undefined);
/** Of the last that failed. */
export const addFailure = new Store<{ name: string; error: unknown } | undefined>(undefined);

/** @returns whether it is served now */
export async function add(name: string): Promise<boolean> {
  const abort = new AbortController();
  adding.set({ name, abort });
  addFailure.set(undefined);
  try {
    for await (const event of addModel({ name }, abort.signal)) {
      if ("stage" in event) adding.set({ name, abort, progress: event });
      else addServed(event.model);
    }
    return true;
  } catch (error) {
    if (!abort.signal.aborted) addFailure.set({ name, error });
    return false;
  } finally {
    adding.set(undefined);
    void askServer();
  }
}
