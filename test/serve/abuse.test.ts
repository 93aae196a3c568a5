/** What a hostile or broken client can do to a socket: always an error of OpenAI's shape, nothing left running, and the next request is answered. */
import { EventEmitter, once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as wait } from "node:timers/promises";
import { afterAll, afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { createApp } from "../../src/serve/http/app.ts";
import { Connections } from "../../src/serve/http/connections.ts";
import type { LogEntry } from "../../src/serve/http/context.ts";
import { limits } from "../../src/serve/http/limits.ts";
import { listen, type RunningServer } from "../../src/serve/http/server.ts";
import { FakeService } from "../support/fakeService.ts";

const service = new FakeService();
let log: LogEntry[] = [];
let server: RunningServer;
const sockets: Socket[] = [];
beforeAll(async () => {
  const app = createApp(service, { log: (entry) => log.push(entry) });
  server = await listen(app.fetch, { host: "127.0.0.1", port: 0 });
});
beforeEach(() => {
  service.answer = () => "one two three";
  service.delay = 0;
  log = [];
});
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy();
  await expect.poll(() => service.running).toBe(0);
  const response = await fetch(`${server.url}/v1/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: '{"model": "tiny", "prompt": "a"}',
  });
  expect(response.status).toBe(200);
});
afterAll(() => server[Symbol.asyncDispose]());

function open(port = server.port): Socket {
  const socket = connect(port, "127.0.0.1");
  socket.on("error", () => {}); // the server may hang up while we write
  sockets.push(socket);
  return socket;
}
/** What the server says until it hangs up, or until `mark` has come. */
async function answerOf(socket: Socket, mark?: string): Promise<string> {
  let text = "";
  try {
    for await (const chunk of socket.iterator({ destroyOnReturn: false })) {
      text += chunk;
      if (mark !== undefined && text.includes(mark)) break;
    }
  } catch {} // hung up on
  return text;
}
const head = (path: string, headers: Record<string, string | number>, method = "POST") =>
  `${method} ${path} HTTP/1.1\r\nHost: localhost:${server.port}\r\nConnection: close\r\n${Object.entries({
    "Content-Type": "application/json",
    ...headers,
  })
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")}\r\n`;
const post = (body: object, headers = {}) => {
  const text = JSON.stringify({ model: "tiny", ...body });
  return head("/v1/chat/completions", { "Content-Length": Buffer.byteLength(text), ...headers }) + text;
};
const messages = [{ role: "user", content: "Count." }];

/** The status line, and the error in the body. */
function refusal(answer: string): [status: number, code: string] {
  const body = answer.slice(answer.indexOf("\r\n\r\n") + 4);
  const { error } = JSON.parse(body.slice(body.indexOf("{"), body.lastIndexOf("}") + 1));
  expect(error).toEqual({
    message: expect.any(String),
    type: expect.any(String),
    param: null,
    code: expect.any(String),
  });
  return [Number(answer.split(" ")[1]), error.code];
}

const manyHeaders = (count: number) => Object.fromEntries(Array.from({ length: count }, (_, i) => [`x-${i}`, "a"]));
const raw: [what: string, request: () => string | Buffer, status: number, code: string][] = [
  ["no HTTP", () => "hello\r\n\r\n", 400, "invalid_request"],
  ["TLS", () => Buffer.from("16030100a5010000a10303", "hex"), 400, "invalid_request"],
  ["100,000 headers", () => head("/v1/models", manyHeaders(100_000), "GET"), 431, "headers_too_large"],
  ["a long header", () => head("/v1/models", { a: "x".repeat(20_000) }, "GET"), 431, "headers_too_large"],
  ["more headers than are counted", () => head("/v1/models", manyHeaders(200), "GET"), 431, "headers_too_large"],
  ["a long URL", () => head(`/${"x".repeat(20_000)}`, {}, "GET"), 431, "headers_too_large"],
  ["no Host", () => "GET /v1/models HTTP/1.1\r\nConnection: close\r\n\r\n", 400, "invalid_request"],
  ["an empty Host", () => "GET /v1/models HTTP/1.0\r\nHost:\r\n\r\n", 400, "invalid_request"],
  [
    "a foreign Host",
    () => "GET /v1/models HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n",
    403,
    "host_not_allowed",
  ],
  [
    "a foreign absolute URL",
    () => `GET http://evil.example/v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n`,
    403,
    "host_not_allowed",
  ],
  ["a foreign Origin", () => head("/v1/models", { Origin: "https://evil.example" }, "GET"), 403, "origin_not_allowed"],
  [
    "two lengths",
    () => head("/v1/completions", { "Content-Length": "2\r\nContent-Length: 3" }),
    400,
    "invalid_request",
  ],
  [
    "a length and chunks",
    () => head("/v1/completions", { "Content-Length": 2, "Transfer-Encoding": "chunked" }),
    400,
    "invalid_request",
  ],
  ["a body said to be too long", () => head("/v1/completions", { "Content-Length": 1e12 }), 413, "request_too_large"],
  [
    "invalid UTF-8",
    () =>
      Buffer.concat([
        Buffer.from(head("/v1/completions", { "Content-Length": 4 })),
        Buffer.from([0x22, 0xc3, 0x28, 0x22]),
      ]),
    400,
    "invalid_utf8",
  ],
  ["a path out of the folder", () => head("/../../../etc/passwd", {}, "GET"), 404, "not_found"],
]; // a table

test.each(raw)("%s", async (_, request, status, code) => {
  const socket = open();
  socket.write(request());
  expect(refusal(await answerOf(socket))).toEqual([status, code]);
});

test("a chunked body without an end is cut off at the limit", async () => {
  const socket = open();
  socket.write(head("/v1/completions", { "Transfer-Encoding": "chunked" }));
  const chunk = `10000\r\n${"x".repeat(0x10000)}\r\n`;
  const answer = answerOf(socket);
  for (let i = 0; i < 200 && socket.writable; i++) {
    socket.write(chunk);
    await wait(0);
  }
  expect(refusal(await answer)).toEqual([413, "request_too_large"]);
});

test("headers and bodies that trickle in are given up", async () => {
  await using hasty = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0, requestMs: 500 });
  for (const start of [
    "GET /v1/models HTTP/1.1\r\nHost: localhost\r\n",
    head("/v1/completions", { "Content-Length": 100 }),
  ]) {
    const socket = open(hasty.port);
    socket.write(start);
    const timer = setInterval(() => socket.write("x"), 50);
    expect(refusal(await answerOf(socket))).toEqual([408, "request_timeout"]);
    clearInterval(timer);
  }
});

test("a client may go away at any moment", async () => {
  service.answer = () => "word ".repeat(1000);
  service.delay = 5;
  const whole = post({ messages, n: 2 });
  const stream = post({ messages, n: 2, stream: true });
  // Until when: the server has read what was sent, both answers are being written, or this has come.
  const moments: [what: string, request: string, until: "read" | "answering" | { text: string }][] = [
    ["before anything", "", "read"],
    ["within the headers", whole.slice(0, 40), "read"],
    ["within the body", whole.slice(0, -10), "read"],
    ["after the body", whole, "answering"],
    ["after the body of a stream", stream, "answering"],
    ["after its headers", stream, { text: "\r\n\r\n" }],
    ["after its first event", stream, { text: "data: " }],
    ["after some text", stream, { text: "word" }],
  ];
  for (const [what, request, until] of moments) {
    for (const isPolite of [true, false]) {
      const socket = open();
      if (request === "") await once(socket, "connect");
      else await new Promise((sent) => socket.write(request, sent));
      if (until === "read")
        await fetch(`${server.url}/health`); // which came later
      else if (until === "answering") await expect.poll(() => service.running).toBe(2);
      else await answerOf(socket, until.text);
      if (isPolite) socket.destroy();
      else socket.resetAndDestroy();
      await expect.poll(() => [what, service.running]).toEqual([what, 0]);
    }
  }
  await expect.poll(() => log.filter(({ status }) => status === 499).length).toBe(10);
});

test("a client that sends all it has and shuts its side still gets its answer", async () => {
  const socket = open();
  socket.end(post({ messages }));
  expect(await answerOf(socket)).toMatch("one two three");
});

test("fifty clients that leave free fifty places", async () => {
  service.answer = () => "word ".repeat(20_000);
  service.delay = 5;
  const clients = Array.from({ length: 50 }, () => {
    const socket = open();
    socket.write(post({ messages, stream: true }));
    return socket;
  });
  for (const answer of await Promise.all(clients.map((socket) => answerOf(socket, "word"))))
    expect(answer).toMatch("word");
  expect(service.running).toBe(50);
  for (const socket of clients) socket.destroy();
  await expect.poll(() => service.running).toBe(0);
});

test("connections without a whole request shut nobody out: they make way, the oldest first, and those that ask go on", async () => {
  service.answer = () => "word ".repeat(20_000);
  service.delay = 5;
  const asking = open();
  asking.write(post({ messages, stream: true }));
  await answerOf(asking, "word");
  const starts = ["", "GET /health HTTP/1.1\r\nHost: loc", head("/v1/completions", { "Content-Length": 100 })];
  for (let i = 0; i < limits.connections + 18; i++) {
    const socket = open();
    await once(socket, "connect");
    if (starts[i % starts.length] !== "") socket.write(starts[i % starts.length]!);
  }
  expect((await fetch(`${server.url}/health`)).status).toBe(200);
  const open530 = sockets.filter(({ closed }) => !closed);
  expect(open530.length).toBeGreaterThan(limits.connections - 3);
  expect(open530).toContain(asking);
  expect(await answerOf(asking, "word")).toMatch("word");

  const closing = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0 });
  await Promise.all(Array.from({ length: limits.connections }, () => once(open(closing.port), "connect")));
  await closing.close(); // as at SIGTERM
});

