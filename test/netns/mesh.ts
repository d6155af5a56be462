/** What most tests with emulated hosts do: launch, wait for connections, attach, and see who reaches whom for how long. */

import type { RunningCommand } from "./command.ts";
import type { Container, EmulatedHost } from "./host.ts";
import type { Lab } from "./lab.ts";
import type { Link } from "./link.ts";
import { waitFor } from "./wait.ts";

/** How long a connection may take from launch to established. */
export const CONNECT_MS = 10_000;

/** How long a container may take to reach another one over established connections: gossip, routes, ARP. */
const REACH_MS = 10_000;

interface Report {
  readonly Version: string;
  readonly Router: {
    readonly Name: string;
    readonly NickName: string;
    readonly Peers: readonly ReportedPeer[] | null;
    readonly Connections: readonly ReportedConnection[] | null;
    readonly UnicastRoutes: readonly { readonly Dest: string; readonly Via: string }[] | null;
    readonly Targets: readonly string[] | null;
    readonly TerminationCount: number;
  };
}

export interface ReportedPeer {
  readonly Name: string;
  readonly NickName: string;
  readonly UID: number;
  readonly ShortID: number;
  readonly Version: number;
  readonly Connections: readonly { readonly Name: string; readonly Established: boolean }[] | null;
}

export interface ReportedConnection {
  readonly Address: string;
  readonly Outbound: boolean;
  readonly State: string;
  readonly Info: string;
  readonly Attrs: Readonly<Record<string, unknown>> | null;
}

/** What `weave report` prints, read. */
export async function report(host: EmulatedHost): Promise<Report> {
  return JSON.parse(await host.weave("report"));
}

export async function connections(host: EmulatedHost): Promise<readonly ReportedConnection[]> {
  return (await report(host)).Router.Connections ?? [];
}

/** The nicknames of the peers a host has established connections with, sorted. */
export async function establishedPeers(host: EmulatedHost): Promise<string[]> {
  const established = (await connections(host)).filter((connection) => connection.State === "established");
  return established.map((connection) => /\(([^)]*)\)/.exec(connection.Info)?.[1] ?? connection.Info).sort();
}

/** Waits until a host has established connections with these hosts and no others. */
export async function waitEstablished(
  host: EmulatedHost,
  peers: readonly EmulatedHost[],
  deadlineMs = CONNECT_MS,
): Promise<void> {
  const names = peers.map((peer) => peer.name).sort();
  const what = `established connections of ${host.name} with ${names.join(", ")}`;
  await waitFor(what, async () => `${await establishedPeers(host)}` === `${names}`, deadlineMs, [host, ...peers]);
}

/** Hosts named a, b, c … with a cable from each to the next. */
export async function line(lab: Lab, count: number): Promise<{ hosts: EmulatedHost[]; links: Link[] }> {
  const hosts: EmulatedHost[] = [];
  const links: Link[] = [];
  for (let i = 0; i < count; i++) {
    hosts.push(await lab.host(String.fromCharCode(97 + i)));
    if (i > 0) links.push(await lab.link(hosts[i - 1]!, hosts[i]!));
  }
  return { hosts, links };
}

/** Launches a router on each, each told of the one before it, and waits until all of these are connected. */
export async function launchLine(hosts: readonly EmulatedHost[]): Promise<void> {
  for (const [i, host] of hosts.entries()) {
    const before = hosts[i - 1];
    await (before ? host.weave("launch", before.address(host)) : host.weave("launch"));
    if (before) {
      await waitFor(
        `${before.name} - ${host.name}`,
        async () => (await establishedPeers(host)).includes(before.name),
        CONNECT_MS,
        [before, host],
      );
    }
  }
}

/** Makes a container on a host and attaches it. */
export async function attachNew(host: EmulatedHost, name: string, ...addresses: string[]): Promise<Container> {
  const container = await host.container(name);
  await host.weave("attach", ...addresses, container.reference);
  return container;
}

export async function waitPing(from: Container, address: string, deadlineMs = REACH_MS): Promise<void> {
  const what = `an answer of ${address} to ${from.name} on ${from.host.name}`;
  await waitFor(what, () => from.pings(address), deadlineMs, [from.host]);
}

/** The process that listens on the control port, by its number inside the host. */
export async function routerPid(host: EmulatedHost, port = 6783): Promise<number> {
  const sockets = await host.sh(`ss -Htlnp sport = :${port}`);
  const pid = /pid=(\d+)/.exec(sockets)?.[1];
  if (!pid) throw new Error(`No router on ${host.name}: ${sockets || "nobody listens"}`);
  return Number(pid);
}

/** A ping every 20 ms, to see for how long nothing came through. */
export class PingStream implements AsyncDisposable {
  readonly #ping: RunningCommand;

  constructor(from: Container, address: string) {
    this.#ping = from.spawn(["ping", "-n", "-D", "-i", "0.02", address]);
  }

  /** When the answers so far came, in milliseconds since 1970. */
  get #answers(): number[] {
    return [...this.#ping.stdout.matchAll(/^\[([\d.]+)\] .*bytes from/gm)].map((line) => Number(line[1]) * 1000);
  }

  /** Waits until `count` more answers have come. */
  async waitAnswers(count: number, deadlineMs: number): Promise<void> {
    const before = this.#answers.length;
    await waitFor(`${count} answers to ping`, () => this.#answers.length >= before + count, deadlineMs);
  }

  /** The longest time between two answers, in milliseconds. */
  get longestGapMs(): number {
    const times = this.#answers;
    return Math.round(times.reduce((longest, time, i) => i === 0 ? 0 : Math.max(longest, time - times[i - 1]!), 0));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#ping[Symbol.asyncDispose]();
  }
}
