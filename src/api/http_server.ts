/**
 * Listens, reads requests, writes answers; decides nothing but when a connection has had its time. One request a connection.
 *
 *     reading ──request──▶ answering ──answer──▶ closing ──▶ closed
 *        └──refused, late, or room is needed───────┴────────────▲
 *
 * When there are as many connections as there may be, no more are accepted until one ends. One whose request has not come for a
 * second is made to, the oldest first, so that a client that leaks connections hurts itself alone and our descriptors stay ours.
 */
import { type Logger, SILENT } from "../lib/log.ts";
import { CONTINUE, encodeResponse, type Head, type HttpRequest, type HttpResponse, RequestReader } from "./http.ts";

export interface HttpServerOptions {
  /** Never rejects. The signal is aborted when the client goes away. */
  readonly handle: (
    request: HttpRequest,
    signal: AbortSignal,
    ends: SocketEnds,
  ) => HttpResponse | Promise<HttpResponse>;
  /** Octets that the body of this request may have; undefined: as any other. */
  readonly bodyLimit?: (head: Head, ends: SocketEnds) => number | undefined;
  readonly log?: Logger;
  readonly limits?: Partial<HttpLimits>;
}

/** Both ends of the connection that a request came on. */
export interface SocketEnds {
  readonly local: Deno.Addr;
  readonly remote: Deno.Addr;
}

export interface HttpLimits {
  readonly connections: number;
  /** How long a connection may wait for its request while others wait to be accepted. */
  readonly patienceMs: number;
  /** From accepting a connection to the last octet of its request. */
  readonly requestMs: number;
  /** For the client to take the answer. */
  readonly answerMs: number;
  /** For the client to close after it. */
  readonly lingerMs: number;
}

const LIMITS: HttpLimits = {
  connections: 256,
  patienceMs: 1_000,
  requestMs: 10_000,
  answerMs: 10_000,
  lingerMs: 500,
};
/** How long `stop()` waits for answers under way. */
const STOP_MS = 1_000;
/** How often to look for room. */
const ROOM_MS = 20;
const READ_OCTETS = 16_384;
/** After a failure to accept, for want of descriptors say. */
const ACCEPT_PAUSE_MS = 100;

export class HttpServer {
  readonly #listener: Deno.Listener;
  readonly #o: HttpServerOptions;
  readonly #limits: HttpLimits;
  readonly #log: Logger;
  /** Oldest first. */
  readonly #connections = new Set<Connection>();
  readonly #accepting: Promise<void>;
  #stopping = false;

  /** Owns the listener from now on. */
  constructor(listener: Deno.Listener, options: HttpServerOptions) {
    this.#listener = listener;
    this.#o = options;
    this.#limits = { ...LIMITS, ...options.limits };
    this.#log = options.log ?? SILENT;
    this.#accepting = this.#acceptAll();
  }

