/**
 * Sockets of the DNS server: where it listens, over UDP and TCP, and those from which it asks others. Nothing here knows what a message
 * says. Everything has a bound: what one turn handles, how large a message is, how many connections there are and how long they may be idle.
 *
 *     clients ⇄ DnsListener ⇄ DnsHandler (chain, upstream) ⇄ DnsAskers ⇄ servers
 */
import { SysError } from "../../ffi/errno.ts";
import {
  DatagramBatch,
  NONE_WAITS,
  openAsker,
  openService,
  receiveDatagram,
  type Route,
  sendDatagram,
} from "../../ffi/datagrams.ts";
import type { Fd } from "../../ffi/fd.ts";
import { OperationError } from "../lib/errors.ts";
import { type Endpoint, formatEndpoint, formatIpv4, type Ipv4, parseIpv4 } from "../lib/ip.ts";
import type { ControlSocket, ControlSockets } from "./sockets.ts";

/** Datagrams taken in one call, and calls in one turn: about a millisecond. */
const BATCH = 64;
const BATCHES_OF_TURN = 8;
/** A query has a few dozen octets; larger ones are not read. */
const QUERY_OCTETS = 2048;
const ANSWER_OCTETS = 4096;
const MESSAGE_OCTETS = 65_535;
/** Connections in all, of one client, and how long one may take for a query. */
const MAX_CONNECTIONS = 128;
const MAX_CONNECTIONS_OF_CLIENT = 16;
const IDLE_MS = 10_000;
/** Questions of one connection that wait for others. */
const MAX_WAITING_OF_CONNECTION = 16;
const CONNECT_MS = 2_000;
/** Datagrams that one attempt may get, the right one among them. */
const MAX_REPLIES = 64;

/** Where an answer goes that comes later. */
export interface Ticket {
  readonly client: Ipv4;
  answer(octets: Uint8Array): void;
}

export interface DnsHandler {
  /**
   * @param octets where the query lies; it is not there any more after the call
   * @param answerAt where in the room its answer goes
   * @returns the length of the answer; 0: none. FORWARD: `forward()` is called at once
   */
  handle(octets: Uint8Array, at: number, length: number, answerAt: number, transport: "udp" | "tcp"): number;
  /** The query that was just handled is answered later, or never. */
  forward(ticket: Ticket, transport: "udp" | "tcp"): void;
  /** A connection was turned away, or cut off. */
  refused(): void;
}

const FORWARD = -1;

/** The memory that all listeners share, one after the other. */
export class DnsRoom {
  readonly batch = new DatagramBatch({
    slots: BATCH,
    receiveOctets: QUERY_OCTETS,
    answerOctets: ANSWER_OCTETS,
    spare: MESSAGE_OCTETS,
  });

  /** For answers that come later, while the others may be in use. */
  readonly late = new DatagramBatch({ slots: 1, receiveOctets: 8, answerOctets: MESSAGE_OCTETS, spare: 0 });

  /** Where handlers write answers. */
  get answers(): Uint8Array {
    return this.batch.answers;
  }
}

export interface DnsListener {
  /** With the port that the kernel chose, where 0 was asked for. */
  readonly local: Endpoint;
  close(): void;
}

export interface DnsListenOptions {
  /** 0: every address of this host. */
  readonly at: Endpoint;
  readonly sockets: ControlSockets;
  readonly room: DnsRoom;
  readonly handler: DnsHandler;
}

/** Listens over both transports. @throws OperationError that names the address */
export function listenForDns({ at, sockets, room, handler }: DnsListenOptions): DnsListener {
  using opened = new DisposableStack();
  let udp: { fd: Fd; local: Endpoint };
  try {
    udp = openService(at);
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    throw new OperationError(`Cannot listen for DNS queries at ${formatEndpoint(at)}: ${error.errnoName}`, 1, {
      cause: error,
    });
  }
  opened.use(udp.fd);
  const local = { address: at.address, port: udp.local.port };
  opened.defer(sockets.watch(udp.fd, () => receive(udp.fd, room, handler)));
  let tcp: Deno.TcpListener;
  try {
    tcp = Deno.listen({ transport: "tcp", hostname: formatIpv4(local.address), port: local.port });
  } catch (error) {
    const { message } = error as Error;
    throw new OperationError(`Cannot listen for DNS queries at ${formatEndpoint(local)}: ${message}`, 1, {
      cause: error,
    });
  }
  const service = new TcpService(tcp, room, handler);
  opened.defer(() => service.close());
  const owned = opened.move();
  return { local, close: () => owned.dispose() };
}

