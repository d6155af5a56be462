/**
 * What happens to Docker's containers, as the engine tells it. HTTP/1.0 needs no client: an answer goes on until the connection ends. An
 * HTTP client from elsewhere, where an engine dies in the middle of an answer, rejects a promise that nobody has, which would end the
 * router.
 */
import { join } from "node:path";
import type { Logger } from "../lib/log.ts";
import { dockerIsThere, SOCKET } from "./docker.ts";

/** What happens to containers; ids are whole. */
export interface ContainerListener {
  /** All that run: at first, and whenever something may have been missed. What is told afterwards happened later, or once more. */
  running(ids: ReadonlySet<string>): void;
  /** Now and then, as an engine drops events for whoever is slow: all that run, or are about to. */
  present?(ids: ReadonlySet<string>): void;
  started(id: string): void;
  died(id: string): void;
  /** It is removed. */
  destroyed(id: string): void;
  /** It was put into a network of Docker or taken out of one, running or not. */
  networksChanged?(id: string): void;
  /** Nothing is told until the next `running`: the engine has ended. */
  gone?(): void;
}

/** The engine may not be there yet, or go for a while. Nobody else is troubled where it is on this host. */
const FIRST_RETRY_MS = 1_000;
const LAST_RETRY_MS = { here: 2_000, elsewhere: 20_000 } as const;
const PRESENT_EVERY_MS = 60_000;
/** An event has some hundred octets; a line that does not end is none. */
const MAX_LINE_OCTETS = 1 << 20;
const MAX_LIST_OCTETS = 64 << 20;
const MAX_HEADER_OCTETS = 64 << 10;
const FILTERS = JSON.stringify({
  type: ["container", "network"],
  event: ["start", "die", "destroy", "connect", "disconnect"],
});

/** Tells of Docker's containers until it is stopped, across restarts of the engine. */
export class ContainerWatch {
  readonly #listener: ContainerListener;
  readonly #log: Logger;
  #events: Answer | undefined;
  #timer: number | undefined;
  #retryMs = FIRST_RETRY_MS;
  readonly #presentEveryMs: number;
  /** What happened while the list was asked for: it may be older. */
  #meanwhile: Map<string, "started" | "died"> | undefined;
  #stopped = false;

  constructor(
    o: { readonly listener: ContainerListener; readonly log: Logger; readonly presentEveryMs?: number },
  ) {
    this.#listener = o.listener;
    this.#log = o.log;
    this.#presentEveryMs = o.presentEveryMs ?? PRESENT_EVERY_MS;
    void this.#follow();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#events?.close();
  }

