/**
 * What we do not know ourselves is asked for at the servers of resolv.conf: one after the other, over the transport that the client has
 * chosen. Queries and answers are passed through as they are, but for their ids, so that nothing is lost that we do not understand.
 *
 *     client ── handleQuery ─▶ query ── "ask" ─▶ server 1 ──(silent, or an error)──▶ "ask" ─▶ server 2 … ─▶ SERVFAIL
 *                                                   └──(answers)──▶ "answer"
 *
 * An answer counts where it came from the server that was asked, by its address and port, has the id of that attempt, which is random, and
 * repeats the question; the shell asks from another port each time. What is already being asked for is not asked for again: neither can
 * anybody guess against many open questions at once, nor does a loop of servers that ask each other go round for long.
 */
import type { Endpoint, Ipv4 } from "../lib/ip.ts";
import type { Random } from "../lib/random.ts";
import { type Deadline, earlier, type Instant } from "../lib/time.ts";
import { Answer, FLAG, HEADER_OCTETS, isAnswerTo, MAX_UDP_OCTETS, Query, RCODE, withId } from "../wire/dns.ts";
import { type DnsCounters, udpLimit } from "./chain.ts";

export const DNS_PORT = 53;

declare const attemptBrand: unique symbol;
/** One server asked once. */
export type AttemptId = number & { readonly [attemptBrand]: true };

export type Transport = "udp" | "tcp";

/** Who asks; `ticket` says to the shell where the answer goes. */
export interface Client<Ticket> {
  readonly transport: Transport;
  readonly address: Ipv4;
  readonly ticket: Ticket;
}

export type UpstreamOutput<Ticket> =
  /** Send this, from a port that nobody can guess; `handleReply()` or `handleFailed()`. */
  | {
    readonly type: "ask";
    readonly attempt: AttemptId;
    readonly server: Endpoint;
    readonly transport: Transport;
    readonly octets: Uint8Array;
  }
  /** Nothing more is wanted of this attempt. */
  | { readonly type: "close"; readonly attempt: AttemptId }
  | { readonly type: "answer"; readonly ticket: Ticket; readonly octets: Uint8Array };

export interface UpstreamOptions {
  /** How long a server may take to answer. */
  readonly timeoutMs: number;
  /** Hard to guess. */
  readonly random: Random;
  readonly counters: DnsCounters;
}

/** Over TCP a connection comes first. */
const CONNECT_MS = 2_000;
/** Questions under way, and those of one client. A host's resolver bears a few thousand a second with so many. */
const MAX_PENDING = 256;
const MAX_PENDING_OF_CLIENT = 64;
/** Clients that wait for one answer. */
const MAX_WAITING = 64;
/** The same octets are the same question; longer ones are not looked at. */
const MAX_JOINED_OCTETS = 512;

interface Pending<Ticket> {
  readonly transport: Transport;
  /** As it came from the first client. */
  readonly octets: Uint8Array;
  /** The same for whoever asks the same. */
  readonly identity: string | undefined;
  readonly key: string;
  readonly type: number;
  readonly questionEnd: number;
  readonly clients: { readonly client: Client<Ticket>; readonly id: number }[];
  readonly servers: readonly Endpoint[];
  /** How many of them were asked. */
  asked: number;
  attempt: AttemptId;
  id: number;
  deadline: Instant;
}

export class Upstream<Ticket> {
  readonly #o: UpstreamOptions;
  #servers: readonly Endpoint[] = [];
  readonly #pending = new Map<AttemptId, Pending<Ticket>>();
  readonly #byIdentity = new Map<string, Pending<Ticket>>();
  readonly #ofClient = new Map<Ipv4, number>();
  #lastAttempt = 0;
  #outputs: UpstreamOutput<Ticket>[] = [];
  #taken = 0;

  constructor(o: UpstreamOptions) {
    this.#o = o;
  }

  /** Whom to ask from now on, in this order. */
  setServers(servers: readonly Endpoint[]): void {
    this.#servers = servers;
  }

  get servers(): readonly Endpoint[] {
    return this.#servers;
  }

  /** Questions under way. */
  get pending(): number {
    return this.#pending.size;
  }

  /** @param query where it lies; its octets are copied */
  handleQuery(query: Query, client: Client<Ticket>, now: Instant): void {
    const { counters } = this.#o;
    const identity = identityOf(query, client.transport);
    const same = identity === undefined ? undefined : this.#byIdentity.get(identity);
    if (this.#isLoop(query, client)) {
      counters.loops++;
    } else if (same !== undefined && same.clients.length < MAX_WAITING) {
      counters.joined++;
      same.clients.push({ client, id: query.id });
      return;
    } else if (this.#servers.length === 0) {
      counters.failed++;
    } else if (
      this.#pending.size >= MAX_PENDING || (this.#ofClient.get(client.address) ?? 0) >= MAX_PENDING_OF_CLIENT
    ) {
      counters.crowded++;
    } else {
      counters.forwarded++;
      return this.#begin(query, client, same === undefined ? identity : undefined, now);
    }
    const octets = query.octets.slice(query.at, query.at + query.length);
    this.#outputs.push({ type: "answer", ticket: client.ticket, octets: failure(octets, query.id) });
  }