test("a client who fills all places takes none from others, and none of those that are for this machine", () => {
  const ended: string[] = [];
  const connections = new Connections({ connections: 8, reserved: 2 });
  const add = (remoteAddress: string, name: string) => {
    const socket = new EventEmitter();
    const destroy = () => {
      ended.push(name);
      socket.emit("close");
    };
    connections.add(Object.assign(socket, { remoteAddress, destroy }) as unknown as Socket);
  };
  add("192.0.2.1", "patient");
  for (let i = 0; i < 12; i++) add(`2001:db8:0:1::${i}`, `flood ${i}`); // addresses of one client
  expect(ended).toEqual(Array.from({ length: 7 }, (_, i) => `flood ${i}`));
  add("127.0.0.1", "own");
  add("::1", "own");
  expect(ended.length).toBe(7);
  add("::ffff:127.0.0.1", "own");
  expect(ended.slice(7)).toEqual(["flood 7"]);
});

test("requests in one go on one connection are answered in order", async () => {
  const socket = open();
  const get = (path: string) => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;
  socket.write(get("/health") + get("/v1/models/none") + head("/v1/models", {}, "GET"));
  const answer = await answerOf(socket);
  expect([...answer.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => status)).toEqual(["200", "404", "200"]);
});

test("closing waits for what runs and takes nothing new", async () => {
  service.delay = 20;
  service.answer = () => "word ".repeat(20);
  const own = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0 });
  const body = JSON.stringify({ model: "tiny", messages, stream: true });
  const response = await fetch(`${own.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body,
  });
  const closed = own.close();
  await expect(fetch(`${own.url}/health`)).rejects.toThrow();
  expect(await response.text()).toMatch(/\[DONE\]\n\n$/);
  await closed;
});

test("closing ends connections without a whole request, and those that would ask on", async () => {
  service.delay = 20;
  service.answer = () => "word ".repeat(20);
  const own = await listen(createApp(service).fetch, { host: "127.0.0.1", port: 0, requestMs: 500 });
  const [silent, half, slow, keen] = [open(own.port), open(own.port), open(own.port), open(own.port)];
  half.write("GET /health HTTP/1.1\r\nHost: loc");
  slow.write(head("/v1/chat/completions", { "Content-Length": 1000 }));
  const asked = JSON.stringify({ model: "tiny", messages, stream: true });
  const kept = head("/v1/chat/completions", { "Content-Length": asked.length }).replace("Connection: close\r\n", "");
  keen.write(kept + asked);
  await answerOf(keen, "word");
  await Promise.all([silent, half, slow].map((socket) => socket.pending && once(socket, "connect")));
  const closed = own.close();
  keen.write("GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n");
  expect(await answerOf(keen)).toMatch(/\[DONE\].*\{"status":"ok"\}$/s); // and the server hangs up
  await closed;
});
