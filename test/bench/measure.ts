/** What is measured of a path between two endpoints, with iperf3 and ping. */

import { delay, waitFor } from "../netns/wait.ts";
import type { Path } from "./carriers.ts";

const SECONDS = 4;

/** Octets of payload in a UDP packet of the packet-rate test. */
const SMALL_OCTETS = 64;

/**
 * What the receiver of that test may queue, where the machine allows it. The usual 208 KiB are full of small packets after 2 ms: what
 * would be measured is how soon the receiver gets a processor, not what was carried to it.
 */
const SMALL_QUEUE_OCTETS = 2 * 1024 * 1024;

export interface Measured {
  /** Gigabits a second: one stream each way, four streams each way. */
  readonly one: number;
  readonly oneBack: number;
  readonly four: number;
  readonly fourBack: number;
  /** Thousands of small UDP packets received a second. */
  readonly kpps: number;
  /** Round trip in milliseconds, average. */
  readonly pingIdle: number;
  readonly pingLoaded: number;
  /** Seconds of processor time that carrying a gigabit by one stream took: of the carrier's processes, and of the machine. */
  readonly carrierSeconds: number;
  readonly machineSeconds: number;
  /** The largest of the carrier's processes in megabytes, at the end. */
  readonly residentMegabytes: number;
}

export async function measurePath(path: Path): Promise<Measured> {
  await waitFor("the path", () => pings(path), 20_000);
  await using _server = path.to.spawn(["iperf3", "-s"]);
  await delay(300);
  const pingIdle = await roundTrip(path);

  const before = { carrier: processSeconds(path.processes), machine: machineSeconds() };
  const one = await throughput(path, []);
  const gigabits = one * SECONDS;
  const carrierSeconds = (processSeconds(path.processes) - before.carrier) / gigabits;
  const machine = (machineSeconds() - before.machine) / gigabits;

  const oneBack = await throughput(path, ["-R"]);
  const four = await throughput(path, ["-P", "4"]);
  const fourBack = await throughput(path, ["-P", "4", "-R"]);
  const [pingLoaded] = await Promise.all([roundTrip(path), throughput(path, [])]);
  const kpps = await packetRate(path);
  const residentMegabytes = Math.max(0, ...path.processes.map(resident));
  return {
    one,
    oneBack,
    four,
    fourBack,
    kpps,
    pingIdle,
    pingLoaded,
    carrierSeconds,
    machineSeconds: machine,
    residentMegabytes,
  };
}

interface IperfEnd {
  readonly sum_received?: { readonly bits_per_second: number };
  readonly sum?: { readonly packets: number; readonly lost_packets: number; readonly seconds: number };
}

/** Its server may still be at the end of the last test, and sometimes loses its own control connection: tried three times. */
async function iperf(path: Path, options: readonly string[]): Promise<IperfEnd> {
  const command = ["iperf3", "-J", "-c", path.address, "-t", String(SECONDS), ...options];
  for (let attempt = 1;; attempt++) {
    const { stdout } = await path.from.attempt(command, { timeoutMs: 60_000 });
    const { end, error } = JSON.parse(stdout) as { end?: IperfEnd; error?: string };
    if (error === undefined && (end?.sum_received ?? end?.sum) !== undefined) return end!;
    if (attempt === 3) throw new Error(`Cannot measure with iperf3: ${error ?? "it reports no sum"}`);
    await delay(1000);
  }
}

/** Gigabits a second that arrive. */
async function throughput(path: Path, options: readonly string[]): Promise<number> {
  return (await iperf(path, options)).sum_received!.bits_per_second / 1e9;
}

async function packetRate(path: Path): Promise<number> {
  const limits = ["rmem_max", "wmem_max"].map((name) => Number(Deno.readTextFileSync(`/proc/sys/net/core/${name}`)));
  const queue = Math.min(SMALL_QUEUE_OCTETS, ...limits);
  const sum = (await iperf(path, ["-u", "-b", "0", "-l", String(SMALL_OCTETS), "-w", String(queue)])).sum!;
  return (sum.packets - sum.lost_packets) / sum.seconds / 1000;
}

async function roundTrip(path: Path): Promise<number> {
  const { stdout } = await path.from.attempt(["ping", "-n", "-q", "-i", "0.01", "-c", "200", path.address]);
  return Number(/= [\d.]+\/([\d.]+)\//.exec(stdout)?.[1] ?? NaN);
}

async function pings(path: Path): Promise<boolean> {
  return (await path.from.attempt(["ping", "-n", "-q", "-c", "1", "-W", "1", path.address])).code === 0;
}

/** Processor time of these processes so far, all their threads; the kernel counts in hundredths of a second. */
function processSeconds(pids: readonly number[]): number {
  const ticks = pids.map((pid) => {
    const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).split(") ")[1]!.split(" ");
    return Number(fields[11]) + Number(fields[12]); // utime, stime: fields 14 and 15 of proc(5)
  });
  return ticks.reduce((sum, one) => sum + one, 0) / 100;
}

/** Processor time of the whole machine so far, iperf3 and the kernel's own included: user, nice, system, irq, softirq. */
function machineSeconds(): number {
  const fields = Deno.readTextFileSync("/proc/stat").split("\n")[0]!.trim().split(/\s+/).slice(1).map(Number);
  return [0, 1, 2, 5, 6].reduce((sum, i) => sum + fields[i]!, 0) / 100;
}

function resident(pid: number): number {
  return Number(/VmRSS:\s+(\d+)/.exec(Deno.readTextFileSync(`/proc/${pid}/status`))![1]) / 1024;
}
