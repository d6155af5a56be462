/** What tests of services do: sites behind firewalls, servers that say their name, clients that ask it, and what `show` tells. */

import { join } from "node:path";
import type { ServiceJson } from "../../src/api/service_types.ts";
import type { RunningCommand } from "./command.ts";
import type { Container, EmulatedHost } from "./host.ts";
import type { Lab } from "./lab.ts";
import { setFilter } from "./link.ts";
import { delay, waitFor } from "./wait.ts";
import { DENO_RUN } from "./executable.ts";

/** A host or a container: whatever has an address. */
export type Machine = Pick<EmulatedHost | Container, "name" | "exec" | "attempt" | "spawn" | "sh">;

export type Transport = "tcp" | "udp";

/** How long a change of ours may take to be seen by clients. */
export const CHANGE_MS = 3_000;

/** A program of ours (`traffic.ts`) on a machine. */
function traffic(machine: Machine, ...args: readonly string[]): RunningCommand {
  const program = join(import.meta.dirname!, "traffic.ts");
  return machine.spawn([...DENO_RUN, "--v8-flags=--max-old-space-size=256", program, ...args]);
}

/**
 * Starts a server that says its name to whoever asks, by socat, which over UDP loses one in twenty: there it is a program of ours. It lives
 * as long as the host.
 * @param port of a range, each says its port as well: `name.port`
 */
export async function serveName(machine: Machine, port: number | string, transport: Transport = "tcp"): Promise<void> {
  if (transport === "udp") {
    await serveMany(machine, port, "udp");
    return;
  }
  const [first, last = first] = String(port).split("-").map(Number) as [number, number?];
  for (let one = first; one <= last; one++) {
    const name = first === last ? machine.name : `${machine.name}.${one}`;
    machine.spawn(["socat", "-T", "5", `TCP4-LISTEN:${one},fork,reuseaddr`, `SYSTEM:echo ${name}`]);
  }
  await waitFor(`a server on ${machine.name}`, () => machine.sh(`ss -Hlnt sport = :${last}`), 5_000);
}

/** Starts a server that takes thousands of connections, or `http`, or `flaky`: HTTP whose every other answer is a failure. */
export async function serveMany(
  machine: Machine,
  port: number | string,
  kind: "tcp" | "udp" | "http" | "flaky" = "tcp",
): Promise<RunningCommand> {
  const server = traffic(machine, "serve", machine.name, kind, String(port));
  await waitFor(`a server on ${machine.name}`, () => {
    if (server.ended) throw new Error(server.stderr);
    return server.stdout.includes("ready");
  }, 10_000);
  return server;
}

/** Asks with nc who serves there; the answer, or "" where there is none. */
export async function ask(
  from: Machine,
  address: string,
  port: number | string,
  transport: Transport = "tcp",
  options: readonly string[] = [],
): Promise<string> {
  const flags = transport === "tcp" ? ["-N"] : ["-u", "-W", "1"];
  const command = ["nc", ...flags, "-w", "2", ...options, address, String(port)];
  const { stdout } = await from.attempt(command, { input: transport === "tcp" ? "" : "?\n" });
  return stdout.trim();
}

/** Asks until the answer is that one. UDP may lose the first datagram, a change may take its time. */
export async function waitAnswer(
  from: Machine,
  address: string,
  port: number | string,
  wanted: string,
  { transport = "tcp", deadlineMs = 10_000, witnesses = [] }: {
    readonly transport?: Transport;
    readonly deadlineMs?: number;
    readonly witnesses?: readonly EmulatedHost[];
  } = {},
): Promise<void> {
  await waitFor(
    `"${wanted}" from ${address}:${port}/${transport} at ${from.name}`,
    async () => {
      const answer = await ask(from, address, port, transport);
      if (answer !== wanted) throw new Error(`the answer is "${answer}"`);
      return true;
    },
    deadlineMs,
    witnesses,
  );
}

/** One connection on which "tick" is said four times a second: its output is what comes back, its error what ended it. */
export function talk(from: Machine, address: string, port: number): RunningCommand {
  return traffic(from, "talk", address, String(port));
}

