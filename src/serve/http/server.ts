/** An app on a socket, with the limits that only the socket's side can keep. */
import { createServer, type IncomingMessage, type ServerResponse, STATUS_CODES } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import { getRequestListener } from "@hono/node-server";
import { OptionError } from "../../errors.ts";
import { ApiError } from "./apiErrors.ts";
import { Connections } from "./connections.ts";
import { limits } from "./limits.ts";

/** A server on a socket. Disposing it ends its connections at once. */
export interface RunningServer extends AsyncDisposable {
  url: string;
  port: number;
  /** Takes no more connections; resolves once all responses have ended. */
  close(): Promise<void>;
}

/** Where {@link listen} listens. */
export interface ListenOptions {
  host: string;
  /** 0: any free one. */
  port: number;
  /** How long a request may take to come, with its body. Default: half a minute. */
  requestMs?: number | undefined;
}

/**
 * Puts an app on a socket.
 *
 * @throws {OptionError} if it cannot listen there
 */
export async function listen(
  fetch: (request: Request) => Response | Promise<Response>,
  { host, port, requestMs = limits.requestMs }: ListenOptions,
): Promise<RunningServer> {
  const listener = getRequestListener(fetch, {
    overrideGlobalObjects: false,
    errorHandler: () => respond(new ApiError(400, "invalid_request", "Wanted a valid URL and Host header.")),
  });
  const server = createServer(
    {
      maxHeaderSize: limits.headerBytes,
      requireHostHeader: false, // it is wanted below, with a body that says so
      headersTimeout: Math.min(limits.headersMs, requestMs),
      requestTimeout: requestMs,
      keepAliveTimeout: limits.idleMs,
      connectionsCheckingInterval: Math.min(1000, requestMs),
    },
    listener,
  );
  server.maxHeadersCount = 0; // Node leaves out headers beyond it, without a word; the app counts them
  server.on("clientError", (error: NodeJS.ErrnoException, socket: Socket) => {
    if (!socket.writable) return;
    const told = socketErrors[error.code ?? ""] ?? new ApiError(400, "invalid_request", "Wanted HTTP/1.1.");
    const body = JSON.stringify(told.body);
    socket.end(
      `HTTP/1.1 ${told.status} ${STATUS_CODES[told.status]}\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  });
  const connections = new Connections(limits);
  server.on("connection", (socket) => connections.add(socket));
  let isClosing = false;
  server.on("request", (request: IncomingMessage, response: ServerResponse) => {
    connections.addRequest(request, response, (isLast) => {
      if (isClosing && isLast) request.socket.destroySoon();
    });
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", (cause: NodeJS.ErrnoException) =>
      reject(
        new OptionError(
          cause.code === "EADDRINUSE"
            ? `serve: wanted port ${port} of ${host}, got one that is in use. Take another: --port ${port + 1}, or --port 0 for any free one.`
            : `serve: wanted to listen on ${host}, port ${port}, got ${cause.code}. Choose others.`,
          { cause },
        ),
      ),
    );
    server.listen(port, host, resolve);
  });
  const bound = server.address() as AddressInfo;
  const name = bound.family === "IPv6" ? `[${bound.address}]` : bound.address;
  const closed = new Promise<void>((resolve) => server.once("close", resolve));
  return {
    url: `http://${name}:${bound.port}`,
    port: bound.port,
    /** Node stops its own timers here, and leaves alone connections that have sent no whole request: they would never end. */
    async close() {
      server.close();
      isClosing = true;
      connections.endIdle();
      const late = setTimeout(() => connections.endIncomplete(), requestMs);
      await closed;
      clearTimeout(late);
    },
    async [Symbol.asyncDispose]() {
      server.close();
      server.closeAllConnections();
      await closed;
    },
  };
}

const socketErrors: Record<string, ApiError> = {
  HPE_HEADER_OVERFLOW: new ApiError(431, "headers_too_large", `Wanted at most ${limits.headerBytes} bytes of headers.`),
  ERR_HTTP_REQUEST_TIMEOUT: new ApiError(408, "request_timeout", "Wanted a whole request sooner."),
};

function respond(error: ApiError): Response {
  return Response.json(error.body, { status: error.status });
}
