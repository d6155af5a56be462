/**
 * HTTP/1.1 (RFC 9112) as far as a local API needs it: one request a connection, small, with its body whole in memory. Pure: octets
 * in, a request or a refusal out. `Deno.serve` is not used because it sets no limit on connections, on the time a request takes to
 * arrive, or on idle clients, and anybody on the host can connect.
 */

/** Octets of request line and headers; a template for `report` travels in the request line. */
const MAX_HEAD_OCTETS = 32_768;
const MAX_HEADERS = 100;
/** Octets of a body, after and before its chunks are put together, where nothing else is said. */
const MAX_BODY_OCTETS = 65_536;
const MAX_CHUNK_LINE_OCTETS = 256;
const FIRST_CHUNK_OCTETS = 16_384;

const CR = 13;
const LF = 10;
const TOKEN = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
/** What a header's value may hold: no control characters but the tab. */
const FIELD_VALUE = /^[\t\x20-\x7e\x80-\xff]*$/;

export interface HttpRequest {
  readonly method: string;
  /** Path and query as they came: begins with a slash, still percent-encoded. */
  readonly target: string;
  /** By lower-case name; several of one name are joined by a comma. */
  readonly headers: ReadonlyMap<string, string>;
  readonly body: Uint8Array;
}

export interface HttpResponse {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
}

export type Progress =
  | {
    readonly is: "incomplete"; /** The client waits for "100 Continue" before it sends the body. */
    readonly expectsContinue: boolean;
  }
  | { readonly is: "request"; readonly request: HttpRequest }
  | { readonly is: "refused"; readonly response: HttpResponse };

/** Thrown inside the reader only. */
class Refusal extends Error {
  constructor(readonly status: number, reason: string) {
    super(reason);
  }
}

/** What comes before the body. */
export interface Head {
  readonly method: string;
  readonly target: string;
  readonly headers: ReadonlyMap<string, string>;
}

/** Takes the octets of one connection, cut anywhere. */
export class RequestReader {
  readonly #head = new Uint8Array(MAX_HEAD_OCTETS);
  #headLength = 0;
  #parsed: Head | undefined;
  #body: BodyReader | undefined;
  readonly #limitOf: (head: Head) => number | undefined;

  /** @param limitOf octets that a body may have whose length is said before; undefined: as any other */
  constructor(limitOf: (head: Head) => number | undefined = () => undefined) {
    this.#limitOf = limitOf;
  }

  /** Not to be called again once it has returned a request or a refusal. Octets after the request are ignored. */
  handleOctets(octets: Uint8Array): Progress {
    try {
      return this.#take(octets);
    } catch (error) {
      if (!(error instanceof Refusal)) throw error;
      return { is: "refused", response: { status: error.status, body: `${error.message}\n` } };
    }
  }

  #take(octets: Uint8Array): Progress {
    let used = 0;
    let headIsNew = false;
    while (this.#parsed === undefined && used < octets.length) {
      if (this.#headLength === MAX_HEAD_OCTETS) throw new Refusal(431, "Request head too large");
      this.#head[this.#headLength++] = octets[used++]!;
      if (!this.#headIsComplete()) continue;
      this.#parsed = parseHead(latin1(this.#head.subarray(0, this.#headLength)));
      this.#body = bodyReader(this.#parsed.headers, this.#limitOf(this.#parsed) ?? MAX_BODY_OCTETS);
      headIsNew = true;
    }
    const head = this.#parsed;
    if (head === undefined) return { is: "incomplete", expectsContinue: false };
    const body = this.#body!.take(octets.subarray(used));
    if (body !== undefined) return { is: "request", request: { ...head, body } };
    return { is: "incomplete", expectsContinue: headIsNew && expectsContinue(head) };
  }

  /** An empty line ends the head; a bare LF counts as a line end. Empty lines before the request line are skipped. */
  #headIsComplete(): boolean {
    const head = this.#head;
    const end = this.#headLength;
    if (head[end - 1] !== LF) return false;
    const lineStart = head[end - 2] === CR ? end - 2 : end - 1;
    if (lineStart === 0) {
      this.#headLength = 0;
      return false;
    }
    return head[lineStart - 1] === LF;
  }
}

function parseHead(text: string): Head {
  const [requestLine, ...lines] = text.trimEnd().split(/\r?\n/);
  const [, method, target, version] = /^(\S+) ([\x21-\x7e]+) HTTP\/(\d\.\d)$/.exec(requestLine!) ?? [];
  if (method === undefined || target === undefined || !TOKEN.test(method)) {
    throw new Refusal(400, "Malformed request line");
  }
  if (version !== "1.1" && version !== "1.0") throw new Refusal(505, "HTTP version not supported");
  if (!target.startsWith("/")) throw new Refusal(400, "Request target is no path");
  if (lines.length > MAX_HEADERS) throw new Refusal(431, "Too many headers");
  const headers = new Map<string, string>();
  for (const line of lines) {
    const colon = line.indexOf(":");
    const name = line.slice(0, colon).toLowerCase();
    const value = line.slice(colon + 1).trim();
    if (colon < 0 || !TOKEN.test(name) || !FIELD_VALUE.test(value)) throw new Refusal(400, "Malformed header");
    const before = headers.get(name);
    if (before !== undefined && (name === "host" || name === "content-length")) {
      throw new Refusal(400, `More than one ${name} header`);
    }
    headers.set(name, before === undefined ? value : `${before}, ${value}`);
  }
  if (version === "1.1" && !headers.has("host")) throw new Refusal(400, "Host header missing");
  return { method, target, headers };
}