  /** @param octets whose owner we become */
  handleReply(attempt: AttemptId, from: Endpoint, octets: Uint8Array): void {
    const pending = this.#pending.get(attempt);
    if (pending === undefined) return;
    const server = pending.servers[pending.asked - 1]!;
    const asked = from.address === server.address && from.port === server.port;
    if (!asked || !isAnswerTo(octets, pending.octets, pending.id, pending.questionEnd)) {
      this.#o.counters.spoofed++;
      return;
    }
    this.#end(pending);
    for (const { client, id } of pending.clients) {
      const limit = client.transport === "tcp" ? Infinity : limitOf(pending.octets);
      const reply = octets.length <= limit ? octets : this.#cut(octets, pending.questionEnd);
      this.#outputs.push({ type: "answer", ticket: client.ticket, octets: withId(reply, id) });
    }
  }

  /** The server cannot be reached, says the machine. */
  handleFailed(attempt: AttemptId, now: Instant): void {
    const pending = this.#pending.get(attempt);
    if (pending !== undefined) this.#askNext(pending, now);
  }

  handleTimeout(now: Instant): void {
    for (const pending of [...this.#pending.values()]) if (pending.deadline <= now) this.#askNext(pending, now);
  }

  pollTimeout(): Deadline | undefined {
    let next: Deadline | undefined;
    for (const { deadline } of this.#pending.values()) next = earlier(next, { at: deadline, why: "DNS server" });
    return next;
  }

  poll(): UpstreamOutput<Ticket> | undefined {
    const output = this.#outputs[this.#taken++];
    if (output === undefined) {
      this.#outputs = [];
      this.#taken = 0;
    }
    return output;
  }

  #begin(query: Query, client: Client<Ticket>, identity: string | undefined, now: Instant): void {
    const pending: Pending<Ticket> = {
      transport: client.transport,
      octets: query.octets.slice(query.at, query.at + query.length),
      identity,
      key: query.key,
      type: query.type,
      questionEnd: query.questionEnd,
      clients: [{ client, id: query.id }],
      servers: this.#servers,
      asked: 0,
      attempt: 0 as AttemptId,
      id: 0,
      deadline: 0,
    };
    if (identity !== undefined) this.#byIdentity.set(identity, pending);
    this.#ofClient.set(client.address, (this.#ofClient.get(client.address) ?? 0) + 1);
    this.#ask(pending, now);
  }

  #askNext(pending: Pending<Ticket>, now: Instant): void {
    this.#pending.delete(pending.attempt);
    this.#outputs.push({ type: "close", attempt: pending.attempt });
    if (pending.asked < pending.servers.length) return this.#ask(pending, now);
    this.#o.counters.failed++;
    this.#forget(pending);
    for (const { client, id } of pending.clients) {
      this.#outputs.push({ type: "answer", ticket: client.ticket, octets: failure(pending.octets, id) });
    }
  }

  #ask(pending: Pending<Ticket>, now: Instant): void {
    const { random, timeoutMs } = this.#o;
    const server = pending.servers[pending.asked++]!;
    pending.attempt = ++this.#lastAttempt as AttemptId;
    pending.id = random.below(0x1_0000);
    pending.deadline = now + timeoutMs + (pending.transport === "tcp" ? CONNECT_MS : 0);
    this.#pending.set(pending.attempt, pending);
    const { attempt, transport } = pending;
    this.#outputs.push({ type: "ask", attempt, server, transport, octets: withId(pending.octets, pending.id) });
  }

  #end(pending: Pending<Ticket>): void {
    this.#pending.delete(pending.attempt);
    this.#outputs.push({ type: "close", attempt: pending.attempt });
    this.#forget(pending);
  }

  #forget({ identity, clients }: Pending<Ticket>): void {
    if (identity !== undefined) this.#byIdentity.delete(identity);
    const { address } = clients[0]!.client;
    const left = this.#ofClient.get(address)! - 1;
    if (left > 0) this.#ofClient.set(address, left);
    else this.#ofClient.delete(address);
  }

  /** A server that is being asked this asks us. */
  #isLoop({ key, type }: Query, { address }: Client<Ticket>): boolean {
    if (!this.#servers.some((server) => server.address === address)) return false;
    for (const pending of this.#pending.values()) {
      if (pending.type !== type || pending.key !== key) continue;
      // The host itself may ask, from the address that its own server has; that is another question then.
      if (pending.servers[pending.asked - 1]!.address === address && pending.clients[0]!.client.address !== address) {
        return true;
      }
    }
    return false;
  }

  /** The server gave more than the client takes: it is to ask again over TCP. */
  #cut(octets: Uint8Array, questionEnd: number): Uint8Array {
    this.#o.counters.truncated++;
    const cut = octets.slice(0, questionEnd);
    cut[2]! |= FLAG.TC >>> 8;
    cut.fill(0, 6, HEADER_OCTETS);
    return cut;
  }
}

/** All but the id. */
function identityOf({ octets, at, length }: Query, transport: Transport): string | undefined {
  if (length > MAX_JOINED_OCTETS) return undefined;
  return transport + String.fromCharCode(...octets.subarray(at + 2, at + length));
}

function limitOf(octets: Uint8Array): number {
  const query = new Query();
  query.read(octets, 0, octets.length);
  return udpLimit(query);
}

function failure(octets: Uint8Array, id: number): Uint8Array {
  const query = new Query();
  query.read(octets, 0, octets.length);
  const answer = new Answer(new Uint8Array(MAX_UDP_OCTETS));
  answer.begin(query, 0, MAX_UDP_OCTETS, FLAG.RA | RCODE.SERVFAIL);
  return withId(answer.octets.slice(0, answer.end()), id);
}
