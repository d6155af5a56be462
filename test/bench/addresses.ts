/**
 * Ten thousand addresses on one router: how long they take over its API, each on disk before it is answered, and what they weigh. One
 * caller after the other first, as `weave attach` does, then fifty callers at once, whose addresses share writes.
 */

import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid } from "../netns/mesh.ts";

const COUNT = 10_000;
const CALLERS = 50;
const API = "http://127.0.0.1:6784";

/** Prints a table in Markdown. */
export async function benchAddresses(): Promise<void> {
  const rows: string[] = [];
  for (const callers of [1, CALLERS]) {
    console.error(`${COUNT} addresses, ${callers} at once`);
    await using lab = new Lab();
    const host = await lab.host("a");
    await host.weave("launch", "--ipalloc-range", "10.32.0.0/12", "--ipalloc-init", "consensus=1");
    await request(host, "first", 1, 1);
    const pid = await routerPid(host);
    const before = await residentMegabytes(host, pid);
    const first = await request(host, "one", 1, 1000);
    const rest = await request(host, "many", callers, COUNT - 2000);
    const last = await request(host, "last", 1, 1000);
    const grown = await residentMegabytes(host, pid) - before;
    const file = Number(await host.sh("stat -c %s /var/lib/weave/weave-ipam.json")) / 1024;
    const cells = [callers, ...[first, rest, last].map((ms) => ms.toFixed(2)), grown.toFixed(0), file.toFixed(0)];
    rows.push(`| ${cells.join(" | ")} |`);
  }
  console.log([
    "| callers at once | first 1000, one at a time, ms each | 8000, ms each | last 1000, one at a time, ms each | RSS, MB more | file, KiB |",
    "| ---: | ---: | ---: | ---: | ---: | ---: |",
    ...rows,
  ].join("\n"));
}

/** Asks for so many addresses; milliseconds each. */
async function request(host: EmulatedHost, name: string, callers: number, count: number): Promise<number> {
  const url = `${API}/ip/${name}{}x[1-${count / callers}]`;
  const begun = performance.now();
  await host.sh(`seq ${callers} | xargs -P ${callers} -I{} curl -sf -o /dev/null -X POST '${url}'`, {
    timeoutMs: 600_000,
  });
  return (performance.now() - begun) / count;
}

async function residentMegabytes(host: EmulatedHost, pid: number): Promise<number> {
  return Number(/VmRSS:\s+(\d+)/.exec(await host.sh(`cat /proc/${pid}/status`))![1]) / 1024;
}
