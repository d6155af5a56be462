/**
 * The DNS server beside others that answer the same names: rate, latency at a rate that everybody bears, memory. All on one emulated host
 * and in turn, with dnsperf as the client.
 */

import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { dig } from "../netns/dns.ts";

const NAMES = 10_000;
/** Of the latency test. */
const RATE = 5_000;
const SECONDS = 5;
const REFERENCE = "dnsmasq";

interface Measured {
  /** Queries a second at most. */
  readonly rate: number;
  /** Milliseconds that 50, 99 and 99.9 % of answers took at most, at `RATE`. */
  readonly p50: number;
  readonly p99: number;
  readonly p999: number;
  /** Share of one processor at `RATE`. */
  readonly cpu: number;
  readonly residentMegabytes: number;
}

interface Server {
  readonly name: string;
  readonly port: number;
  /** Starts it and resolves to its process, by its number inside. */
  start(host: EmulatedHost): Promise<number>;
}

const SERVERS: readonly Server[] = [
  { name: "weave", port: 5301, start: startWeave },
  { name: "dnsmasq", port: 5302, start: startDnsmasq },
  { name: "unbound", port: 5303, start: startUnbound },
];

/** Prints a table in Markdown: medians, and ratios to dnsmasq. */
export async function benchDns(rounds: number): Promise<void> {
  await using lab = new Lab();
  const host = await lab.host("a");
  // A host without any IPv4 address but its loopback's speaks no IPv4, thinks dnsperf.
  await lab.switch([host]);
  await write(host, "/run/queries", shuffled().map((i) => `${nameOf(i)} A\n`).join(""));
  const pids = new Map<string, number>();
  for (const { name, port, start } of SERVERS) {
    pids.set(name, await start(host));
    await waitFor(
      name,
      async () => (await dig(host, `127.0.0.1#${port}`, nameOf(77), "A")).answers.length === 1,
      10_000,
    );
  }
  const results = new Map<string, Measured[]>();
  for (let round = 1; round <= rounds; round++) {
    for (const { name, port } of SERVERS) {
      console.error(`round ${round} of ${rounds}: ${name}`);
      results.set(name, [...results.get(name) ?? [], await measure(host, port, pids.get(name)!)]);
    }
  }
  console.log(table(results));
}

async function measure(host: EmulatedHost, port: number, pid: number): Promise<Measured> {
  const dnsperf = ["dnsperf", "-s", "127.0.0.1", "-p", String(port), "-d", "/run/queries", "-T", "1", "-c", "8"];
  const fast = await host.exec([...dnsperf, "-l", String(SECONDS), "-q", "100"], { timeoutMs: 60_000 });
  const rate = Number(/Queries per second:\s+([\d.]+)/.exec(fast.stdout)![1]);
  const before = await processSeconds(host, pid);
  const steady = await host.exec([...dnsperf, "-l", String(SECONDS), "-Q", String(RATE), "-v"], { timeoutMs: 60_000 });
  const cpu = (await processSeconds(host, pid) - before) / SECONDS;
  const times = [...steady.stdout.matchAll(/^> NOERROR .* ([\d.]+)$/gm)].map(([, s]) => Number(s) * 1000).sort((a, b) =>
    a - b
  );
  const lost = RATE * SECONDS - times.length;
  if (lost > RATE / 100) console.error(`${lost} queries were not answered`);
  const at = (share: number) => times[Math.min(times.length - 1, Math.floor(times.length * share))] ?? NaN;
  const status = await host.sh(`cat /proc/${pid}/status`);
  const residentMegabytes = Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
  return { rate, p50: at(0.5), p99: at(0.99), p999: at(0.999), cpu, residentMegabytes };
}

function table(results: ReadonlyMap<string, readonly Measured[]>): string {
  const reference = median(results.get(REFERENCE)!, "rate");
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const titles = ["queries/s", `of ${REFERENCE}`, `p50 at ${RATE}/s, ms`, "p99", "p99.9", "CPU", "RSS, MB"];
  return [
    row([`${NAMES} names`, ...titles]),
    row(["---", ...titles.map(() => "---:")]),
    ...[...results].map(([name, all]) =>
      row([
        name,
        median(all, "rate").toFixed(0),
        (median(all, "rate") / reference).toFixed(2),
        median(all, "p50").toFixed(2),
        median(all, "p99").toFixed(2),
        median(all, "p999").toFixed(2),
        `${(median(all, "cpu") * 100).toFixed(0)} %`,
        median(all, "residentMegabytes").toFixed(0),
      ])
    ),
  ].join("\n");
}

