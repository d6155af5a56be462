/**
 * Addresses, put together: the allocator, its file, the API, the mesh, and what becomes of containers.
 *
 *     API, attach, expose ─▶ Allocator ⇄ mesh
 *     Docker, namespaces ───▶   └─▶ addresses file ─▶ the next start
 */
import type { ApiAnswer, ApiRequest, Route } from "../api/types.ts";
import type { IpamOptions } from "../config/ipam_options.ts";
import type { Clock } from "../host/clock.ts";
import { dockerIsThere, inspectContainer } from "../host/docker.ts";
import { Allocator, type AllocatorOutput, type OperationId, type OperationResult } from "../ipam/allocator.ts";
import { NO_CONTAINER_ID } from "../ipam/holdings.ts";
import { hostRangeOf, MIN_SUBNET_SIZE, rangeOf, sizeOf } from "../ipam/range.ts";
import { NotStoredError, OperationError } from "../lib/errors.ts";
import {
  type Cidr,
  cidrContains,
  formatCidr,
  formatIpv4,
  type Ipv4,
  networkOf,
  parseCidr,
  parseIpv4,
} from "../lib/ip.ts";
import { writeJson } from "../lib/json.ts";
import type { Logger } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { AddressBook } from "./address_book.ts";
import type { Companion } from "./control_loop.ts";
import { findExisting, NETNS_ID } from "./existing_addresses.ts";
import { makeIpamReport } from "./ipam_report.ts";
import { IpamStore } from "./ipam_store.ts";
import type { Plumbing } from "./plumbing.ts";
import type { IpamReport } from "./status.ts";

export interface IpamServiceOptions {
  readonly options: IpamOptions;
  /** P of the state files. */
  readonly statePrefix: string;
  readonly ourName: PeerName;
  readonly ourUid: bigint;
  readonly nickName: string;
  readonly mesh: Pick<Mesh, "peer" | "register" | "sendBroadcast" | "sendUnicast">;
  /** How many peers we are told to connect with. */
  readonly targetCount: () => number;
  /** Hands an input to the cores, and carries out what they ask for. */
  readonly run: <T>(input: (now: Instant) => T) => T;
  readonly plumbing: Plumbing;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
}

/** More than any id has. */
const MAX_ID_LENGTH = 1024;
/** A container that died a moment ago may have been asked about before. */
const DEATHS_REMEMBERED = 1024;
/** While no quorum is there, the log says so this often. */
const QUORUM_LOG_MS = 60_000;

export class Ipam implements Companion {
  readonly #o: IpamServiceOptions;
  readonly #allocator: Allocator;
  readonly #store: IpamStore;
  readonly #waiting = new Map<OperationId, (result: OperationResult) => void>();
  /** Operations that rather fail than wait for a disk. */
  readonly #impatient = new Map<OperationId, (error: NotStoredError) => void>();
  /** Containers that died lately, and when. */
  readonly #deaths = new Map<string, Instant>();
  #quorumLoggedAt: Instant = -Infinity;

