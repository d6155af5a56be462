/**
 * `deno task bench [ROUNDS]`: what each carrier brings from container to container over two emulated hosts with an underlay of MTU
 * 1500, all in one run, round by round, because machines differ and have their moods. Prints a table in Markdown: medians, with
 * throughput as a ratio to kernel VXLAN.
 */

import { ensureTools, NETWORK_TOOLS } from "../packages.ts";
import { Lab } from "../netns/lab.ts";
import { CARRIERS } from "./carriers.ts";
import { type Measured, measurePath } from "./measure.ts";

const REFERENCE = "kernel VXLAN";

async function main(rounds: number): Promise<void> {
  if (Deno.uid() !== 0) throw new Error("The benchmark needs root, to make emulated hosts: run it with sudo");
  await ensureTools(NETWORK_TOOLS);
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
    await main(Number(Deno.args[0] ?? 2));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
