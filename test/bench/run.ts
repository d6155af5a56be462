/**
 * `deno task bench [ROUNDS] [carriers] [dns] [addresses] [services]`: what each carrier brings from container to container over two
 * emulated hosts with an underlay of MTU 1500, how the DNS server does beside others, what addresses cost, and how services do beside
 * rules typed by hand and a proxy; all in one run, round by round, because machines differ and have their moods. Prints tables in
 * Markdown: medians, with throughput as a ratio to kernel VXLAN, query rates as one to dnsmasq, and services as one to rules by hand.
 */

import { dirname, join } from "node:path";
import { compile } from "../../dist/compile.ts";
import { ARCHITECTURES } from "../../dist/runtime_base.ts";
import { DNS_TOOLS, ensureTools, NETWORK_TOOLS, PROXY } from "../packages.ts";
import { Lab } from "../netns/lab.ts";
import { benchAddresses } from "./addresses.ts";
import { CARRIERS } from "./carriers.ts";
import { benchDns } from "./dns.ts";
import { type Measured, measurePath } from "./measure.ts";
import { benchServices } from "./services.ts";

const REFERENCE = "kernel VXLAN";

const PARTS: Readonly<Record<string, (rounds: number) => Promise<void>>> = {
  carriers: benchCarriers,
  dns: benchDns,
  addresses: benchAddresses,
  services: benchServices,
};

async function main(args: readonly string[]): Promise<void> {
  if (Deno.uid() !== 0) throw new Error("The benchmark needs root, to make emulated hosts: run it with sudo");
  const rounds = Number(args.find((arg) => /^\d+$/.test(arg)) ?? 2);
  const names = args.filter((arg) => !/^\d+$/.test(arg));
  const unknown = names.filter((name) => !Object.hasOwn(PARTS, name));
  if (unknown.length > 0) throw new Error(`Unknown part ${unknown.join(", ")}: ${Object.keys(PARTS).join(", ")}`);
  await ensureTools([...NETWORK_TOOLS, ...DNS_TOOLS, PROXY]);
  await compile({
    architectures: ARCHITECTURES.filter(({ name }) => name === Deno.build.arch),
    output: join(dirname(dirname(import.meta.dirname!)), "dist"),
    say: console.error,
  });
  for (const [name, bench] of Object.entries(PARTS)) {
    if (names.length === 0 || names.includes(name)) await bench(rounds);
  }
}

async function benchCarriers(rounds: number): Promise<void> {
  const results = new Map<string, Measured[]>();
  for (let round = 1; round <= rounds; round++) {
    for (const carrier of CARRIERS) {
      if (carrier.missing) {
        if (round === 1) console.log(`skipped: ${carrier.name}: ${carrier.missing}`);
        continue;
      }
      console.error(`round ${round} of ${rounds}: ${carrier.name}`);
      await using lab = new Lab();
      const [a, b] = [await lab.host("a"), await lab.host("b")];
      await lab.link(a, b);
      const measured = await measurePath(await carrier.setUp(a, b));
      results.set(carrier.name, [...results.get(carrier.name) ?? [], measured]);
    }
  }
  console.log(table(results));
}

function table(results: ReadonlyMap<string, readonly Measured[]>): string {
  const reference = results.get(REFERENCE)!;
  const columns: [string, (all: readonly Measured[]) => string][] = [
    ["1 TCP, Gb/s", (all) => median(all, "one").toFixed(2)],
    ["of VXLAN", (all) => ratio(all, reference, "one")],
    ["back", (all) => ratio(all, reference, "oneBack")],
    ["4 TCP", (all) => ratio(all, reference, "four")],
    ["back", (all) => ratio(all, reference, "fourBack")],
    ["kpps", (all) => median(all, "kpps").toFixed(0)],
    ["ping idle, ms", (all) => median(all, "pingIdle").toFixed(2)],
    ["under load", (all) => median(all, "pingLoaded").toFixed(2)],
    ["carrier CPU s/Gb", (all) => median(all, "carrierSeconds").toFixed(2)],
    ["machine CPU s/Gb", (all) => median(all, "machineSeconds").toFixed(2)],
    ["RSS, MB", (all) => median(all, "residentMegabytes").toFixed(0)],
  ];
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  return [
    row(["", ...columns.map(([title]) => title)]),
    row(["---", ...columns.map(() => "---:")]),
    ...[...results].map(([name, all]) => row([name, ...columns.map(([, cell]) => cell(all))])),
  ].join("\n");
}

function ratio(all: readonly Measured[], reference: readonly Measured[], key: keyof Measured): string {
  return (median(all, key) / median(reference, key)).toFixed(3);
}

function median(all: readonly Measured[], key: keyof Measured): number {
  const values = all.map((measured) => measured[key]).sort((a, b) => a - b);
  const middle = values.length >> 1;
  return values.length % 2 ? values[middle]! : (values[middle - 1]! + values[middle]!) / 2;
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
