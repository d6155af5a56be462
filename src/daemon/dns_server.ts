/**
 * The DNS server of this host: where it listens, whom it asks, and the chain between. Names come from elsewhere, as a look-up.
 *
 * It listens at `--dns-listen-address`, at the address of Docker's bridge and at every address that the host is exposed at, as they come and
 * go. The first is asked for: where that cannot be had the router does not start. The others are tried again, and a warning says so.
 */
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { Chain, type DnsCounters, newCounters } from "../dns/chain.ts";
import { LocalNames } from "../dns/local.ts";
import type { NameAnswer, ReverseAnswer } from "../dns/name_index.ts";
import { parseResolvConf } from "../dns/resolv_conf.ts";
import { ReverseNames } from "../dns/reverse.ts";
import { type AttemptId, DNS_PORT, Upstream } from "../dns/upstream.ts";
import type { Clock } from "../host/clock.ts";
import {
  DnsAskers,
  type DnsHandler,
  type DnsListener,
  DnsRoom,
  listenForDns,
  type Ticket,
} from "../host/dns_sockets.ts";
import type { Links } from "../host/links.ts";
import { hostFile } from "../host/command.ts";
import type { ControlSockets } from "../host/sockets.ts";
import { OperationError } from "../lib/errors.ts";
import { type Endpoint, formatEndpoint, type Ipv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { type Random, SeededRandom } from "../lib/random.ts";
import { NETLINK_ROUTE, RTNLGRP_IPV4_IFADDR } from "../wire/rtnetlink.ts";

export interface DnsServerOptions {
  readonly domainKey: string;
  readonly lookup: (key: string) => NameAnswer;
  readonly lookupAddress: (address: Ipv4) => ReverseAnswer;
  readonly ttlSeconds: number;
  readonly upstreamTimeoutMs: number;
  /** Path of resolv.conf; empty: nobody else is asked. */
  readonly resolvConf: string;
  readonly listenAddress: Endpoint | undefined;
  readonly dockerBridge: string;
  /** undefined: the first address of that bridge. */
  readonly dockerBridgeIp: Ipv4 | undefined;
  /** Of the overlay. */
  readonly bridge: string;
  readonly links: Links;
  readonly sockets: ControlSockets;
  readonly clock: Clock;
  /** Hard to guess. */
  readonly random: Random;
  readonly log: Logger;
}

/** resolv.conf is looked at again no sooner. */
const RESOLV_CONF_MS = 5_000;
const MAX_RESOLV_CONF_OCTETS = 65_536;
/** Addresses are looked over so often, besides when the kernel tells of a change. */
const LISTEN_MS = 10_000;
/** Listeners at most; whoever exposes more addresses has other ways. */
const MAX_LISTENERS = 64;

export class DnsServer {
  readonly counters: DnsCounters = newCounters();
  readonly #o: DnsServerOptions;
  readonly #room = new DnsRoom();
  readonly #chain: Chain;
  readonly #upstream: Upstream<Ticket>;
  readonly #askers: DnsAskers<AttemptId>;
  readonly #listeners = new Map<string, DnsListener>();
  /** Addresses that cannot be listened at, and why. */
  readonly #troubles = new Map<string, string>();
  readonly #owned = new DisposableStack();
  #addressDue = false;
  #resolvConfAt = -Infinity;
  #resolvConfSeen = "";
  #resolvConfTrouble = false;
  #nameservers: readonly Ipv4[] = [];
  #timer: number | undefined;
  #stopped = false;

  private constructor(o: DnsServerOptions) {
    this.#o = o;
    const { counters } = this;
    const { domainKey, lookup, lookupAddress, ttlSeconds, random } = o;
    // For the order of answers alone, many times a second.
    const shuffling = new SeededRandom(random.u32());
    this.#chain = new Chain(
      [
        new LocalNames({ domainKey, lookup, ttlSeconds, random: shuffling, counters }),
        new ReverseNames({ lookupAddress, ttlSeconds, counters }),
      ],
      counters,
      this.#room.answers,
    );
    this.#upstream = new Upstream({ timeoutMs: o.upstreamTimeoutMs, random, counters });
    this.#askers = new DnsAskers(o.sockets, {
      replied: (attempt, from, octets) => this.#run(() => this.#upstream.handleReply(attempt, from, octets)),
      failed: (attempt) => this.#run((now) => this.#upstream.handleFailed(attempt, now)),
    });
  }

  /** @throws OperationError where the address that was asked for cannot be had */
  static start(o: DnsServerOptions): DnsServer {
    const server = new DnsServer(o);
    try {
      const { listenAddress } = o;
      if (listenAddress !== undefined) server.#listen(listenAddress);
      server.#watchAddresses();
      server.#matchListeners();
      return server;
    } catch (error) {
      server.stop();
      throw error;
    }
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#askers.stop();
    this.#owned.dispose();
    for (const listener of this.#listeners.values()) listener.close();
    this.#listeners.clear();
  }

  /** Where containers are to ask: what was asked for comes first, then Docker's bridge, then the first exposed address. */
  get address(): Endpoint | undefined {
    const wanted = this.#wanted().find((at) => this.#listeners.has(formatEndpoint(at)));
    return wanted && this.#listeners.get(formatEndpoint(wanted))!.local;
  }

  get listening(): readonly Endpoint[] {
    return [...this.#listeners.values()].map(({ local }) => local);
  }

  /** Whom we ask, as of now. */
  get servers(): readonly Endpoint[] {
    this.#readResolvConf();
    return this.#upstream.servers;
  }

  /** Questions that wait for others. */
  get pending(): number {
    return this.#upstream.pending;
  }

  /** What an operator should know, a line each. */
  get warnings(): readonly string[] {
    return [...this.#troubles.values()];
  }

  // Listening

  #wanted(): Endpoint[] {
    const { listenAddress, dockerBridge, dockerBridgeIp, bridge, links } = this.#o;
    const docker = links.find(dockerBridge);
    const dockerIp = dockerBridgeIp ?? (docker && links.addresses(docker.index)[0]?.address);
    const overlay = links.find(bridge);
    const exposed = overlay === undefined ? [] : links.addresses(overlay.index).map(({ address }) => address);
    const others = new Set([...dockerIp === undefined ? [] : [dockerIp], ...exposed]);
    const covered = (address: Ipv4) =>
      listenAddress !== undefined &&
      (listenAddress.address === 0 && listenAddress.port === DNS_PORT || listenAddress.address === address);
    return [
      ...listenAddress === undefined ? [] : [listenAddress],
      ...[...others].filter((address) => !covered(address)).map((address) => ({ address, port: DNS_PORT })),
    ].slice(0, MAX_LISTENERS);
  }

  #matchListeners(): void {
    if (this.#stopped) return;
    const wanted = new Map(this.#wanted().map((at) => [formatEndpoint(at), at]));
    for (const [text, listener] of this.#listeners) {
      if (wanted.has(text)) continue;
      listener.close();
      this.#listeners.delete(text);
      this.#o.log.info("no longer listening for DNS queries", { address: text });
    }
    for (const text of [...this.#troubles.keys()]) if (!wanted.has(text)) this.#troubles.delete(text);
    for (const [text, at] of wanted) {
      if (this.#listeners.has(text)) continue;
      try {
        this.#listen(at);
        this.#troubles.delete(text);
      } catch (error) {
        if (!(error instanceof OperationError)) throw error;
        if (!this.#troubles.has(text)) {
          this.#o.log.warn("cannot listen for DNS queries", { address: text, error: error.message });
        }
        this.#troubles.set(text, error.message);
      }
    }
    // Our own addresses are nobody else's.
    this.#setServers();
  }

  #listen(at: Endpoint): void {
    const text = formatEndpoint(at);
    const { sockets, log } = this.#o;
    this.#listeners.set(text, listenForDns({ at, sockets, room: this.#room, handler: this.#handler }));
    log.info("listening for DNS queries", { address: text });
  }

  #watchAddresses(): void {
    const { sockets } = this.#o;
    const changes = this.#owned.adopt(
      new NetlinkSocket(NETLINK_ROUTE, [RTNLGRP_IPV4_IFADDR]),
      (socket) => socket.fd.close(),
    );
    this.#owned.defer(sockets.watch(changes.fd, () => {
      changes.receive();
      if (this.#addressDue) return;
      this.#addressDue = true;
      queueMicrotask(() => {
        this.#addressDue = false;
        this.#matchListeners();
      });
    }));
    const timer = setInterval(() => this.#matchListeners(), LISTEN_MS);
    this.#owned.defer(() => clearInterval(timer));
  }

  // Queries

  readonly #handler: DnsHandler = {
    handle: (octets, at, length, answerAt, transport) => this.#chain.handle(octets, at, length, answerAt, transport),
    forward: (ticket, transport) => {
      this.#readResolvConf();
      const client = { transport, address: ticket.client, ticket };
      this.#run((now) => this.#upstream.handleQuery(this.#chain.query, client, now));
    },
    refused: () => {
      this.counters.refused++;
    },
  };

  #run(input: (now: number) => void): void {
    if (this.#stopped) return;
    input(this.#o.clock.monotonicMs());
    for (let output = this.#upstream.poll(); output !== undefined; output = this.#upstream.poll()) {
      switch (output.type) {
        case "ask":
          this.#askers.ask(output.attempt, output.server, output.octets, output.transport);
          break;
        case "close":
          this.#askers.close(output.attempt);
          break;
        case "answer":
          output.ticket.answer(output.octets);
          break;
        default:
          output satisfies never;
      }
    }
    this.#setTimer();
  }

  #setTimer(): void {
    clearTimeout(this.#timer);
    const next = this.#upstream.pollTimeout();
    if (next === undefined) return;
    const wait = Math.max(0, Math.ceil(next.at - this.#o.clock.monotonicMs()));
    this.#timer = setTimeout(() => this.#run((now) => this.#upstream.handleTimeout(now)), wait);
  }

  // Whom to ask

  #readResolvConf(): void {
    const { clock, resolvConf, log } = this.#o;
    const now = clock.monotonicMs();
    if (resolvConf === "" || now < this.#resolvConfAt + RESOLV_CONF_MS) return;
    this.#resolvConfAt = now;
    try {
      const path = hostFile(resolvConf);
      const { mtime, size, ino } = Deno.statSync(path);
      this.#resolvConfTrouble = false;
      const seen = `${mtime?.getTime()} ${size} ${ino}`;
      if (seen === this.#resolvConfSeen) return;
      if (size > MAX_RESOLV_CONF_OCTETS) throw new Error(`it has ${size} octets`);
      this.#nameservers = parseResolvConf(Deno.readTextFileSync(path));
      this.#resolvConfSeen = seen;
      this.#setServers();
    } catch (error) {
      // What was read last holds on.
      if (!this.#resolvConfTrouble) {
        log.warn("cannot read resolv.conf", { name: resolvConf, error: (error as Error).message });
      }
      this.#resolvConfTrouble = true;
    }
  }

  #setServers(): void {
    const ours = this.listening.filter(({ port }) => port === DNS_PORT).map(({ address }) => address);
    const all = ours.includes(0) ? this.#ownAddresses() : new Set(ours);
    const servers = this.#nameservers.filter((server) =>
      !all.has(server) && !(ours.includes(0) && server >>> 24 === 127)
    );
    this.#upstream.setServers(servers.map((address) => ({ address, port: DNS_PORT })));
  }

  #ownAddresses(): ReadonlySet<Ipv4> {
    const { links } = this.#o;
    return new Set(links.list().flatMap(({ index }) => links.addresses(index).map(({ address }) => address)));
  }
}