export type Reach = "open" | "refused" | "filtered";

/** Which of these TCP endpoints (`ADDRESS:PORT`) a machine reaches. */
export async function scan(from: Machine, targets: readonly string[]): Promise<Record<string, Reach>> {
  await using scanning = traffic(from, "scan", ...targets);
  return JSON.parse((await scanning.finished(20_000)).stdout);
}

/** What became of one connection of a `Clients`. */
export interface Attempt {
  /** Milliseconds since 1970. */
  readonly started: number;
  readonly ended: number;
  /** Who served it; undefined: nobody did. */
  readonly server: string | undefined;
  readonly ok: boolean;
  /** `ok`, or why not. */
  readonly text: string;
}

/** Connections at a steady rate to one address, each held for about `holdMs`. */
export class Clients implements AsyncDisposable {
  readonly #running: RunningCommand;

  constructor(
    from: Machine,
    to: { readonly address: string; readonly port: number },
    { rate, seconds, holdMs, patienceMs = 1_000 }: {
      readonly rate: number;
      readonly seconds: number;
      /** `http`: a request on each, instead. */
      readonly holdMs: number | "http";
      /** For a connection, and for an answer on it. A lost packet is sent again after a second. */
      readonly patienceMs?: number;
    },
  ) {
    this.#running = traffic(from, "connect", to.address, ...[to.port, rate, seconds, holdMs, patienceMs].map(String));
  }

  /** All that have ended so far, in the order of their ends. */
  get attempts(): Attempt[] {
    const lines = this.#running.stdout.split("\n").slice(0, -1);
    return lines.map((line) => {
      const [started, ended, server, ...words] = line.split(" ");
      const text = words.join(" ");
      return {
        started: Number(started),
        ended: Number(ended),
        server: server === "-" ? undefined : server,
        ok: text === "ok",
        text,
      };
    });
  }

  async finished(timeoutMs: number): Promise<Attempt[]> {
    const { code, stderr } = await this.#running.finished(timeoutMs);
    if (code !== 0) throw new Error(stderr);
    return this.attempts;
  }

