/**
 * HTTP/1.1 (RFC 9112) as a proxy needs it: heads are read, and written again as they were; of bodies it says where they end. Octets
 * in, octets out. Nothing here waits.
 */

/** Of a request or an answer. */
export interface Head {
  /** Without its line end. */
  readonly start: string;
  /** In their order, names as they were written. */
  readonly fields: readonly (readonly [name: string, value: string])[];
}

export interface RequestHead extends Head {
  readonly method: string;
  readonly target: string;
  readonly version: string;
}

export interface ResponseHead extends Head {
  readonly status: number;
  readonly version: string;
}

/** What an engine takes: Go's limit. */
export const MAX_HEAD_OCTETS = 1 << 20;
const MAX_FIELDS = 1000;
const CR = 13;
const LF = 10;
const FIELD = /^([!#$%&'*+\-.^_`|~0-9A-Za-z]+):[\t ]*([\t\x20-\x7e\x80-\xff]*?)[\t ]*$/;

/** Octets that are no HTTP, or too many of them; the message is for the other side. */
export class HttpError extends Error {
  override readonly name = "HttpError";
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

/** The length of a head, its empty line included; undefined where it has not ended yet. Empty lines before it count as part of it. */
export function headLength(octets: Uint8Array, from = 0): number | undefined {
  let content = false;
  for (let at = octets.indexOf(LF, from); at >= 0; at = octets.indexOf(LF, at + 1)) {
    const empty = at === 0 || octets[at - 1] === LF || octets[at - 1] === CR && (at === 1 || octets[at - 2] === LF);
    if (empty && content) return at + 1;
    content ||= !empty;
  }
  return undefined;
}

export function parseRequest(octets: Uint8Array): RequestHead {
  const head = parseHead(octets);
  const [, method, target, version] = /^([A-Za-z]+) ([\x21-\x7e\x80-\xff]+) HTTP\/(1\.[01])$/.exec(head.start) ?? [];
  if (method === undefined) throw new HttpError(400, "Malformed request line");
  return { ...head, method, target: target!, version: version! };
}

export function parseResponse(octets: Uint8Array): ResponseHead {
  const head = parseHead(octets);
  const [, version, status] = /^HTTP\/(1\.[01]) (\d{3})(?: [\t\x20-\x7e\x80-\xff]*)?$/.exec(head.start) ?? [];
  if (status === undefined) throw new HttpError(502, "Docker's answer is not HTTP");
  return { ...head, version: version!, status: Number(status) };
}

function parseHead(octets: Uint8Array): Head {
  const [start, ...lines] = characters(octets).replace(/^[\r\n]+|[\r\n]+$/g, "").split(/\r?\n/);
  if (lines.length > MAX_FIELDS) throw new HttpError(431, "Too many headers");
  const fields = lines.map((line) => {
    const [, name, value] = FIELD.exec(line) ?? [];
    if (name === undefined) throw new HttpError(400, "Malformed header");
    return [name, value!] as const;
  });
  return { start: start!, fields };
}

/** One each. (What the runtime calls latin1 is another set.) */
function characters(octets: Uint8Array): string {
  let text = "";
  for (let at = 0; at < octets.length; at += 4096) text += String.fromCharCode(...octets.subarray(at, at + 4096));
  return text;
}

export function printHead({ start, fields }: Head): Uint8Array<ArrayBuffer> {
  const text = `${start}\r\n${fields.map(([name, value]) => `${name}: ${value}\r\n`).join("")}\r\n`;
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

/** Of several of one name, joined by a comma; undefined where there is none. */
export function field({ fields }: Head, name: string): string | undefined {
  const values = fields.filter(([other]) => other.toLowerCase() === name).map(([, value]) => value);
  return values.length === 0 ? undefined : values.join(", ");
}

/** The same head with other fields of these names; undefined takes one away. */
export function withFields<H extends Head>(head: H, changes: Readonly<Record<string, string | undefined>>): H {
  const changed = new Set(Object.keys(changes).map((name) => name.toLowerCase()));
  const added = Object.entries(changes).filter((change): change is [string, string] => change[1] !== undefined);
  return { ...head, fields: [...head.fields.filter(([name]) => !changed.has(name.toLowerCase())), ...added] };
}

export type Framing =
  | { readonly by: "length"; readonly octets: number }
  | { readonly by: "chunks" }
  /** Until the connection ends. */
  | { readonly by: "end" };

const NOTHING: Framing = { by: "length", octets: 0 };

export function requestFraming(head: RequestHead): Framing {
  const coding = field(head, "transfer-encoding");
  const length = field(head, "content-length");
  if (coding !== undefined) {
    if (length !== undefined) throw new HttpError(400, "Both Content-Length and Transfer-Encoding");
    if (coding.toLowerCase() !== "chunked") throw new HttpError(501, "Transfer coding not supported");
    return { by: "chunks" };
  }
  return length === undefined ? NOTHING : { by: "length", octets: lengthOf(length, 400) };
}

export function responseFraming(head: ResponseHead, method: string): Framing {
  if (method === "HEAD" || head.status < 200 || head.status === 204 || head.status === 304) return NOTHING;
  if (field(head, "transfer-encoding")?.toLowerCase().endsWith("chunked")) return { by: "chunks" };
  const length = field(head, "content-length");
  return length === undefined ? { by: "end" } : { by: "length", octets: lengthOf(length, 502) };
}

function lengthOf(text: string, status: number): number {
  // The same one twice is one.
  const [first, ...rest] = text.split(/\s*,\s*/);
  if (!/^\d{1,15}$/.test(first!) || rest.some((other) => other !== first)) {
    throw new HttpError(status, "Malformed Content-Length");
  }
  return Number(first);
}

/** Whether the connection may carry another request afterwards. */
export function staysOpen(head: RequestHead | ResponseHead): boolean {
  const words = (field(head, "connection") ?? "").toLowerCase().split(/\s*,\s*/);
  return head.version === "1.1" ? !words.includes("close") : words.includes("keep-alive");
}

/** Finds the end of a body in octets that pass by. */
export interface BodyEnd {
  readonly done: boolean;
  /** The end of the connection is its end, and no failure. */
  readonly endsWithConnection: boolean;
  /** How many of these octets belong to it. @param onContent gets what it says, without chunks, borrowed */
  take(octets: Uint8Array, onContent?: (octets: Uint8Array) => void): number;
}

export function bodyEnd(framing: Framing): BodyEnd {
  switch (framing.by) {
    case "length":
      return new SizedBody(framing.octets);
    case "chunks":
      return new ChunkedBody();
    case "end":
      return new EndlessBody();
    default:
      return framing satisfies never;
  }
}

class SizedBody implements BodyEnd {
  readonly endsWithConnection = false;
  #left: number;

  constructor(octets: number) {
    this.#left = octets;
  }

  get done(): boolean {
    return this.#left === 0;
  }

  take(octets: Uint8Array, onContent?: (octets: Uint8Array) => void): number {
    const count = Math.min(octets.length, this.#left);
    this.#left -= count;
    if (count > 0) onContent?.(octets.subarray(0, count));
    return count;
  }
}

class EndlessBody implements BodyEnd {
  readonly done = false;
  readonly endsWithConnection = true;

  take(octets: Uint8Array, onContent?: (octets: Uint8Array) => void): number {
    onContent?.(octets);
    return octets.length;
  }
}

const MAX_CHUNK_LINE = 4096;
const MAX_TRAILERS = 65_536;

/** RFC 9112 §7.1. Of extensions and trailers only the length matters. */
class ChunkedBody implements BodyEnd {
  readonly endsWithConnection = false;
  #state: "size" | "content" | "content end" | "trailers" | "done" = "size";
  #left = 0;
  #line = "";
  #trailers = 0;

  get done(): boolean {
    return this.#state === "done";
  }

  take(octets: Uint8Array, onContent?: (octets: Uint8Array) => void): number {
    let at = 0;
    while (at < octets.length && this.#state !== "done") {
      if (this.#state === "content") {
        const end = Math.min(octets.length, at + this.#left);
        onContent?.(octets.subarray(at, end));
        this.#left -= end - at;
        at = end;
        if (this.#left === 0) this.#state = "content end";
      } else this.#takeOfLine(octets[at++]!);
    }
    return at;
  }

  #takeOfLine(octet: number): void {
    if (octet !== LF) {
      if (this.#line.length === MAX_CHUNK_LINE) throw new HttpError(400, "Malformed chunk");
      this.#line += String.fromCharCode(octet);
      return;
    }
    const line = this.#line.endsWith("\r") ? this.#line.slice(0, -1) : this.#line;
    this.#line = "";
    if (this.#state === "content end") {
      if (line !== "") throw new HttpError(400, "Malformed chunk");
      this.#state = "size";
    } else if (this.#state === "trailers") {
      this.#trailers += line.length;
      if (this.#trailers > MAX_TRAILERS) throw new HttpError(431, "Trailers too large");
      if (line === "") this.#state = "done";
    } else {
      const size = /^([0-9a-fA-F]{1,12})[\t ]*(;.*)?$/.exec(line)?.[1];
      if (size === undefined) throw new HttpError(400, "Malformed chunk");
      this.#left = parseInt(size, 16);
      this.#state = this.#left === 0 ? "trailers" : "content";
    }
  }
}

/** An answer of our own, as the engine words one. */
export function ownAnswer(status: number, message: string): Uint8Array<ArrayBuffer> {
  const body = new TextEncoder().encode(JSON.stringify({ message }) + "\n");
  const head = `HTTP/1.1 ${status} ${REASONS[status] ?? "Error"}\r\nContent-Type: application/json\r\n` +
    `Content-Length: ${body.length}\r\nConnection: close\r\n\r\n`;
  return joined(new TextEncoder().encode(head), body);
}

const REASONS: Readonly<Record<number, string>> = {
  400: "Bad Request",
  404: "Not Found",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  502: "Bad Gateway",
};

export function joined(...parts: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const all = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    all.set(part, at);
    at += part.length;
  }
  return all;
}