/** One turn: queries as they wait, answers to as many in one call as there are. What is left is told of again. */
function receive(fd: Fd, { batch, late }: DnsRoom, handler: DnsHandler): void {
  for (let turn = 0; turn < BATCHES_OF_TURN && !fd.closed; turn++) {
    const count = batch.receive(fd);
    for (let i = 0; i < count; i++) {
      const length = handler.handle(batch.received, batch.receivedAt(i), batch.octets(i), batch.answerAt(i), "udp");
      if (length > 0) batch.answer(i, length);
      else if (length === FORWARD) {
        handler.forward(new DatagramTicket(fd, late, batch.address(i), batch.route(i)), "udp");
      }
    }
    if (count > 0) batch.flush(fd);
    if (count < batch.slots) return;
  }
}

/** Used once, by an upstream's answer. */
class DatagramTicket implements Ticket {
  readonly #fd: Fd;
  readonly #batch: DatagramBatch;
  readonly #route: Route;

  constructor(fd: Fd, batch: DatagramBatch, readonly client: Ipv4, route: Route) {
    this.#fd = fd;
    this.#batch = batch;
    this.#route = route;
  }

  answer(octets: Uint8Array): void {
    if (!this.#fd.closed && octets.length <= this.#batch.answers.length) {
      this.#batch.send(this.#fd, octets, this.#route);
    }
  }
}

// ── TCP ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

class TcpService {
  readonly #listener: Deno.TcpListener;
  readonly #room: DnsRoom;
  readonly #handler: DnsHandler;
  readonly #open = new Set<TcpClient>();

  constructor(listener: Deno.TcpListener, room: DnsRoom, handler: DnsHandler) {
    this.#listener = listener;
    this.#room = room;
    this.#handler = handler;
    void this.#accept();
  }

