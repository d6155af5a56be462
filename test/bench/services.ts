/**
 * What translating a service costs: our rules next to those that people type, and next to a proxy, on the same hosts and over the same
 * mesh, each on ports of its own, in turn. And all of them once where there is no mesh, on one gateway.
 *
 *     client ── exporter ══ mesh ══ importer ── backend
 *                   └ container        └ near
 */

import { join } from "node:path";
import type { Container, EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { attachNew, waitEstablished } from "../netns/mesh.ts";
import { service, waitKnown } from "../netns/services.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { isThere } from "../packages.ts";
import { DENO_RUN } from "../netns/executable.ts";

const SECONDS = 2;
/** How often a round goes over all ways: what is compared is measured close together. */
const PASSES = 3;
/** Connections under way. */
const AT_ONCE = 64;
/** The backend's ports: throughput, and connections; one for each way, so that no way finds tables filled by another one. */
const LOAD = 5_200, CONNECTIONS = 5_300;
/** Where gateways listen for a way: its port at the backend, and so much more. */
const OFFSET = 1_000;
const REFERENCE = "typed by hand";

type Kind = "routed" | "typed by hand" | "weave" | "haproxy" | "socat";

/** A way from a client to the backend. */
interface Way {
  readonly place: string;
  readonly kind: Kind;
  readonly from: EmulatedHost | Container;
  /** What is asked, and what its ports are more than the backend's. */
  readonly address: string;
  readonly offset: number;
  /** Which of the backend's ports it uses. */
  readonly number: number;
}

interface Measured {
  /** Gigabits a second: one stream, four streams. */
  readonly one: number;
  readonly four: number;
  /** New connections a second. */
  readonly connections: number;
}

/** Prints a table in Markdown: medians, and ratios to the rules typed by hand. */
export async function benchServices(rounds: number): Promise<void> {
  await using lab = new Lab();
  const ways = await setUp(lab);
  const results = new Map<Way, Measured[]>();
  for (let round = 1; round <= rounds; round++) {
    for (let pass = 1; pass <= PASSES; pass++) {
      console.error(`round ${round} of ${rounds}: ${ways.length} ways, ${pass} of ${PASSES}`);
      for (const way of ways) results.set(way, [...results.get(way) ?? [], await measure(way)]);
    }
  }
  console.log(table(results));
}

async function setUp(lab: Lab): Promise<Way[]> {
  const [exporter, importer] = [await lab.host("exporter"), await lab.host("importer")];
  const [client, near, backend] = [await lab.host("client"), await lab.host("near"), await lab.host("backend")];
  await lab.link(exporter, importer);
  await lab.link(exporter, client, ["192.168.50.1", "192.168.50.2"]);
  await lab.link(importer, backend, ["192.168.60.1", "192.168.60.2"]);
  await lab.link(importer, near, ["192.168.70.1", "192.168.70.2"]);
  for (const host of [exporter, importer]) await host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
  await near.sh("ip route add default via 192.168.70.1");
  await backend.sh("ip route add default via 192.168.60.1");
  await importer.weave("launch");
  await exporter.weave("launch", importer.address(exporter));
  await waitEstablished(importer, [exporter]);
  const entry = await importer.weave("expose");
  await exporter.weave("expose");
  const container = await attachNew(exporter, "c1");

  const kinds: readonly Kind[] = ["typed by hand", "weave", isThere("haproxy") ? "haproxy" : "socat"];
  const ways: Way[] = [
    { place: "no mesh", kind: "routed", from: near, address: backend.address(), offset: 0, number: 0 },
  ];
  for (
    const [place, from, own] of [
      ["no mesh", near, "192.168.70.1"],
      ["import: from a container", container, undefined],
      ["export and import: from a machine", client, "192.168.50.1"],
    ] as const
  ) {
    for (const kind of kinds) {
      const number = ways.length;
      const ports = [LOAD + number, CONNECTIONS + number];
      const offset = kind === "weave" && own === undefined ? 0 : OFFSET;
      const address = await make(kind, { number, ports, own, gateways: { exporter, importer }, entry, backend });
      ways.push({ place, kind, from, address, offset, number });
    }
  }
  for (const { number } of ways) backend.spawn(["iperf3", "-s", "-p", String(LOAD + number)]);
  const program = join(import.meta.dirname!, "connections.ts");
  const server = backend.spawn([...DENO_RUN, program, "serve", `${CONNECTIONS}-${CONNECTIONS + ways.length - 1}`]);
  await waitFor("the server", () => server.stdout.includes("ready"), 10_000);
  for (const way of ways) {
    const ask = ["nc", "-z", "-w", "1", way.address, String(CONNECTIONS + way.number + way.offset)];
    const witnesses = [exporter, importer];
    await waitFor(`${way.kind}, ${way.place}`, async () => (await way.from.attempt(ask)).code === 0, 10_000, witnesses);
  }
  return ways;
}

interface Making {
  readonly number: number;
  readonly ports: readonly number[];
  /** The address of the gateway that the client asks; undefined for a container, which asks the mesh. */
  readonly own: string | undefined;
  readonly gateways: { readonly exporter: EmulatedHost; readonly importer: EmulatedHost };
  /** The importer's exposed address. */
  readonly entry: string;
  readonly backend: EmulatedHost;
}

/** Sets a way up. @returns the address that clients ask */
async function make(kind: Kind, making: Making): Promise<string> {
  const { ports, own, gateways: { exporter, importer }, entry, backend } = making;
  /** Whoever has the address that is asked passes it on to the backend, or through the mesh to the importer. */
  const hops: [EmulatedHost, at: string, to: string, change: number][] = own === "192.168.70.1"
    ? [[importer, own, backend.address(), OFFSET]]
    : [[importer, entry, backend.address(), OFFSET]];
  if (own === "192.168.50.1") hops.push([exporter, own, entry, 0]);
  if (kind === "weave") return await offer(making);
  for (const [host, at, to, change] of hops) {
    for (const port of ports) {
      const listen = port + OFFSET, target = `${to}:${listen - change}`;
      if (kind === "typed by hand") {
        await host.sh(
          `iptables -t nat -A PREROUTING -p tcp -d ${at} --dport ${listen} -j DNAT --to-destination ${target}`,
        );
        if (host === importer) {
          await host.sh(`iptables -t nat -A POSTROUTING -p tcp -d ${to} --dport ${listen - change} -j MASQUERADE`);
        }
      } else await proxy(kind, host, `${at}:${listen}`, target);
    }
  }
  return own ?? entry;
}

async function offer({ number, ports, own, gateways: { exporter, importer }, backend }: Making): Promise<string> {
  const name = `s${number}`;
  const targets = ports.flatMap((port) => ["--to", `${backend.address()}:${port}`]);
  const address = await service(importer, "import", name, ...targets);
  if (own === undefined) return address;
  const gateway = own === "192.168.70.1" ? importer : exporter;
  await waitKnown(gateway, name);
  for (const port of ports) await service(gateway, "export", `${name}:${port}`, "--listen", `${own}:${port + OFFSET}`);
  return own;
}

async function proxy(kind: Kind, host: EmulatedHost, listen: string, target: string): Promise<void> {
  if (kind === "socat") {
    const [at, port] = listen.split(":");
    host.spawn(["socat", `TCP4-LISTEN:${port},bind=${at},fork,reuseaddr,backlog=1024`, `TCP4:${target}`]);
    return;
  }
  const path = `/run/haproxy-${listen}.conf`;
  const config = `
global
  maxconn 400
defaults
  mode tcp
  option splice-auto
  timeout connect 5s
  timeout client 60s
  timeout server 60s
listen service
  bind ${listen}
  server backend ${target}
`;
  await host.exec(["sh", "-ec", 'cat > "$0"', path], { input: config });
  host.spawn(["haproxy", "-db", "-q", "-f", path]);
}

async function measure(way: Way): Promise<Measured> {
  const one = await throughput(way, 1);
  const four = await throughput(way, 4);
  const connections = await connectionRate(way);
  return { one, four, connections };
}

/** Gigabits a second that arrive. iperf3 may still be at the end of the last test: tried three times. */
async function throughput({ from, address, number, offset }: Way, streams: number): Promise<number> {
  const port = String(LOAD + number + offset);
  const command = ["iperf3", "-J", "-c", address, "-p", port, "-t", String(SECONDS), "-P", String(streams)];
  for (let attempt = 1;; attempt++) {
    const { stdout } = await from.attempt(command, { timeoutMs: 60_000 });
    const { end, error } = JSON.parse(stdout);
    if (error === undefined && end?.sum_received !== undefined) return end.sum_received.bits_per_second / 1e9;
    if (attempt === 3) throw new Error(`Cannot measure with iperf3: ${error ?? "it reports no sum"}`);
    await delay(1_000);
  }
}

async function connectionRate({ from, address, number, offset }: Way): Promise<number> {
  const port = String(CONNECTIONS + number + offset);
  const program = join(import.meta.dirname!, "connections.ts");
  const command = [...DENO_RUN, program, "connect", address, port, String(AT_ONCE), String(SECONDS)];
  const { stdout } = await from.exec(command, { timeoutMs: 60_000 });
  const { perSecond, failed } = JSON.parse(stdout) as { perSecond: number; failed: number };
  if (failed > 0) console.error(`${failed} connections failed`);
  return perSecond;
}

function table(results: ReadonlyMap<Way, readonly Measured[]>): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const titles = ["1 TCP, Gb/s", "ratio", "4 TCP, Gb/s", "ratio", "new connections/s", "ratio"];
  const lines = [...results].map(([{ place, kind }, all]) => {
    const reference = [...results].find(([way]) => way.place === place && way.kind === REFERENCE)![1];
    const cells = (["one", "four", "connections"] as const).flatMap((key) => [
      median(all, key).toFixed(key === "connections" ? 0 : 2),
      (median(all, key) / median(reference, key)).toFixed(2),
    ]);
    return row([`${place}: ${kind}`, ...cells]);
  });
  return [row(["services", ...titles]), row(["---", ...titles.map(() => "---:")]), ...lines].join("\n");
}

function median(all: readonly Measured[], key: keyof Measured): number {
  const values = all.map((measured) => measured[key]).sort((a, b) => a - b);
  const middle = values.length >> 1;
  return values.length % 2 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2;
}