function expectsContinue(head: Head): boolean {
  return head.headers.get("expect")?.toLowerCase() === "100-continue";
}

interface BodyReader {
  /** The whole body once it is there. */
  take(octets: Uint8Array): Uint8Array | undefined;
}

function bodyReader(headers: ReadonlyMap<string, string>, limit: number): BodyReader {
  const coding = headers.get("transfer-encoding");
  const length = headers.get("content-length");
  if (coding === undefined) return new SizedBody(length ?? "0", limit);
  if (length !== undefined) throw new Refusal(400, "Both content-length and transfer-encoding");
  if (coding.toLowerCase() !== "chunked") throw new Refusal(501, "Transfer coding not supported");
  return new ChunkedBody(limit);
}

function tooLarge(limit: number): Refusal {
  return new Refusal(413, `Request body larger than ${limit} octets`);
}

class SizedBody implements BodyReader {
  readonly #octets: Uint8Array;
  #have = 0;

  constructor(length: string, limit: number) {
    if (!/^\d{1,15}$/.test(length)) throw new Refusal(400, "Malformed content-length");
    if (Number(length) > limit) throw tooLarge(limit);
    this.#octets = new Uint8Array(Number(length));
  }

  take(octets: Uint8Array): Uint8Array | undefined {
    const part = octets.subarray(0, this.#octets.length - this.#have);
    this.#octets.set(part, this.#have);
    this.#have += part.length;
    return this.#have === this.#octets.length ? this.#octets : undefined;
  }
}

/** Chunks (RFC 9112 §7.1); extensions and trailers are skipped. All of it, not only the content, is held to the limit. */
class ChunkedBody implements BodyReader {
  readonly #limit: number;
  /** Grows as chunks come. */
  #octets = new Uint8Array(FIRST_CHUNK_OCTETS);
  #have = 0;
  #seen = 0;
  #line = "";
  /** Octets of the chunk still to come; -1 while a size line is read, -2 while the line end after a chunk is, -3 in trailers. */
  #left = -1;

  constructor(limit: number) {
    this.#limit = limit;
  }

  take(octets: Uint8Array): Uint8Array | undefined {
    let at = 0;
    while (at < octets.length) {
      const before = at;
      if (this.#left > 0) {
        const part = octets.subarray(at, at + this.#left);
        this.#append(part);
        this.#left -= part.length;
        at += part.length;
        if (this.#left === 0) this.#left = -2;
      } else if (this.#takeLine(octets[at++]!)) {
        return this.#octets.subarray(0, this.#have);
      }
      this.#seen += at - before;
      if (this.#seen > 2 * this.#limit) throw tooLarge(this.#limit);
    }
    return undefined;
  }

  #append(part: Uint8Array): void {
    const length = this.#have + part.length;
    if (length > this.#limit) throw tooLarge(this.#limit);
    if (length > this.#octets.length) {
      const larger = new Uint8Array(Math.min(this.#limit, Math.max(length, 2 * this.#octets.length)));
      larger.set(this.#octets.subarray(0, this.#have));
      this.#octets = larger;
    }
    this.#octets.set(part, this.#have);
    this.#have = length;
  }

  /** Takes an octet of a line; true at the end of the body. */
  #takeLine(octet: number): boolean {
    if (octet !== LF) {
      if (this.#line.length === MAX_CHUNK_LINE_OCTETS) throw new Refusal(400, "Malformed chunk");
      this.#line += String.fromCharCode(octet);
      return false;
    }
    const line = this.#line.endsWith("\r") ? this.#line.slice(0, -1) : this.#line;
    this.#line = "";
    if (this.#left === -3) return line === "";
    if (this.#left === -2) {
      if (line !== "") throw new Refusal(400, "Malformed chunk");
      this.#left = -1;
      return false;
    }
    const size = /^([0-9a-fA-F]{1,8})\s*(;.*)?$/.exec(line)?.[1];
    if (size === undefined) throw new Refusal(400, "Malformed chunk");
    if (parseInt(size, 16) > this.#limit) throw tooLarge(this.#limit);
    this.#left = parseInt(size, 16) || -3;
    return false;
  }
}

function latin1(octets: Uint8Array): string {
  return new TextDecoder("latin1").decode(octets);
}

const REASONS: Readonly<Record<number, string>> = {
  200: "OK",
  204: "No Content",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  409: "Conflict",
  413: "Content Too Large",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  503: "Service Unavailable",
  505: "HTTP Version Not Supported",
};

export const CONTINUE: Uint8Array = new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n");

/** A response as octets; the connection ends after it. `withoutBody` is for an answer to HEAD. */
export function encodeResponse(response: HttpResponse, { withoutBody = false } = {}): Uint8Array {
  const { status, headers = {}, body = "" } = response;
  const octets = new TextEncoder().encode(body);
  const fields: Record<string, string> = { ...headers, "Connection": "close" };
  if (status !== 204) fields["Content-Length"] = String(octets.length);
  if (octets.length > 0) fields["Content-Type"] ??= "text/plain; charset=utf-8";
  const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`);
  const head = new TextEncoder().encode(`HTTP/1.1 ${status} ${REASONS[status] ?? "Unknown"}\r\n${lines.join("")}\r\n`);
  if (withoutBody || status === 204) return head;
  const all = new Uint8Array(head.length + octets.length);
  all.set(head);
  all.set(octets, head.length);
  return all;
}