  close(): void {
    this.#listener.close();
    for (const client of this.#open) client.close();
  }

  async #accept(): Promise<void> {
    for (;;) {
      let connection: Deno.TcpConn;
      try {
        connection = await this.#listener.accept();
      } catch (error) {
        if (error instanceof Deno.errors.BadResource || error instanceof Deno.errors.Interrupted) return;
        // Descriptors may have run out, say.
        await new Promise((resolve) => setTimeout(resolve, 200));
        continue;
      }
      const client = parseIpv4((connection.remoteAddr as Deno.NetAddr).hostname) ?? 0;
      const others = [...this.#open].filter((one) => one.address === client).length;
      if (this.#open.size >= MAX_CONNECTIONS || others >= MAX_CONNECTIONS_OF_CLIENT) {
        this.#handler.refused();
        connection.close();
        continue;
      }
      const one = new TcpClient(connection, client, this.#room, this.#handler);
      this.#open.add(one);
      one.ended.then(() => this.#open.delete(one));
    }
  }
}

/** A connection: queries one after the other, answers as they come. Whoever says nothing, or reads nothing, is cut off. */
class TcpClient {
  readonly ended: Promise<void>;
  readonly #connection: Deno.TcpConn;
  readonly #room: DnsRoom;
  readonly #handler: DnsHandler;
  readonly #length = new Uint8Array(2);
  #timer: number | undefined;
  #waiting = 0;
  #written: Promise<unknown> = Promise.resolve();
  #closed = false;

  constructor(connection: Deno.TcpConn, readonly address: Ipv4, room: DnsRoom, handler: DnsHandler) {
    this.#connection = connection;
    this.#room = room;
    this.#handler = handler;
    this.ended = this.#serve().catch(() => {}).finally(() => this.close());
  }

  close(): void {
    clearTimeout(this.#timer);
    if (this.#closed) return;
    this.#closed = true;
    this.#connection.close();
  }

  async #serve(): Promise<void> {
    for (;;) {
      this.#expectMore();
      if (!await this.#read(this.#length)) break;
      const query = new Uint8Array(this.#length[0]! << 8 | this.#length[1]!);
      if (!await this.#read(query)) break;
      this.#handle(query);
      // Whoever does not read what it asked for asks for nothing more.
      await this.#written;
      if (this.#waiting >= MAX_WAITING_OF_CONNECTION) return this.#handler.refused();
    }
    // The client has no more to ask; what it has asked for may be on its way.
    while (this.#waiting > 0 && !this.#closed) await new Promise((resolve) => setTimeout(resolve, 50));
    await this.#written;
  }

  #handle(query: Uint8Array): void {
    const { batch } = this.#room;
    const length = this.#handler.handle(query, 0, query.length, batch.spareAt, "tcp");
    if (length > 0) return this.#write(batch.answers.subarray(batch.spareAt, batch.spareAt + length));
    if (length !== FORWARD) return this.close();
    this.#waiting++;
    const answer = (octets: Uint8Array) => {
      this.#waiting--;
      this.#write(octets);
    };
    this.#handler.forward({ client: this.address, answer }, "tcp");
  }

  #write(octets: Uint8Array): void {
    const message = new Uint8Array(2 + octets.length);
    message.set([octets.length >>> 8, octets.length]);
    message.set(octets, 2);
    this.#written = this.#written.then(() => this.#writeAll(message)).catch(() => this.close());
  }

  async #writeAll(octets: Uint8Array): Promise<void> {
    for (let at = 0; at < octets.length && !this.#closed;) at += await this.#connection.write(octets.subarray(at));
  }

  /** False: the client has ended. */
  async #read(buffer: Uint8Array): Promise<boolean> {
    for (let at = 0; at < buffer.length;) {
      const count = await this.#connection.read(buffer.subarray(at));
      if (count === null) return false;
      at += count;
    }
    return true;
  }

  #expectMore(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#handler.refused();
      this.close();
    }, IDLE_MS);
  }
}

// ── Asking others ─────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What became of an attempt; several replies may be told of, the wrong ones of others among them. */
export interface AskHandler<Attempt> {
  replied(attempt: Attempt, from: Endpoint, octets: Uint8Array): void;
  failed(attempt: Attempt): void;
}

interface Asking {
  close(): void;
}

/** One socket for each attempt, on a port that nobody can guess. */
export class DnsAskers<Attempt> {
  readonly #sockets: ControlSockets;
  readonly #handler: AskHandler<Attempt>;
  readonly #open = new Map<Attempt, Asking>();
  readonly #buffer = new Uint8Array(MESSAGE_OCTETS);

  constructor(sockets: ControlSockets, handler: AskHandler<Attempt>) {
    this.#sockets = sockets;
    this.#handler = handler;
  }

  /** The handler hears of the outcome after this has returned. */
  ask(attempt: Attempt, server: Endpoint, octets: Uint8Array, transport: "udp" | "tcp"): void {
    try {
      this.#open.set(
        attempt,
        transport === "udp" ? this.#askByUdp(attempt, server, octets) : this.#askByTcp(attempt, server, octets),
      );
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
      queueMicrotask(() => this.#handler.failed(attempt));
    }
  }

  close(attempt: Attempt): void {
    this.#open.get(attempt)?.close();
    this.#open.delete(attempt);
  }

  stop(): void {
    for (const one of this.#open.values()) one.close();
    this.#open.clear();
  }

  #askByUdp(attempt: Attempt, server: Endpoint, octets: Uint8Array): Asking {
    using opened = new DisposableStack();
    const fd = opened.use(openAsker());
    const errno = sendDatagram(fd, octets as Uint8Array<ArrayBuffer>, server);
    if (errno !== 0) throw new SysError("sendto", errno);
    let replies = 0;
    const unwatch = this.#sockets.watch(fd, () => {
      while (!fd.closed) {
        const received = receiveDatagram(fd, this.#buffer);
        if ("errno" in received) {
          if (received.errno !== NONE_WAITS) this.#handler.failed(attempt);
          return;
        }
        if (++replies > MAX_REPLIES) return this.#handler.failed(attempt);
        this.#handler.replied(attempt, received.from, this.#buffer.slice(0, received.octets));
      }
    });
    opened.move();
    return {
      close() {
        unwatch();
        fd.close();
      },
    };
  }

  #askByTcp(attempt: Attempt, server: Endpoint, octets: Uint8Array): Asking {
    let socket: ControlSocket | undefined;
    const dial = this.#sockets.dial(server, {
      onConnected: (connected) => {
        socket = connected;
        const reply = new Reply();
        connected.start({
          onOctets: (some) => {
            const message = reply.add(some);
            if (message !== undefined) this.#handler.replied(attempt, server, message);
          },
          onClosed: () => this.#handler.failed(attempt),
          onWritable: () => {},
        });
        connected.send(Uint8Array.of(octets.length >>> 8, octets.length));
        connected.send(octets);
      },
      onFailed: () => this.#handler.failed(attempt),
    }, { limitMs: CONNECT_MS });
    return {
      close() {
        dial.cancel();
        socket?.close();
      },
    };
  }
}

/** Puts one message together; what follows it is not looked at. */
class Reply {
  #octets = new Uint8Array();
  #done = false;

  add(octets: Uint8Array): Uint8Array | undefined {
    if (this.#done) return undefined;
    const all = new Uint8Array(this.#octets.length + octets.length);
    all.set(this.#octets);
    all.set(octets, this.#octets.length);
    this.#octets = all;
    if (all.length < 2 || all.length < 2 + (all[0]! << 8 | all[1]!)) return undefined;
    this.#done = true;
    return all.slice(2, 2 + (all[0]! << 8 | all[1]!));
  }
}