function median(all: readonly Measured[], key: keyof Measured): number {
  const values = all.map((measured) => measured[key]).sort((a, b) => a - b);
  const middle = values.length >> 1;
  return values.length % 2 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2;
}

function nameOf(i: number): string {
  return `host-${i}.weave.local`;
}

function addressOf(i: number): string {
  return `10.32.${i >> 8}.${i & 255}`;
}

/** Every name a few times, in no order. */
function shuffled(): number[] {
  let state = 1;
  return Array.from({ length: 5 * NAMES }, () => {
    state = Math.imul(state, 1_103_515_245) + 12_345 >>> 0;
    return (state >>> 8) % NAMES;
  });
}

async function startWeave(host: EmulatedHost): Promise<number> {
  const before = await memoryWithoutNames(host);
  const data = everyName((hostname, address) => ({
    hostname: `${hostname}.`,
    containerId: "weave:extern",
    data: address,
  }));
  await write(host, "/var/lib/weave/weave-names.json", JSON.stringify({ version: "1.0", data }));
  await host.weave("launch", "--dns-listen-address", "127.0.0.1:5301");
  const pid = await routerPid(host);
  const status = await host.sh(`cat /proc/${pid}/status`);
  const now = Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
  console.error(`weave: ${before.toFixed(0)} MB without names, ${now.toFixed(0)} MB with ${NAMES}, before any query`);
  return pid;
}

async function memoryWithoutNames(host: EmulatedHost): Promise<number> {
  await host.weave("launch", "--dns-listen-address", "127.0.0.1:5301");
  const status = await host.sh(`cat /proc/${await routerPid(host)}/status`);
  await host.weave("stop");
  return Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024;
}

async function startDnsmasq(host: EmulatedHost): Promise<number> {
  await write(host, "/run/hosts", everyName((hostname, address) => `${address} ${hostname}\n`).join(""));
  const lines = [
    "port=5302",
    "listen-address=127.0.0.1",
    "bind-interfaces",
    "no-resolv",
    "no-hosts",
    "addn-hosts=/run/hosts",
    "local=/weave.local/",
    "local-ttl=1",
    "user=root",
    "pid-file=/run/dnsmasq.pid",
  ];
  await write(host, "/run/dnsmasq.conf", lines.join("\n") + "\n");
  host.spawn(["dnsmasq", "--keep-in-foreground", "--conf-file=/run/dnsmasq.conf"]);
  return await pidIn(host, "/run/dnsmasq.pid");
}

async function startUnbound(host: EmulatedHost): Promise<number> {
  const lines = [
    "server:",
    ' directory: ""',
    ' username: ""',
    ' chroot: ""',
    ' pidfile: "/run/unbound.pid"',
    " use-syslog: no",
    " interface: 127.0.0.1@5303",
    " do-daemonize: no",
    " num-threads: 1",
    ' local-zone: "weave.local." static',
    ...everyName((hostname, address) => ` local-data: "${hostname}. 1 IN A ${address}"`),
  ];
  await write(host, "/run/unbound.conf", lines.join("\n") + "\n");
  host.spawn(["unbound", "-d", "-c", "/run/unbound.conf"]);
  return await pidIn(host, "/run/unbound.pid");
}

function everyName<T>(make: (hostname: string, address: string) => T): T[] {
  return Array.from({ length: NAMES }, (_, i) => make(nameOf(i), addressOf(i)));
}

async function pidIn(host: EmulatedHost, path: string): Promise<number> {
  return await waitFor(path, async () => Number(await host.sh(`cat ${path} 2>/dev/null || true`)), 5_000);
}

/** The kernel counts in hundredths of a second. */
async function processSeconds(host: EmulatedHost, pid: number): Promise<number> {
  const fields = (await host.sh(`cat /proc/${pid}/stat`)).split(") ")[1]!.split(" ");
  return (Number(fields[11]) + Number(fields[12])) / 100; // utime, stime: fields 14 and 15 of proc(5)
}

async function write(host: EmulatedHost, path: string, content: string): Promise<void> {
  await host.exec(["sh", "-ec", 'mkdir -p "$(dirname "$0")"; cat > "$0"', path], { input: content });
}
