/**
 * One HTTP request and its answer, over TCP or a socket in the file system. Why not what the runtime has: `fetch` asks the proxy of
 * the environment for programs on this very host, and its node:http never ends where the other side hangs up without an answer.
 *
 * It speaks HTTP/1.0 (RFC 1945), whose answers are never in chunks: a head, then `Content-Length` octets, or all until the end.
 */
import type { ListenAddress } from "../lib/listen_address.ts";

export interface ExchangeRequest {
  readonly method: string;
  /** With its query, both encoded. */
  readonly path: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: string;
}

export interface Answer {
  readonly status: number;
  readonly body: string;
}

/** There is nobody to talk to: nothing was sent. */
export class NotConnectedError extends Error {
  override readonly name = "NotConnectedError";
}

export interface Patience {
  /** Called once where the answer lets itself be waited for. */
  readonly onWait?: (() => void) | undefined;
  /** How long it may take; for ever where it is not said. */
  readonly limitMs?: number | undefined;
}

/** Whoever has waited for so long wants to know what for. */
const WAIT_MS = 3000;
/** A router on this host connects at once; one named by hand may be behind a filter that swallows everything. */
const CONNECT_MS = 3000;
/** No answer of ours comes near it. */
const SIZE_LIMIT = 256 * 1024 * 1024;
const HEAD_LIMIT = 64 * 1024;

/** Rejects with `NotConnectedError`, or with an Error for an answer that is late, cut off or cannot be understood. */
export async function exchange(
  address: ListenAddress,
  request: ExchangeRequest,
  { onWait, limitMs }: Patience = {},
): Promise<Answer> {
  using connection = await connect(address);
  const late = Promise.withResolvers<never>();
  const limit = limitMs === undefined
    ? undefined
    : setTimeout(() => late.reject(new Error(`it has not answered within ${limitMs / 1000} s`)), limitMs);
  const wait = onWait && setTimeout(onWait, WAIT_MS);
  try {
    return await Promise.race([converse(connection, address, request), late.promise]);
  } finally {
    clearTimeout(limit);
    clearTimeout(wait);
  }
}

async function converse(connection: Deno.Conn, address: ListenAddress, request: ExchangeRequest): Promise<Answer> {
  await writeAll(connection, new TextEncoder().encode(head(address, request) + (request.body ?? "")));
  return readAnswer(await readAll(connection));
}

async function connect(address: ListenAddress): Promise<Deno.Conn> {
  const connecting: Promise<Deno.Conn> = address.transport === "unix" ? Deno.connect(address) : Deno.connect({
    // A router that listens on every address is on this one as well.
    hostname: address.hostname === "0.0.0.0" ? "127.0.0.1" : address.hostname,
    port: address.port,
  });
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error("connecting timed out")), CONNECT_MS);
  try {
    return await Promise.race([connecting, late.promise]);
  } catch (error) {
    connecting.then((connection) => connection.close(), () => {});
    // Somebody is there who does not talk to us.
    if (error instanceof Deno.errors.PermissionDenied) throw error;
    throw new NotConnectedError((error as Error).message, { cause: error });
  } finally {
    clearTimeout(timer);
  }
}

function head(address: ListenAddress, { method, path, headers, body }: ExchangeRequest): string {
  // A socket in the file system has no name, and the router knows itself by this one.
  const host = address.transport === "unix" ? "localhost" : `${address.hostname}:${address.port}`;
  const length = body === undefined ? {} : { "Content-Length": String(new TextEncoder().encode(body).length) };
  const lines = Object.entries({ Host: host, ...headers, ...length }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${method} ${path} HTTP/1.0\r\n${lines.join("")}\r\n`;
}

async function writeAll(connection: Deno.Conn, octets: Uint8Array): Promise<void> {
  for (let at = 0; at < octets.length;) at += await connection.write(octets.subarray(at));
}

async function readAll(connection: Deno.Conn): Promise<Uint8Array> {
  const chunks: Uint8Array[] = [];
  let size = 0;
  const buffer = new Uint8Array(64 * 1024);
  for (let count = await connection.read(buffer); count !== null; count = await connection.read(buffer)) {
    size += count;
    if (size > SIZE_LIMIT) throw new Error(`its answer has more than ${SIZE_LIMIT} octets`);
    chunks.push(buffer.slice(0, count));
  }
  const all = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

function readAnswer(octets: Uint8Array): Answer {
  const start = new TextDecoder("latin1").decode(octets.subarray(0, HEAD_LIMIT));
  const end = start.indexOf("\r\n\r\n");
  if (end < 0) throw new Error(octets.length === 0 ? "it hung up" : "its answer is cut off");
  const [statusLine = "", ...lines] = start.slice(0, end).split("\r\n");
  const status = /^HTTP\/1\.\d (\d{3})\b/.exec(statusLine)?.[1];
  if (status === undefined) throw new Error("its answer is not HTTP");
  const body = octets.subarray(end + 4);
  const length = lines.map((line) => /^content-length: *(\d+)$/i.exec(line)?.[1]).find((found) => found !== undefined);
  if (length !== undefined && body.length < Number(length)) throw new Error("its answer is cut off");
  return {
    status: Number(status),
    body: new TextDecoder().decode(length === undefined ? body : body.subarray(0, Number(length))),
  };
}