  private constructor(o: IpamServiceOptions, allocator: Allocator, store: IpamStore) {
    this.#o = o;
    this.#allocator = allocator;
    this.#store = store;
    store.onFailed = (reason) => {
      for (const give of [...this.#impatient.values()]) give(new NotStoredError(reason));
    };
  }

  /** Before the mesh has its first connection. @throws OperationError where what was stored cannot be understood */
  static async start(o: IpamServiceOptions): Promise<Ipam> {
    const { options, statePrefix, ourName: name, ourUid: uid, nickName, mesh, clock, random, log } = o;
    const store = new IpamStore(statePrefix, log);
    const stored = await store.read();
    const existing = await findExisting(o.plumbing, log);
    const now = clock.monotonicMs();
    const allocator = new Allocator({
      name,
      nickName,
      uid,
      range: options.range,
      init: options.init,
      stored: stored?.stored,
      existing: existing.addresses,
      running: existing.running,
      reclaim: { afterMs: options.reclaimMs, elapsed: stored?.elapsed ?? { ms: 0, exact: true } },
      peers: { inReach: (peer) => mesh.peer(peer) !== undefined, targetCount: o.targetCount },
      random,
      log,
      wallAheadMs: clock.wallMs() - now,
    }, now);
    const ipam = new Ipam(o, allocator, store);
    mesh.register(allocator);
    if (options.reclaimMs !== undefined) mesh.register(allocator.reclaimChannel);
    for (const { id } of allocator.held()) {
      if (NETNS_ID.test(id) && !existing.attached.has(id)) ipam.handleGone(id);
    }
    return ipam;
  }

  async stop(): Promise<void> {
    await this.#store.stop();
    for (const resolve of this.#waiting.values()) resolve({ outcome: "cancelled", reason: "the router stops" });
    this.#waiting.clear();
  }

  // The control loop

  drain(now: Instant): void {
    for (let output = this.#allocator.poll(); output !== undefined; output = this.#allocator.poll()) {
      this.#act(output, now);
    }
    this.#logQuorum(now);
  }

  handleTimeout(now: Instant): void {
    this.#allocator.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#allocator.pollTimeout();
  }

  handlePeerGone(name: PeerName, now: Instant): void {
    this.#allocator.handlePeerGone(name, now);
  }

  #act(output: AllocatorOutput, now: Instant): void {
    const { mesh } = this.#o;
    switch (output.type) {
      case "persist":
        return this.#persist();
      case "answer":
        this.#waiting.get(output.operation)?.(output.result);
        this.#waiting.delete(output.operation);
        return;
      case "unicast":
        mesh.sendUnicast(this.#allocator.name, output.to, output.payload, now);
        return;
      case "broadcast":
        return mesh.sendBroadcast(output.channel, output.data, now);
      default:
        output satisfies never;
    }
  }

  #persist(): void {
    this.#store.write(
      () => this.#allocator.snapshot(),
      (revision) => this.#o.run((at) => this.#allocator.handlePersisted(revision, at)),
    );
  }

  #logQuorum(now: Instant): void {
    if (now - this.#quorumLoggedAt < QUORUM_LOG_MS) return;
    const { election } = this.#allocator;
    if (election === undefined) return;
    this.#quorumLoggedAt = now;
    const { elector, quorum, knownNodes } = election;
    const reason = elector ? `quorum: ${quorum}, known: ${knownNodes}` : "observing: others are to agree";
    this.#o.log.info("addresses wait for an agreement among peers", { reason });
  }

  // Containers

  handleContainerDied(id: string): void {
    this.#o.run((now) => {
      if (this.#deaths.size >= DEATHS_REMEMBERED) this.#deaths.delete(this.#deaths.keys().next().value!);
      this.#deaths.set(id, now);
      this.#allocator.handleContainerDied(id, now);
    });
  }