  /** Ends listening at once, and connections when they are answered, after a second at the latest. */
  async stop(): Promise<void> {
    if (this.#stopping) return await this.#accepting;
    this.#stopping = true;
    this.#listener.close();
    const late = setTimeout(() => this.#connections.forEach((connection) => connection.close()), STOP_MS);
    for (const connection of this.#connections) if (connection.reading) connection.close();
    await Promise.all([...this.#connections].map((connection) => connection.done));
    clearTimeout(late);
    await this.#accepting;
  }

  async #acceptAll(): Promise<void> {
    while (!this.#stopping) {
      try {
        this.#serve(await this.#listener.accept());
        await this.#room();
      } catch (error) {
        if (this.#stopping) return;
        this.#log.warn("api connection not accepted", { error: String(error) });
        await delay(ACCEPT_PAUSE_MS);
      }
    }
  }

  #serve(socket: Deno.Conn): void {
    const connection = new Connection(socket, this.#o, this.#limits);
    this.#connections.add(connection);
    connection.done.then(() => this.#connections.delete(connection));
  }

  /** Waits until another connection may be accepted. */
  async #room(): Promise<void> {
    while (this.#connections.size >= this.#limits.connections && !this.#stopping) {
      const oldest = [...this.#connections].find((connection) => connection.reading);
      if (oldest !== undefined && oldest.ageMs >= this.#limits.patienceMs) oldest.close();
      await delay(ROOM_MS);
    }
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

class Connection {
  readonly #acceptedAt = performance.now();
  readonly #done = Promise.withResolvers<void>();
  readonly #socket: Deno.Conn;
  readonly #limits: HttpLimits;
  readonly #o: HttpServerOptions;
  readonly #ends: SocketEnds;
  readonly #gone = new AbortController();
  /** The one read there may be at a time, once the request is there. */
  #pendingRead: Promise<number | null> = Promise.resolve(0);
  #timer: number | undefined;
  #reading = true;
  #closed = false;

  constructor(socket: Deno.Conn, options: HttpServerOptions, limits: HttpLimits) {
    this.#socket = socket;
    this.#ends = { local: socket.localAddr, remote: socket.remoteAddr };
    this.#o = options;
    this.#limits = limits;
    this.#run().catch(() => {}).finally(() => this.close());
  }

  /** Resolves when the socket is closed, be it that its request is still being handled; never rejects. */
  get done(): Promise<void> {
    return this.#done.promise;
  }

  get reading(): boolean {
    return this.#reading;
  }

  get ageMs(): number {
    return performance.now() - this.#acceptedAt;
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#gone.abort();
    this.#socket.close();
    this.#done.resolve();
  }

  /** Every rejection in here is the client's going away, or our closing. */
  async #run(): Promise<void> {
    this.#closeAfter(this.#limits.requestMs);
    const octets = await this.#answer();
    if (octets === undefined) return;
    this.#closeAfter(this.#limits.answerMs);
    await writeAll(this.#socket, octets);
    await this.#socket.closeWrite();
    // Closing with unread octets would reset the connection, and the client might lose the answer.
    this.#closeAfter(this.#limits.lingerMs);
    const buffer = new Uint8Array(READ_OCTETS);
    while (await this.#pendingRead !== null) this.#pendingRead = this.#socket.read(buffer);
  }

  async #answer(): Promise<Uint8Array | undefined> {
    const read = await this.#readRequest();
    this.#reading = false;
    if (read === undefined) return undefined;
    if ("status" in read) return encodeResponse(read);
    clearTimeout(this.#timer);
    // What a client still sends is of no interest, that it goes away is.
    this.#pendingRead = this.#socket.read(new Uint8Array(READ_OCTETS));
    this.#pendingRead.then((count) => count === null && this.#gone.abort(), () => this.#gone.abort());
    const response = await this.#o.handle(read, this.#gone.signal, this.#ends);
    return encodeResponse(response, { withoutBody: read.method === "HEAD" });
  }

  /** undefined when the client closed before it had said all. */
  async #readRequest(): Promise<HttpRequest | HttpResponse | undefined> {
    const reader = new RequestReader((head) => this.#o.bodyLimit?.(head, this.#ends));
    const buffer = new Uint8Array(READ_OCTETS);
    for (;;) {
      const count = await this.#socket.read(buffer);
      if (count === null) return undefined;
      const progress = reader.handleOctets(buffer.subarray(0, count));
      if (progress.is === "request") return progress.request;
      if (progress.is === "refused") return progress.response;
      if (progress.expectsContinue) await writeAll(this.#socket, CONTINUE);
    }
  }

  #closeAfter(ms: number): void {
    clearTimeout(this.#timer);
    if (!this.#closed) this.#timer = setTimeout(() => this.close(), ms);
  }
}

async function writeAll(socket: Deno.Conn, octets: Uint8Array): Promise<void> {
  let written = 0;
  while (written < octets.length) written += await socket.write(octets.subarray(written));
}
