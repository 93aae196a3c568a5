/**
 * The open connections of a server, at most so many: a new one takes the place of one that asks nothing, so that clients who hold connections without a
 * request, by fault or by will, shut nobody out.
 */
import type { IncomingMessage, ServerResponse } from "node:http";
import { isIPv6, type Socket } from "node:net";
import { isLoopback } from "./security.ts";

export interface ConnectionLimits {
  connections: number;
  /** Of these, kept for this machine: others cannot take them. */
  reserved: number;
}

interface Connection {
  /** The client's address, of IPv6 the half that a provider gives. */
  from: string;
  isLocal: boolean;
  underWay: Set<ServerResponse>;
}

export class Connections {
  readonly #limits: ConnectionLimits;
  /** The oldest first. */
  readonly #open = new Map<Socket, Connection>();

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  add(socket: Socket): void {
    const address = (socket.remoteAddress ?? "").replace(/^::ffff:/, "");
    this.#open.set(socket, { from: networkOf(address), isLocal: isLoopback(address), underWay: new Set() });
    socket.once("close", () => this.#open.delete(socket));
    const { connections, reserved } = this.#limits;
    const foreign = [...this.#open].filter(([, { isLocal }]) => !isLocal);
    if (foreign.length > connections - reserved) makeRoom(foreign);
    else if (this.#open.size > connections) makeRoom([...this.#open]);
  }

  /** @param onEnd called once the response has ended; `isLast`: no other is under way on its connection */
  addRequest({ socket }: IncomingMessage, response: ServerResponse, onEnd: (isLast: boolean) => void): void {
    const underWay = this.#open.get(socket)?.underWay;
    underWay?.add(response);
    response.once("close", () => {
      underWay?.delete(response);
      onEnd(underWay?.size === 0);
    });
  }

  /** Ends those on which nothing is under way. */
  endIdle(): void {
    for (const [socket, { underWay }] of this.#open) if (underWay.size === 0) socket.destroy();
  }

  /** Ends those whose request has not come whole. */
  endIncomplete(): void {
    for (const [socket, connection] of this.#open) if (!isAsking(connection)) socket.destroy();
  }
}

/** Whether a whole request is under way. */
const isAsking = ({ underWay }: Connection): boolean => [...underWay].some(({ req }) => req.complete);

/** Ends the oldest connection that asks nothing, of the client who has the most of all; where all ask, the newest. */
function makeRoom(open: readonly (readonly [Socket, Connection])[]): void {
  const counts = new Map<string, number>();
  for (const [, { from }] of open) counts.set(from, (counts.get(from) ?? 0) + 1);
  const [newest] = open.at(-1)!;
  let [ended, most] = [newest, 0];
  for (const [socket, connection] of open) {
    const count = counts.get(connection.from)!;
    if (socket !== newest && count > most && !isAsking(connection)) [ended, most] = [socket, count];
  }
  ended.destroy();
}

/** Of IPv6 the first 64 bits: one client has all addresses that begin so. */
function networkOf(address: string): string {
  if (!isIPv6(address)) return address;
  const [head = "", tail = ""] = address.split("::");
  const [first, last] = [head, tail].map((half) => (half === "" ? [] : half.split(":")));
  const zeros = Array<string>(8 - first!.length - last!.length).fill("0");
  return [...first!, ...zeros, ...last!].slice(0, 4).join(":");
}
