/**
 * One client of the proxy and the engine's side of it: request for request, each handed on as it comes and its answer back, until either
 * hangs up. What a call wants changed is whole in memory before it goes on; nothing else ever is.
 *
 *     client ── head ──▶ plan ──▶ head, body ──▶ engine
 *     client ◀── head, body ◀── settle ◀── head ── engine           101, or a body without end to a POST: both ways, until both end
 *
 * Whoever hangs up is passed on as he did it: the end of what a client says closes that half of the engine's connection, and what the
 * engine does then is its business.
 */
import {
  type BodyEnd,
  bodyEnd,
  field,
  type Framing,
  HttpError,
  joined,
  ownAnswer,
  parseRequest,
  parseResponse,
  printHead,
  requestFraming,
  type RequestHead,
  responseFraming,
  type ResponseHead,
  staysOpen,
  withFields,
} from "../proxy/http.ts";
import { type Duplex, Input, writeAll } from "./proxy_streams.ts";

/** What a call wants; nothing of it: it goes through as it is. */
export interface Plan {
  /**
   * Gets the body of the request, whole.
   * @returns the body to send instead, undefined for the same one. Rejects with `Refusal` where the engine shall not be asked.
   */
  readonly request?: (body: string) => Promise<string | undefined>;
  /**
   * Gets what the engine answers, before it goes back.
   * @returns the body to send instead, undefined for the same one. Rejects with `Refusal` to answer something else.
   */
  readonly settle?: (status: number, body: () => Promise<string>) => Promise<string | undefined>;
  /** However it ended. */
  readonly done?: () => void;
}

/** The client's answer is ours. */
export class Refusal extends Error {
  override readonly name = "Refusal";
  constructor(readonly status: number, message: string) {
    super(message);
  }
}

export interface ConnectionOptions {
  readonly client: Duplex;
  readonly connectEngine: () => Promise<Duplex>;
  readonly plan: (request: RequestHead) => Plan | undefined;
}

/** What a container may be made from, and what an engine says of one. */
const MAX_REQUEST_OCTETS = 4 << 20;
const MAX_ANSWER_OCTETS = 64 << 20;
/** How long a client may go on sending after its answer, so that the answer is not lost with the connection. */
const LINGER_MS = 1_000;
/** How often to look whether who says nothing any more has gone altogether. */
const PROBE_MS = 1_000;
const CONTINUE = new TextEncoder().encode("HTTP/1.1 100 Continue\r\n\r\n");

export class ProxyConnection {
  readonly #o: ConnectionOptions;
  readonly #client: Duplex;
  readonly #fromClient: Input;
  #engine: { readonly connection: Duplex; readonly input: Input } | undefined;
  /** The request is on its way to the engine: resolves to whether all of it could be sent, and never rejects. */
  #sent: Promise<boolean> = Promise.resolve(true);
  /** Nothing of a request is there: it may be closed when room is needed. */
  #idle = true;
  readonly #closed = new AbortController();

  constructor(o: ConnectionOptions) {
    this.#o = o;
    this.#client = o.client;
    this.#fromClient = new Input(o.client);
  }

  get idle(): boolean {
    return this.#idle;
  }

