/** Objects that are sent as they come. */
import { type ApiError, toApiError } from "./apiErrors.ts";
import { limits } from "./limits.ts";

/** How they are written. */
export interface StreamFormat {
  contentType: string;
  write(object: object): string;
  /** What has failed, as the last of them. */
  error(error: ApiError): string;
  /** Behind the last. */
  end: string;
}

const event = (data: string) => `data: ${data}\n\n`;

/** Server-sent events as OpenAI's: one `data:` line per object, `[DONE]` last. */
export const serverSentEvents: StreamFormat = {
  contentType: "text/event-stream; charset=utf-8",
  write: (object) => event(JSON.stringify(object)),
  error: ({ body }) => event(JSON.stringify(body)),
  end: event("[DONE]"),
};

/**
 * Sends objects as they come, no faster than the client takes them. An error becomes the last of them.
 *
 * @param objects begun already, so that what fails before the first of them is an ordinary error
 * @param first what it gave
 * @param stop ends what the source waits for; called when the client goes away, or takes nothing for `limits.stalledMs`
 * @param onEnd called once
 */
export function objectStream(
  objects: AsyncGenerator<object, void, void>,
  first: IteratorResult<object, void>,
  format: StreamFormat,
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
        if (!hasEnded && data !== "") controller.enqueue(encoder.encode(data));
      };
      const close = async () => {
        if (!hasEnded) controller.close();
        await end();
      };
      try {
        const { value, done } = begun ?? (await objects.next());
        begun = undefined;
        if (done) {
          send(format.end);
          await close();
          return;
        }
        send(format.write(value));
        stalled = setTimeout(() => {
          stop();
          void end();
          controller.error(new Error("the client takes nothing"));
        }, limits.stalledMs).unref();
      } catch (error) {
        if (hasEnded) return;
        onError(error);
        send(format.error(toApiError(error)));
        await close();
      }
    },
    async cancel() {
      stop();
      await end();
    },
  });
}
