/**
 * A question to the Docker engine and its answer, whole and within a time; for the router, which must not end with the engine (see
 * docker_events.ts).
 */
import { OperationError } from "../lib/errors.ts";
import { connect } from "./docker_events.ts";

export interface EngineRequest {
  readonly method?: "GET" | "POST" | "DELETE";
  /** With its query, both encoded; without the API's version, so that any engine knows it. */
  readonly path: string;
  /** To be sent as JSON. */
  readonly body?: unknown;
  readonly limitMs?: number;
}

export interface EngineAnswer {
  readonly status: number;
  /** Parsed; undefined where it was empty. */
  readonly json: unknown;
}

const LIMIT_MS = 10_000;
/** Thousands of containers have less. */
const MAX_ANSWER_OCTETS = 64 << 20;
const MAX_HEAD_OCTETS = 64 << 10;

/** Whatever it answers. Rejects with `OperationError` where it does not, or not in time. */
export async function askEngine(request: EngineRequest): Promise<EngineAnswer> {
  const { limitMs = LIMIT_MS } = request;
  const late = Promise.withResolvers<never>();
  const timer = setTimeout(() => late.reject(new Error(`it has not answered within ${limitMs / 1000} s`)), limitMs);
  const opening = connect();
  const conversation = opening.then((connection) => converse(connection, request));
  try {
    return await Promise.race([conversation, late.promise]);
  } catch (error) {
    throw new OperationError(`Cannot ask the Docker engine: ${(error as Error).message}`, 1, { cause: error });
  } finally {
    clearTimeout(timer);
    conversation.catch(() => {});
    opening.then((connection) => connection.close(), () => {});
  }
}

/** The JSON of a good answer; undefined where there is no such thing. */
export async function askEngineFor(path: string, limitMs?: number): Promise<unknown> {
  const { status, json } = await askEngine({ path, ...limitMs === undefined ? {} : { limitMs } });
  if (status === 200) return json;
  if (status === 404) return undefined;
  throw new OperationError(`The Docker engine answers ${status} to ${path}: ${messageOf(json)}`);
}

/** The engine's own words of why not. */
export function messageOf(json: unknown): string {
  const message = (json as { message?: unknown } | null | undefined)?.message;
  return typeof message === "string" ? message : "it does not say why";
}

async function converse(connection: Deno.Conn, request: EngineRequest): Promise<EngineAnswer> {
  const { method = "GET", path, body } = request;
  const content = body === undefined ? "" : JSON.stringify(body);
  const fields = body === undefined
    ? ""
    : `Content-Type: application/json\r\nContent-Length: ${new TextEncoder().encode(content).length}\r\n`;
  const octets = new TextEncoder().encode(`${method} ${path} HTTP/1.0\r\nHost: docker\r\n${fields}\r\n${content}`);
  for (let at = 0; at < octets.length;) at += await connection.write(octets.subarray(at));
  return readAnswer(await readAll(connection));
}

async function readAll(connection: Deno.Conn): Promise<Uint8Array> {
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  for (;;) {
    const buffer = new Uint8Array(16 << 10);
    const count = await connection.read(buffer);
    if (count === null) break;
    total += count;
    if (total > MAX_ANSWER_OCTETS) throw new Error("its answer does not end");
    pieces.push(buffer.subarray(0, count));
  }
  return new Uint8Array(await new Blob(pieces).arrayBuffer());
}

function readAnswer(octets: Uint8Array): EngineAnswer {
  const head = new TextDecoder("latin1").decode(octets.subarray(0, MAX_HEAD_OCTETS));
  const end = head.indexOf("\r\n\r\n");
  const status = /^HTTP\/1\.\d (\d{3}) /.exec(head)?.[1];
  if (end < 0 || status === undefined) throw new Error(octets.length === 0 ? "it hung up" : "its answer is cut off");
  const body = octets.subarray(end + 4);
  const length = /^content-length: *(\d+)\r?$/im.exec(head.slice(0, end))?.[1];
  if (length !== undefined && body.length < Number(length)) throw new Error("its answer is cut off");
  const text = new TextDecoder().decode(body).trim();
  return { status: Number(status), json: text === "" ? undefined : JSON.parse(text) };
}