  /** Resolves when both sides are closed. Never rejects. */
  async serve(): Promise<void> {
    try {
      while (await this.#exchange());
    } catch (error) {
      if (error instanceof HttpError || error instanceof Refusal) await this.#refuse(error).catch(() => {});
      // Anything else is a connection that broke: there is nobody to tell.
    } finally {
      this.close();
    }
  }

  close(): void {
    if (this.#closed.signal.aborted) return;
    this.#closed.abort();
    close(this.#client);
    if (this.#engine !== undefined) close(this.#engine.connection);
  }

  /** One request and its answer. @returns whether another may follow */
  async #exchange(): Promise<boolean> {
    this.#idle = true;
    this.#watchEngine();
    const octets = await this.#fromClient.head();
    this.#idle = false;
    if (octets === undefined) return false;
    const request = tolerated(parseRequest(octets));
    const plan = this.#o.plan(request) ?? {};
    try {
      return await this.#carryOut(request, plan);
    } finally {
      plan.done?.();
    }
  }

  async #carryOut(request: RequestHead, plan: Plan): Promise<boolean> {
    const body = bodyEnd(requestFraming(request));
    const engine = await this.#connectEngine();
    if (plan.request === undefined) this.#sent = this.#sendBody(request, body, engine.connection);
    else await this.#sendChanged({ request, body, change: plan.request }, engine.connection);
    const watched = this.#watchClient(engine.connection);
    try {
      const response = await this.#responseHead(engine.input);
      const framing = responseFraming(response, request.method);
      if (response.status === 101 || framing.by === "end" && request.method === "POST") {
        watched.stop();
        await writeAll(this.#client, printHead(response));
        await this.#tunnel(engine);
        return false;
      }
      await this.#answer(response, framing, plan, engine.input);
      watched.stop();
      if (staysOpen(request) && staysOpen(response) && framing.by !== "end" && await this.#sent) return true;
    } finally {
      watched.stop();
    }
    await this.#linger();
    return false;
  }

  async #connectEngine() {
    if (this.#engine !== undefined) return this.#engine;
    try {
      const connection = await this.#o.connectEngine();
      this.#engine = { connection, input: new Input(connection) };
    } catch (error) {
      throw new Refusal(500, `Could not connect to target: ${(error as Error).message}`);
    }
    if (this.#closed.signal.aborted) close(this.#engine.connection);
    return this.#engine;
  }

  /** Sends the head at once, the body as it comes. */
  async #sendBody(request: RequestHead, body: BodyEnd, engine: Duplex): Promise<boolean> {
    try {
      await writeAll(engine, printHead(request));
      if (await this.#fromClient.pump(body, engine)) return true;
    } catch {
      // The engine does not want it, or the client is gone or speaks nonsense: the engine's answer will tell.
    }
    await engine.closeWrite().catch(() => {});
    return false;
  }

  async #sendChanged(
    { request, body, change }: {
      readonly request: RequestHead;
      readonly body: BodyEnd;
      readonly change: NonNullable<Plan["request"]>;
    },
    engine: Duplex,
  ): Promise<void> {
    if (field(request, "expect")?.toLowerCase() === "100-continue") await writeAll(this.#client, CONTINUE);
    const content = await this.#fromClient.content(body, MAX_REQUEST_OCTETS);
    const changed = await change(new TextDecoder().decode(content));
    const octets = changed === undefined ? content : new TextEncoder().encode(changed);
    const head = withFields(request, {
      "Expect": undefined,
      "Transfer-Encoding": undefined,
      // A request without a body may have no length; some calls want none.
      "Content-Length": octets.length === 0 && field(request, "content-length") === undefined
        ? undefined
        : String(octets.length),
    });
    await writeAll(engine, joined(printHead(head), octets));
  }

  /** Hands on what is said before the answer itself. */
  async #responseHead(engine: Input): Promise<ResponseHead> {
    for (;;) {
      const octets = await engine.head();
      if (octets === undefined) throw new Refusal(500, "Docker closed the connection without an answer");
      const response = parseResponse(octets);
      if (response.status >= 200 || response.status === 101) return response;
      await writeAll(this.#client, printHead(response));
    }
  }

  async #answer(response: ResponseHead, framing: Framing, plan: Plan, engine: Input): Promise<void> {
    const body = bodyEnd(framing);
    if (plan.settle === undefined) {
      await writeAll(this.#client, printHead(response));
      if (!await engine.pump(body, this.#client)) throw new Error("Docker's answer is cut off");
      return;
    }
    let whole: Uint8Array<ArrayBuffer> | undefined;
    const read = async () => whole ??= await engine.content(body, MAX_ANSWER_OCTETS);
    const instead = await plan.settle(response.status, async () => new TextDecoder().decode(await read()));
    const octets = instead === undefined ? await read() : new TextEncoder().encode(instead);
    // Without a length that it never had: 204 and the like.
    const fields = octets.length === 0 && framing.by === "length"
      ? {}
      : { "Transfer-Encoding": undefined, "Content-Length": String(octets.length) };
    await writeAll(this.#client, joined(printHead(withFields(response, fields)), octets));
  }

  /** Between requests: a client is not kept on a connection that leads nowhere any more. */
  #watchEngine(): void {
    this.#engine?.input.more().then((more) => more || !this.#idle || this.close(), () => this.close());
  }

  /** While the engine answers: a client that has said everything may go. */
  #watchClient(engine: Duplex): { stop(): void } {
    const stopped = new AbortController();
    const over = AbortSignal.any([stopped.signal, this.#closed.signal]);
    const watch = async () => {
      if (!await this.#sent) return;
      while (!over.aborted && !this.#fromClient.full) {
        if (await this.#fromClient.more()) continue;
        if (over.aborted) return;
        await engine.closeWrite();
        if (await untilGone(this.#client, over)) this.close();
        return;
      }
    };
    // A connection that broke is found out by whoever writes to it as well.
    watch().catch(() => this.close());
    return { stop: () => stopped.abort() };
  }

  /** Both ways, each until its end. */
  async #tunnel({ connection, input }: { readonly connection: Duplex; readonly input: Input }): Promise<void> {
    const ended = new AbortController();
    const over = AbortSignal.any([ended.signal, this.#closed.signal]);
    const pass = async (pumped: Promise<void>, source: Duplex) => {
      await pumped;
      // One half has ended; the other goes on for as long as there is somebody to hear it.
      if (await untilGone(source, over)) this.close();
    };
    const up = this.#sent.then((whole) => whole ? this.#fromClient.pumpAll(connection) : undefined);
    const down = input.pumpAll(this.#client);
    for (const passing of [pass(up, this.#client), pass(down, connection)]) passing.catch(() => this.close());
    await Promise.allSettled([up, down]);
    ended.abort();
  }

  /** Lets the client read what it was told, although it may still be sending. */
  async #linger(): Promise<void> {
    const timer = setTimeout(() => this.close(), LINGER_MS);
    try {
      await this.#client.closeWrite();
      await this.#sent; // it reads from the client as well
      do this.#fromClient.consume(this.#fromClient.pending.length); while (await this.#fromClient.more());
    } finally {
      clearTimeout(timer);
    }
  }

  async #refuse({ status, message }: HttpError | Refusal): Promise<void> {
    await writeAll(this.#client, ownAnswer(status, message));
    await this.#linger();
  }
}

/** Old clients name the path of the socket as host, which engines do not take. */
function tolerated(request: RequestHead): RequestHead {
  return field(request, "host")?.startsWith("/") ? withFields(request, { "Host": "docker" }) : request;
}

/**
 * Whether the other side goes altogether before it is over, as far as it can be told from one that only has nothing more to say: where
 * nothing is written, a socket in the file system tells, TCP does not.
 */
async function untilGone(connection: Duplex, over: AbortSignal): Promise<boolean> {
  while (!over.aborted) {
    try {
      await connection.write(new Uint8Array(0));
    } catch {
      return !over.aborted;
    }
    await pause(PROBE_MS, over);
  }
  return false;
}

function pause(ms: number, over: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const end = () => {
      clearTimeout(timer);
      over.removeEventListener("abort", end);
      resolve();
    };
    const timer = setTimeout(end, ms);
    over.addEventListener("abort", end);
  });
}

function close(connection: Duplex): void {
  try {
    connection.close();
  } catch {
    // It was closed by its end.
  }
}
