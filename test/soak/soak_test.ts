import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { attachNew, line, routerPid, waitEstablished, waitPing } from "../netns/mesh.ts";
import { delay } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";

/** How long; `deno task test:long` says more. */
const SECONDS = Number(Deno.env.get("WEAVE_SOAK_SECONDS") ?? 30);

/** When the router has met everything once, and its memory is taken as the measure. */
const WARM_SECONDS = 20;

const GROWTH_MB = 10;

for (const password of [undefined, "secret"]) {
  const how = password ? "encrypted" : "in clear";
  testAsRoot(`routers survive ${SECONDS} s at full speed ${how} with changes going on, and do not grow`, async () => {
    await using lab = new Lab(password ? { env: { WEAVE_PASSWORD: password } } : {});
    const { hosts, links: [link] } = await line(lab, 3);
    const [a, b, c] = hosts as [EmulatedHost, EmulatedHost, EmulatedHost];
    await a.weave("launch");
    await b.weave("launch", a.address());
    await waitEstablished(a, [b]);
    const c1 = await attachNew(a, "c1", "10.0.0.1/24");
    const c2 = await attachNew(b, "c2", "10.0.0.2/24");
    const guest = await a.container("guest");
    await waitPing(c1, "10.0.0.2");
    const routers = [await routerPid(a), await routerPid(b)];

    await using _server = c2.spawn(["iperf3", "-s"]);
    await delay(500);
    await using client = c1.spawn(["iperf3", "-c", "10.0.0.2", "--bidir", "-t", String(SECONDS), "-f", "m"]);
    let warm: number[] | undefined;
    const started = performance.now();
    for (let round = 0; !client.ended; round++) {
      await a.weave("attach", "10.0.0.9/24", guest.reference);
      await a.weave("detach", "10.0.0.9/24", guest.reference);
      if (round % 2 === 0) await c.weave("launch", b.address(c));
      else await c.weave("stop");
      if (round % 10 === 5) {
        await link!.cut();
        await delay(3_000); // long enough for both ends to give the connection up
        await link!.heal();
      }
      if (!warm && performance.now() - started > WARM_SECONDS * 1000) warm = await residentMegabytes([a, b], routers);
    }
    const result = await client.finished(10_000);
    const reports = (await Promise.all([a, b].map((host) => host.report()))).join("\n");
    assert.equal(result.code, 0, result.stdout + result.stderr + reports);
    console.log(result.stdout.split("\n").filter((line) => line.includes("receiver")).join("\n"));
    assert.deepEqual([await routerPid(a), await routerPid(b)], routers, `a router has died\n${reports}`);
    const end = await residentMegabytes([a, b], routers);
    console.log(`resident after ${WARM_SECONDS} s: ${warm} MB, at the end: ${end} MB`);
    for (const [i, megabytes] of end.entries()) assert.ok(megabytes - warm![i]! <= GROWTH_MB);
  });
}

async function residentMegabytes(hosts: readonly EmulatedHost[], pids: readonly number[]): Promise<number[]> {
  return await Promise.all(hosts.map(async (host, i) => {
    const status = await host.sh(`cat /proc/${pids[i]}/status`);
    return Math.round(Number(/VmRSS:\s+(\d+)/.exec(status)![1]) / 1024);
  }));
}
