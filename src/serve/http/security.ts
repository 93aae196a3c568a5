/**
 * Who may ask. A local server is within reach of every web page that its user opens: pages send requests to it (CSRF), and bind their own name to its
 * address in order to read the answers (DNS rebinding). So requests say by `Host` what they think they reach, and by `Origin` where they come from, and both are
 * checked; where a key is wanted any Host will do, as such a page has no key.
 */
import { createHash, timingSafeEqual } from "node:crypto";
import { isIP } from "node:net";
import type { MiddlewareHandler } from "hono";
import { ApiError } from "./apiErrors.ts";
import { checkHeaders } from "./limits.ts";

export interface SecurityOptions {
  /** What the server is bound to. Default: 127.0.0.1 */
  host?: string | undefined;
  apiKey?: string | undefined;
  /** Names by which others reach the server, beside its address, as `gpu-box.lan`. With a key any will do. */
  hosts?: readonly string[] | undefined;
  /** Another origin whose pages may ask, such as `https://chat.example` or `app://obsidian.md`. */
  cors?: string | undefined;
}

export function isLoopback(host: string): boolean {
  return host === "localhost" || host === "::1" || (isIP(host) === 4 && host.startsWith("127."));
}

/** Host, Origin and the number of headers of every request. */
export function guard({ host = "127.0.0.1", apiKey, hosts = [], cors }: SecurityOptions): MiddlewareHandler {
  const isKnown = (name: string) =>
    apiKey !== undefined || isOurs(name, host) || hosts.some((one) => one.toLowerCase() === name.toLowerCase());
  return async (c, next) => {
    checkHeaders(c.req.raw.headers);
    const url = new URL(c.req.url);
    const claimed = c.req.header("host");
    if (!isKnown(url.hostname) || (claimed !== undefined && !isKnown(hostnameOf(claimed))))
      throw new ApiError(
        403,
        "host_not_allowed",
        "The Host header names another server. If it is a name of this one: serve --allow-host NAME, or with an API key.",
        { type: "permission_error" },
      );
    const origin = c.req.header("origin");
    const isForeign =
      origin === undefined
        ? ["cross-site", "same-site"].includes(c.req.header("sec-fetch-site") ?? "") && url.pathname !== "/"
        : origin !== cors && !sameOrigin(origin, claimed ?? url.host);
    if (isForeign)
      throw new ApiError(403, "origin_not_allowed", "Pages of other origins may not ask this server.", {
        type: "permission_error",
      });
    if (cors !== undefined && c.req.method === "OPTIONS") {
      const wanted = c.req.header("access-control-request-headers") ?? ""; // OpenAI's client has a dozen of its own
      c.res = c.body(null, 204, { ...preflightHeaders, "access-control-allow-headers": wanted });
    } else await next();
    if (cors !== undefined) c.res.headers.set("vary", "Origin");
    if (cors !== undefined && origin === cors) c.res.headers.set("access-control-allow-origin", cors);
  };
}

const preflightHeaders = {
  "access-control-allow-methods": "GET, POST, PUT, DELETE",
  "access-control-max-age": "600",
};

/** Wants `Authorization: Bearer KEY` where there is a key. */
export function authorize({ apiKey }: SecurityOptions): MiddlewareHandler {
  return async (c, next) => {
    if (apiKey !== undefined) {
      const given = /^Bearer (.+)$/i.exec(c.req.header("authorization") ?? "")?.[1] ?? "";
      if (!timingSafeEqual(sha256(given), sha256(apiKey)))
        throw new ApiError(401, "invalid_api_key", "Wanted `Authorization: Bearer` with the server's API key.", {
          type: "authentication_error",
          headers: { "www-authenticate": "Bearer" },
        });
    }
    return next();
  };
}

const sha256 = (text: string): Buffer => createHash("sha256").update(text).digest();

/** Of every response: the page runs no script but its own, and is in no frame. */
export const responseHeaders = {
  "content-security-policy": [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "font-src 'self'",
    "connect-src 'self'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ].join("; "),
  "x-content-type-options": "nosniff",
  "x-frame-options": "DENY",
  "referrer-policy": "no-referrer",
  "cross-origin-opener-policy": "same-origin",
  "cross-origin-resource-policy": "same-origin",
};

/** A name that no foreign page can have: loopback, what the server is bound to, and beyond loopback any address, since rebinding needs a name. */
function isOurs(hostname: string, bound: string): boolean {
  const name = hostname.replace(/^\[|\]$/g, "").toLowerCase();
  return isLoopback(name) || name === bound.toLowerCase() || (!isLoopback(bound) && isIP(name) !== 0);
}

function hostnameOf(host: string): string {
  return URL.canParse(`http://${host}`) && !/[/@?#\\]/.test(host) ? new URL(`http://${host}`).hostname : "";
}

function sameOrigin(origin: string, host: string): boolean {
  return [`http://${host}`, `https://${host}`].some((own) => URL.canParse(own) && new URL(own).origin === origin);
}
