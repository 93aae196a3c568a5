/** Server-sent events: one `data:` line per object, `[DONE]` last. */
import { toApiError } from "./apiErrors.ts";
import { limits } from "./limits.ts";

/**
 * Sends objects as they come, no faster than the client takes them. An error becomes the last event.
 *
 * @param objects begun already, so that what fails before the first of them is an ordinary error
 * @param first what it gave
 * @param stop ends what the source waits for; called when the client goes away, or takes nothing for `limits.stalledMs`
 * @param onEnd called once
 */
export function eventStream(
  objects: AsyncGenerator<object, void, void>,
  first: IteratorResult<object, void>,
  { stop, onError, onEnd }: { stop: () => void; onError: (error: unknown) => void; onEnd: () => void },
): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  let begun: typeof first | undefined = first;
  let stalled: NodeJS.Timeout | undefined;
  let hasEnded = false;
  const end = async () => {
    clearTimeout(stalled);
    if (hasEnded) return;
    hasEnded = true;
    await objects.return();
    onEnd();
  };
  return new ReadableStream({
    async pull(controller) {
      clearTimeout(stalled);
      const send = (data: string) => {
        if (!hasEnded) controller.enqueue(encoder.encode(`data: ${data}\n\n`));
      };
      const close = async () => {
        if (!hasEnded) controller.close();
        await end();
      };
      try {
        const { value, done } = begun ?? (await objects.next());
        begun = undefined;
        if (done) {
          send("[DONE]");
          await close();
          return;
        }
        send(JSON.stringify(value));
        stalled = setTimeout(() => {
          stop();
          void end();
          controller.error(new Error("the client takes nothing"));
        }, limits.stalledMs).unref();
      } catch (error) {
        if (hasEnded) return;
        onError(error);
        send(JSON.stringify(toApiError(error).body));
        await close();
      }
    },
    async cancel() {
      stop();
      await end();
    },
  });
}