  async #follow(): Promise<void> {
    try {
      if (!dockerIsThere()) throw new Error("there is no engine");
      // Before all that run are asked for, so that nothing happens in between.
      using events = await ask(`/events?filters=${encodeURIComponent(FILTERS)}`);
      this.#events = events;
      if (!this.#stopped) await this.#read(events);
    } catch (error) {
      this.#log.debug("containers of Docker cannot be followed", { error: (error as Error).message });
    }
    this.#events = undefined;
    if (this.#stopped) return;
    this.#listener.gone?.();
    this.#timer = setTimeout(() => void this.#follow(), this.#retryMs);
    this.#retryMs = Math.min(this.#retryMs * 1.5, LAST_RETRY_MS[isHere() ? "here" : "elsewhere"]);
  }

  /** Resolves when the engine has ended. */
  async #read(events: Answer): Promise<void> {
    const ids = await listIds("/containers/json");
    if (this.#stopped) return;
    this.#retryMs = FIRST_RETRY_MS;
    this.#listener.running(ids);
    const timer = setInterval(() => void this.#tellPresent(events), this.#presentEveryMs);
    try {
      await this.#readEvents(events);
    } finally {
      clearInterval(timer);
    }
  }

  async #tellPresent(events: Answer): Promise<void> {
    if (this.#listener.present === undefined || this.#meanwhile !== undefined) return;
    const meanwhile = this.#meanwhile = new Map<string, "started" | "died">();
    try {
      const ids = new Set(await listIds(PRESENT));
      for (const [id, what] of meanwhile) {
        if (what === "started") ids.add(id);
        else ids.delete(id);
      }
      if (this.#events === events && !this.#stopped) this.#listener.present(ids);
    } catch (error) {
      this.#log.debug("containers of Docker cannot be listed", { error: (error as Error).message });
    } finally {
      this.#meanwhile = undefined;
    }
  }

  async #readEvents(events: Answer): Promise<void> {
    const decoder = new TextDecoder();
    let rest = "";
    for (let octets = await events.read(); octets !== undefined; octets = await events.read()) {
      const lines = (rest + decoder.decode(octets, { stream: true })).split("\n");
      rest = lines.pop()!;
      if (rest.length > MAX_LINE_OCTETS) throw new Error("a line of events does not end");
      for (const line of lines) if (line.trim() !== "") this.#tell(line);
    }
  }

  #tell(line: string): void {
    if (this.#stopped) return;
    let event: {
      readonly Type?: unknown;
      readonly Action?: unknown;
      readonly Actor?: { readonly ID?: unknown; readonly Attributes?: { readonly container?: unknown } };
    } | null;
    try {
      event = JSON.parse(line);
    } catch {
      return;
    }
    const ofNetwork = event?.Type === "network";
    const id = ofNetwork ? event?.Actor?.Attributes?.container : event?.Actor?.ID;
    if (typeof id !== "string" || !/^[0-9a-f]{64}$/.test(id)) return;
    if (ofNetwork) this.#listener.networksChanged?.(id);
    else if (event!.Action === "start") {
      this.#meanwhile?.set(id, "started");
      this.#listener.started(id);
    } else if (event!.Action === "die") {
      this.#meanwhile?.set(id, "died");
      this.#listener.died(id);
    } else if (event!.Action === "destroy") this.#listener.destroyed(id);
  }
}

/** Those that are being started have names and addresses already. */
const PRESENT = `/containers/json?all=1&filters=${
  encodeURIComponent(JSON.stringify({ status: ["created", "running", "paused", "restarting"] }))
}`;

async function listIds(path: string): Promise<ReadonlySet<string>> {
  using answer = await ask(path);
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  let total = 0;
  for (let octets = await answer.read(); octets !== undefined; octets = await answer.read()) {
    total += octets.length;
    if (total > MAX_LIST_OCTETS) throw new Error("its list of containers does not end");
    pieces.push(octets);
  }
  const list: unknown = JSON.parse(await new Blob(pieces).text());
  if (!Array.isArray(list)) throw new Error("its list of containers is none");
  return new Set(list.map((container) => String((container as { Id?: unknown } | null)?.Id)));
}

/** The body of an answer that was good. */
class Answer implements Disposable {
  readonly #connection: Deno.Conn;
  #first: Uint8Array<ArrayBuffer> | undefined;
  #closed = false;

  constructor(connection: Deno.Conn, first: Uint8Array<ArrayBuffer>) {
    this.#connection = connection;
    this.#first = first;
  }

  /** The next octets; undefined at the end, and after `close()`. */
  async read(): Promise<Uint8Array<ArrayBuffer> | undefined> {
    const first = this.#first;
    this.#first = undefined;
    if (first !== undefined && first.length > 0) return first;
    const buffer = new Uint8Array(16 << 10);
    try {
      const count = await this.#connection.read(buffer);
      return count === null ? undefined : buffer.subarray(0, count);
    } catch (error) {
      if (this.#closed) return undefined;
      throw error;
    }
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

async function ask(path: string): Promise<Answer> {
  const connection = await connect();
  try {
    const request = new TextEncoder().encode(`GET ${path} HTTP/1.0\r\nHost: docker\r\n\r\n`);
    for (let at = 0; at < request.length;) at += await connection.write(request.subarray(at));
    return new Answer(connection, await readHeader(connection));
  } catch (error) {
    connection.close();
    throw error;
  }
}

/** Reads to the end of the header; what came behind it. */
async function readHeader(connection: Deno.Conn): Promise<Uint8Array<ArrayBuffer>> {
  const buffer = new Uint8Array(MAX_HEADER_OCTETS);
  for (let length = 0; length < buffer.length;) {
    const count = await connection.read(buffer.subarray(length));
    if (count === null) break;
    length += count;
    const text = new TextDecoder("latin1").decode(buffer.subarray(0, length));
    const end = text.indexOf("\r\n\r\n");
    if (end < 0) continue;
    if (!/^HTTP\/1\.\d 200 /.test(text)) throw new Error(`it answers "${text.split("\r\n", 1)[0]!.slice(0, 100)}"`);
    return buffer.slice(end + 4, length);
  }
  throw new Error("it does not answer");
}

/** Whether the engine is reached through a socket of this host. */
function isHere(): boolean {
  return (Deno.env.get("DOCKER_HOST") || `unix://${SOCKET}`).startsWith("unix://");
}

/** As the docker program finds its engine, TLS included. */
export async function connect(): Promise<Deno.Conn> {
  const host = Deno.env.get("DOCKER_HOST") || `unix://${SOCKET}`;
  const path = /^unix:\/\/(.*)$/.exec(host)?.[1];
  if (path !== undefined) return await Deno.connect({ transport: "unix", path });
  const [, hostname, port] = /^(?:tcp|https?):\/\/([^/:]+|\[[^\]]+\])(?::(\d+))?/.exec(host) ?? [];
  if (hostname === undefined) throw new Error(`DOCKER_HOST is "${host}"`);
  const folder = Deno.env.get("DOCKER_CERT_PATH");
  if (!Deno.env.get("DOCKER_TLS_VERIFY")) return await Deno.connect({ hostname, port: Number(port ?? 2375) });
  const read = (name: string) => Deno.readTextFile(join(folder ?? join(Deno.env.get("HOME") ?? "/", ".docker"), name));
  const [ca, cert, key] = await Promise.all([read("ca.pem"), read("cert.pem"), read("key.pem")]);
  return await Deno.connectTls({ hostname, port: Number(port ?? 2376), caCerts: [ca], cert, key });
}