  handleContainerStarted(id: string): void {
    this.#o.run((now) => {
      this.#deaths.delete(id);
      this.#allocator.handleContainerStarted(id, now);
    });
  }

  handleContainerDestroyed(id: string): void {
    this.#o.run((now) => this.#allocator.handleContainerDestroyed(id, now));
  }

  /** These are Docker's containers that run: something may have been missed. */
  async handleContainersRunning(ids: ReadonlySet<string>): Promise<void> {
    this.#o.run((now) => this.#allocator.handleRunning(ids, now));
    const { addresses } = await findExisting(this.#o.plumbing, this.#o.log);
    this.#o.run((now) => this.#allocator.handleExisting(addresses.filter(({ id }) => ids.has(id)), now));
  }

  /** All that Docker has and that did not end: the end of another one was missed. */
  handleContainersPresent(ids: ReadonlySet<string>): void {
    for (const { id, isContainer } of this.#allocator.held()) {
      if (isContainer && !ids.has(id)) this.handleContainerDied(id);
    }
  }

  /** A container that only its namespace names is no more. */
  handleGone(id: string): void {
    this.#o.run((now) => this.#allocator.freeAll(id, now));
  }

  /** Addresses of services: whoever owns their ranges holds them. See `Allocator.keep()`. */
  keep(wanted: readonly { readonly id: string; readonly cidr: Cidr }[], isOfKind: (id: string) => boolean): void {
    const claimants = wanted.map((one) => ({ ...one, isContainer: false }));
    this.#o.run((now) => this.#allocator.keep(claimants, isOfKind, now));
  }

  get defaultSubnet(): Cidr {
    return this.#o.options.defaultSubnet;
  }

  get range(): Cidr {
    return this.#o.options.range;
  }

  // What the daemon asks for

  /** Gives all our addresses to others, and serves no more. */
  async leave(): Promise<void> {
    await this.#operate((now) => this.#allocator.leave(now));
  }

  /** Takes the addresses of a peer that is gone; how many. */
  async removePeer(id: string): Promise<number> {
    const result = await this.#operate((now) => this.#allocator.takeOver(id, now));
    return result.outcome === "done" ? result.count ?? 0 : 0;
  }

  /** For operations within the router; names are none of ours. */
  readonly book: AddressBook = this.bookUntil();

  /** The same, with requests that are called off by the signal, and then say what they waited for. */
  bookUntil(signal?: AbortSignal): AddressBook {
    const reasonOf = ({ reason }: Extract<OperationResult, { readonly reason: string }>, subnet: Cidr) =>
      signal?.aborted === true ? this.#whyWaiting(subnet) : reason;
    return {
      allocate: async (id, subnet = this.#o.options.defaultSubnet, { checkAlive }) => {
        const request = { id, subnet, isContainer: checkAlive };
        const result = await this.#operate((now) => this.#allocator.allocate(request, now), signal);
        if (result.outcome === "done") return result.cidr!;
        throw new OperationError(`Cannot allocate an address: ${reasonOf(result, subnet)}`);
      },
      claim: async (id, cidr, { checkAlive }) => {
        const request = { id, cidr, isContainer: checkAlive };
        const result = await this.#operate((now) => this.#allocator.claim(request, now), signal);
        if (result.outcome === "done") return "claimed";
        throw new OperationError(`Unable to claim: ${reasonOf(result, cidr)}`);
      },
      lookup: (id, subnet = this.#o.options.defaultSubnet) =>
        Promise.resolve(this.#allocator.lookup(id, hostRangeOf(subnet))),
      free: async (id, address) => {
        const result = await this.#operate((now) => this.#allocator.free(id, address, now));
        return result.outcome === "done" ? "freed" : "unknown";
      },
      registerName: () => Promise.resolve("disabled"),
      removeName: () => Promise.resolve("disabled"),
    };
  }

  // For Docker's networks: addresses of nobody in particular, each filed under itself

  /** Whether it is one of those that are allocated, here or elsewhere. */
  allocates(address: Ipv4): boolean {
    return cidrContains(this.#o.options.range, address);
  }

  /** The lowest free address of a range. Rejects with the reason where there is none by the time the signal comes. */
  async allocateUnnamed(range: Cidr, signal: AbortSignal): Promise<Ipv4> {
    const request = { id: NO_CONTAINER_ID, subnet: range, isContainer: false };
    const result = await this.#operate((now) => this.#allocator.allocate(request, now), signal);
    if (result.outcome === "done") return result.cidr!.address;
    const reason = result.outcome === "refused" ? result.reason : this.#whyWaiting(range);
    throw new OperationError(`Cannot allocate an address: ${reason}`);
  }

  /** That very address, which nobody holds here. */
  async claimUnnamed(cidr: Cidr, signal: AbortSignal): Promise<void> {
    const request = { id: NO_CONTAINER_ID, cidr, isContainer: false };
    const result = await this.#operate((now) => this.#allocator.claim(request, now), signal);
    if (result.outcome === "done") return;
    const reason = result.outcome === "refused" ? result.reason : this.#whyWaiting(cidr);
    throw new OperationError(`Cannot claim address ${formatIpv4(cidr.address)}: ${reason}`);
  }

  /** Who holds an address here: an id, or the address itself as text. */
  holderOf(address: Ipv4): string | undefined {
    return this.#allocator.holderOf(address);
  }

  /** Whoever holds it, as Docker knows that nobody has it any more. */
  async release(address: Ipv4): Promise<void> {
    const holder = this.holderOf(address);
    if (holder !== undefined) await this.#operate((now) => this.#allocator.free(holder, address, now));
  }

  #whyWaiting(subnet: Cidr): string {
    const { election } = this.#allocator;
    if (election === undefined) return `no address in ${formatCidr(subnet)} is free, as far as others are within reach`;
    const { elector, quorum, knownNodes } = election;
    return elector
      ? `there is no quorum: peers have to agree first who allocates which addresses (quorum: ${quorum}, known: ${knownNodes})`
      : "peers have to agree first who allocates which addresses, and this one only observes";
  }

  /**
   * An address for this host itself. Waits for other peers, but not for room on the disk: what cannot be stored is taken back.
   * @throws NotStoredError
   */
  async allocateStored(id: string, subnet: Cidr): Promise<Cidr> {
    const before = new Set(this.#allocator.lookup(id, hostRangeOf(subnet)).map(({ address }) => address));
    const failed = Promise.withResolvers<never>();
    let operation: OperationId | undefined;
    const done = this.#operate((now) => {
      operation = this.#allocator.allocate({ id, subnet, isContainer: false }, now);
      this.#impatient.set(operation, failed.reject);
      return operation;
    });
    // Whether there is room by now shows at once.
    if (this.#store.trouble !== undefined) this.#persist();
    try {
      const result = await Promise.race([done, failed.promise]);
      if (result.outcome !== "done") throw new OperationError(result.reason);
      return result.cidr!;
    } catch (error) {
      if (error instanceof NotStoredError) this.#takeBack(operation!, { id, subnet, before });
      throw error;
    } finally {
      this.#impatient.delete(operation!);
    }
  }

  #takeBack(
    operation: OperationId,
    { id, subnet, before }: { id: string; subnet: Cidr; before: ReadonlySet<Ipv4> },
  ): void {
    this.#waiting.delete(operation);
    this.#o.run((now) => {
      this.#allocator.cancel(operation, now);
      for (const { address } of this.#allocator.lookup(id, hostRangeOf(subnet))) {
        if (!before.has(address)) this.#allocator.free(id, address, now);
      }
    });
  }

  report(): IpamReport {
    const now = this.#o.clock.monotonicMs();
    const trouble = this.#store.trouble;
    return makeIpamReport({
      status: this.#allocator.status(now),
      ourName: this.#o.ourName,
      defaultSubnet: this.#o.options.defaultSubnet,
      warnings: trouble === undefined ? [] : [`Nobody gets an address, as nothing can be stored: ${trouble}`],
    });
  }

  // The API

  routes(): readonly Route[] {
    const { defaultSubnet } = this.#o.options;
    return [
      { method: "GET", path: "/ring", handle: (request) => this.#prime(request) },
      { method: "GET", path: "/ip", handle: () => this.#list() },
      { method: "GET", path: "/ip/{id}", handle: ({ segments }) => this.#lookup(segments["id"]!, defaultSubnet) },
      { method: "POST", path: "/ip/{id}", handle: (request) => this.#allocate(request, defaultSubnet) },
      { method: "DELETE", path: "/ip/{id}", handle: ({ segments }) => this.#freeAll(segments["id"]!) },
      {
        method: "GET",
        path: "/ip/{id}/{ip}/{length}",
        handle: (request) => withSubnet(request, (subnet) => this.#lookup(request.segments["id"]!, subnet)),
      },
      {
        method: "POST",
        path: "/ip/{id}/{ip}/{length}",
        handle: (request) => withSubnet(request, (subnet) => this.#allocate(request, subnet)),
      },
      { method: "PUT", path: "/ip/{id}/{ip}/{length}", handle: (request) => this.#claim(request) },
      { method: "DELETE", path: "/ip/{id}/{ip}", handle: ({ segments }) => this.#free(segments) },
      { method: "GET", path: "/ipinfo/defaultsubnet", handle: () => text(formatCidr(defaultSubnet)) },
      { method: "GET", path: "/ipinfo/tracker", handle: () => text("\n") },
    ];
  }

  async #prime({ signal }: ApiRequest): Promise<ApiAnswer> {
    await this.#operate((now) => this.#allocator.prime(now), signal);
    return { status: 200 };
  }

  #list(): ApiAnswer {
    const owned = this.#allocator.held().map(({ id, cidrs }) => ({ containerid: id, addrs: cidrs.map(formatCidr) }));
    const body = `${writeJson({ owned: owned.length === 0 ? null : owned })}\n`;
    return { status: 200, body, contentType: "application/json" };
  }

  #lookup(id: string, subnet: Cidr): ApiAnswer {
    return text(this.#allocator.lookup(id, hostRangeOf(subnet)).map(formatCidr).join(" "));
  }

  async #allocate(request: ApiRequest, subnet: Cidr): Promise<ApiAnswer> {
    const result = await this.#operateFor(
      request,
      (id, isContainer, now) => this.#allocator.allocate({ id, subnet, isContainer }, now),
    );
    if (result.outcome === "done") return text(formatCidr(result.cidr!));
    return result.outcome === "cancelled" ? text("cancelled") : refused(result.reason);
  }

  async #claim(request: ApiRequest): Promise<ApiAnswer> {
    const given = `${request.segments["ip"]}/${request.segments["length"]}`;
    const cidr = parseCidr(given);
    if (cidr === undefined) return refused(`invalid CIDR address: ${given}`);
    const noErrorOnUnknown = request.parameters.get("noErrorOnUnknown") === "true";
    const result = await this.#operateFor(
      request,
      (id, isContainer, now) => this.#allocator.claim({ id, cidr, isContainer, noErrorOnUnknown }, now),
    );
    if (result.outcome === "done") return { status: 204 };
    return result.outcome === "cancelled" ? text("cancelled") : refused(`Unable to claim: ${result.reason}`);
  }

  async #free({ id, ip }: ApiRequest["segments"]): Promise<ApiAnswer> {
    const address = parseIpv4(ip!);
    if (address === undefined) return refused(`invalid IP Address: ${ip}`);
    const result = await this.#operate((now) => this.#allocator.free(id!, address, now));
    return result.outcome === "done" ? { status: 204 } : refused(`Unable to free: ${result.reason}`);
  }

  async #freeAll(id: string): Promise<ApiAnswer> {
    const result = await this.#operate((now) => this.#allocator.freeAll(id, now));
    return result.outcome === "done" ? { status: 204 } : refused(result.reason);
  }

  /** An operation on behalf of an id, which is called off where it is a container that does not run. */
  async #operateFor(
    { segments, parameters, signal }: ApiRequest,
    begin: (id: string, isContainer: boolean, now: Instant) => OperationId,
  ): Promise<OperationResult> {
    const id = segments["id"]!;
    if (id.length > MAX_ID_LENGTH) return { outcome: "refused", reason: "the id is too long" };
    const checkAlive = parameters.get("check-alive") === "true";
    const askedAt = this.#o.clock.monotonicMs();
    const gone = { outcome: "cancelled", reason: `${id} does not run` } as const;
    if (checkAlive && !await isRunning(id)) return gone;
    // It may have died while we asked; then nobody tells us again.
    if (checkAlive && (this.#deaths.get(id) ?? -Infinity) >= askedAt) return gone;
    return await this.#operate((now) => begin(id, checkAlive, now), signal);
  }

  /** Resolves when it is done, and everybody may know; given up when the caller goes away. */
  #operate(begin: (now: Instant) => OperationId, signal?: AbortSignal): Promise<OperationResult> {
    const { promise, resolve } = Promise.withResolvers<OperationResult>();
    if (signal?.aborted) {
      resolve({ outcome: "cancelled", reason: "nobody waits for it" });
      return promise;
    }
    const operation = this.#o.run((now) => {
      const operation = begin(now);
      this.#waiting.set(operation, resolve);
      return operation;
    });
    const cancel = () => this.#o.run((now) => this.#allocator.cancel(operation, now));
    signal?.addEventListener("abort", cancel, { once: true });
    return promise.finally(() => signal?.removeEventListener("abort", cancel));
  }
}

function text(body: string): ApiAnswer {
  return { status: 200, body };
}

function refused(reason: string): ApiAnswer {
  return { status: 400, body: `${reason}\n` };
}

function withSubnet(
  { segments }: ApiRequest,
  handle: (subnet: Cidr) => ApiAnswer | Promise<ApiAnswer>,
): ApiAnswer | Promise<ApiAnswer> {
  const given = `${segments["ip"]}/${segments["length"]}`;
  const subnet = parseCidr(given);
  if (subnet === undefined) return refused(`invalid CIDR address: ${given}`);
  if (sizeOf(rangeOf(subnet)) < MIN_SUBNET_SIZE) {
    return refused(`invalid subnet - smaller than minimum size ${MIN_SUBNET_SIZE}: ${given}`);
  }
  if (networkOf(subnet) !== subnet.address) {
    return refused(`invalid subnet - bits after network prefix are not all zero: ${given}`);
  }
  return handle(subnet);
}

/** As far as Docker says; where it cannot be asked a container is left alone. */
async function isRunning(id: string): Promise<boolean> {
  if (!dockerIsThere()) return true;
  try {
    return (await inspectContainer(id)).running;
  } catch (error) {
    return !(error as Error).message.includes("No such container");
  }
}