  /**
   * Waits until connections that began after `since` have all succeeded for a second. @returns how long after `since` the first of them
   * began, in milliseconds; 0 where none failed
   */
  async waitRecovered(
    since: number,
    deadlineMs: number,
    witnesses: readonly EmulatedHost[] = [],
    good: (attempt: Attempt) => boolean = () => true,
  ): Promise<number> {
    return (await waitFor(
      "new connections to succeed",
      () => {
        if (this.#running.ended) throw new Error(`the clients have ended: ${this.#running.stderr}`);
        const after = this.attempts.filter((attempt) => attempt.started >= since);
        const bad = after.filter((attempt) => !attempt.ok || !good(attempt)).map((attempt) => attempt.started);
        const last = Math.max(since - 1, ...bad);
        const fine = after.filter((attempt) => attempt.started > last).map((attempt) => attempt.started);
        // An attempt that will fail is not told of before its time is over.
        if (fine.length === 0 || Date.now() - Math.max(last, since) < 2_200) {
          throw new Error(`last ones: ${JSON.stringify(after.slice(-3))}`);
        }
        return { ms: bad.length === 0 ? 0 : Math.min(...fine) - since };
      },
      deadlineMs,
      witnesses,
    )).ms;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#running[Symbol.asyncDispose]();
  }
}

/** How many of each: `{ red: 10, blue: 3 }`. */
export function tally(attempts: readonly Attempt[]): Record<string, number> {
  const counts: Record<string, number> = {};
  for (const { server = "nobody" } of attempts) counts[server] = (counts[server] ?? 0) + 1;
  return counts;
}

/** A LAN 192.168.1.0/24 whose firewall is `.1`, with a gateway at `.2`, which alone may speak to the hub, and only by weave's ports. */
export interface Site {
  readonly gateway: EmulatedHost;
  readonly firewall: EmulatedHost;
  /** `.50` and on. */
  readonly machines: readonly EmulatedHost[];
}

const GATEWAY = "192.168.1.2";

/**
 * Two sites, both 192.168.1.0/24, and a hub. Neither site is reached from outside; what leaves it is masqueraded, and is only what the
 * gateway sends to the hub's port 6783.
 * @param names of the sites, each with its machines
 */
export async function twoSites(
  lab: Lab,
  names: Readonly<Record<string, readonly string[]>>,
): Promise<{ hub: EmulatedHost; sites: readonly [Site, Site] }> {
  const hub = await lab.host("hub");
  const sites: Site[] = [];
  for (const [name, machineNames] of Object.entries(names)) {
    const [gateway, firewall] = [await lab.host(`gw-${name}`), await lab.host(`fw-${name}`)];
    const machines: EmulatedHost[] = [];
    for (const machine of machineNames) machines.push(await lab.host(machine));
    const members = [firewall, gateway, ...machines];
    await lab.switch(members, ["192.168.1.1", GATEWAY, ...machines.map((_, i) => `192.168.1.${50 + i}`)]);
    for (const member of members.slice(1)) await member.sh("ip route add default via 192.168.1.1");
    sites.push({ gateway, firewall, machines });
  }
  const firewalls = sites.map(({ firewall }) => firewall);
  await lab.switch([hub, ...firewalls], ["203.0.113.1", "203.0.113.11", "203.0.113.12"]);
  for (const firewall of firewalls) {
    const inside = firewall.ports[0]!.device, outside = firewall.ports[1]!.device;
    const out = `iifname "${inside}" oifname "${outside}" ip saddr ${GATEWAY} ip daddr ${hub.address()}`;
    await setFilter(firewall, {
      family: "ip",
      table: "site_filter",
      hook: "type filter hook forward priority 0; policy drop",
      rules: ["ct state established,related accept", `${out} tcp dport 6783 accept`, `${out} udp dport 6783 accept`],
    });
    await setFilter(firewall, {
      family: "ip",
      table: "site_input",
      hook: "type filter hook input priority 0",
      rules: [`iifname "${outside}" drop`],
    });
    await setFilter(firewall, {
      family: "ip",
      table: "site_nat",
      hook: "type nat hook postrouting priority srcnat",
      rules: [`oifname "${outside}" masquerade`],
    });
    await firewall.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
  }
  return { hub, sites: sites as unknown as [Site, Site] };
}

/** What `weave service show NAME --json` says. */
export async function show(host: EmulatedHost, name: string): Promise<ServiceJson> {
  return JSON.parse(await host.weave("service", "show", name, "--json"));
}

/** Runs `weave service …` and returns what it prints. */
export function service(host: EmulatedHost, ...args: readonly string[]): Promise<string> {
  return host.weave("service", ...args);
}

/** Waits until what a service is like is as wanted. */
export async function waitShown(
  host: EmulatedHost,
  name: string,
  what: string,
  wanted: (shown: ServiceJson) => boolean,
  deadlineMs = 10_000,
): Promise<ServiceJson> {
  return await waitFor(
    `${name} to be ${what}`,
    async () => {
      const shown = await show(host, name);
      if (!wanted(shown)) throw new Error(JSON.stringify(shown));
      return shown;
    },
    deadlineMs,
    [host],
  );
}

/** Waits until a host knows of a service that somebody else imported. */
export async function waitKnown(host: EmulatedHost, name: string): Promise<string> {
  const shown = await waitShown(host, name, "known", ({ addresses }) => addresses.some((one) => one.holder !== null));
  return shown.addresses[0]!.address;
}

/** The rules of a host: the user's and those of `expose`, and the table of services. */
export async function rulesOf(host: EmulatedHost): Promise<{ iptables: string; services: string }> {
  const iptables = await host.sh("iptables-save | grep -E '^-A|^:WEAVE|^[*]' | sed 's/ \\[.*//'");
  const services = await host.sh("nft -s list ruleset 2>/dev/null | sed -n '/^table .*weave/,/^}/p'");
  return { iptables, services };
}

/** Until the mesh has settled: a moment in which nothing should happen. */
export function settle(): Promise<void> {
  return delay(500);
}
