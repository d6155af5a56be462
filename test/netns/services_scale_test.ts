/** A thousand services on one gateway, ten thousand in the mesh: time of one change, memory, and rules, printed. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { ServicesReport } from "../../src/daemon/status.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, routerPid, waitEstablished } from "./mesh.ts";
import { serveName, service, waitAnswer, waitKnown } from "./services.ts";
import { measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";
import { DENO_RUN } from "./executable.ts";

const OWN = 1_000;
/** Of each of two others, as `hostile_peer.ts` says it has. */
const OTHERS = 4_500;

testAsRoot("a thousand services on one gateway, and ten thousand in the mesh", async () => {
  await using lab = new Lab();
  const [gateway, site] = [await lab.host("gateway"), await lab.host("site")];
  await lab.switch([gateway, site], ["192.168.0.1", "192.168.0.2"]);
  const far = await lab.host("far");
  await lab.link(gateway, far);
  await gateway.weave("launch");
  await far.weave("launch", gateway.address(far));
  await waitEstablished(gateway, [far]);
  for (const port of [80, 81]) await serveName(site, port);
  const client = await attachNew(far, "c1");

  await service(gateway, "import", "first", "--to", "192.168.0.2:80");
  const rulesOfOne = await rules(gateway);
  const starting = await measure(() => gateway.weave("version"));
  const changeOfOne = await measure(() => service(gateway, "bind", "first", "192.168.0.2:81"));
  const made = await measure(() => apply(gateway, "own", OWN - 1));
  const applied = await measure(() => apply(gateway, "own", OWN - 1));
  const [ownAddress = ""] = (await service(gateway, "import", "own-17", "--to", "192.168.0.2:80")).split("\n");
  await waitAnswer(client, ownAddress, 80, "site", { witnesses: [gateway, far] });
  const changeOfThousand = await measure(() => service(gateway, "bind", "own-17", "192.168.0.2:80", "192.168.0.2:81"));
  await service(gateway, "bind", "own-17", "192.168.0.2:80");

  await using crowd = new AsyncDisposableStack();
  const name = (await gateway.weave("report", "-f", "{{.Router.Name}}")).trim();
  const orders: string[] = [];
  for (const number of [1, 2]) {
    const host = await lab.host(`crowd${number}`);
    await lab.link(host, gateway);
    const path = await Deno.makeTempFile({ prefix: "weave-crowd-" });
    await Deno.remove(path);
    orders.push(path);
    const us = `02:00:00:00:00:0${number}`;
    const launch = ["launch", "--foreground", "--name", us, "--no-restart", gateway.address(host)];
    crowd.use(
      host.spawn([...DENO_RUN, join(import.meta.dirname!, "hostile_peer.ts"), orders.at(-1)!, name, us, ...launch]),
    );
  }
  await waitFor("two more peers", async () => (await gateway.weave("status", "peers")).includes("crowd2"), 30_000);
  await waitFor("two more peers", async () => (await gateway.weave("status", "peers")).includes("crowd1"), 30_000);
  for (const path of orders) await Deno.writeTextFile(path, "crowd");
  const told = await measure(() =>
    waitFor("all records", async () => {
      for (const host of [gateway, far]) {
        const { Known, Rejections } = await services(host);
        if (Known < OWN + 2 * OTHERS) throw new Error(`${host.name} knows ${Known}: ${JSON.stringify(Rejections)}`);
      }
      return true;
    }, 45_000)
  );
  const changeOfAll = await measure(() => service(gateway, "bind", "own-17", "192.168.0.2:80", "192.168.0.2:81"));
  const seen = await measure(async () => {
    await service(gateway, "import", "last", "--to", "192.168.0.2:81");
    await waitAnswer(client, await waitKnown(far, "last"), 81, "site", { witnesses: [gateway, far] });
  });
  const rulesOfAll = await rules(gateway);
  const memory = Number(/VmRSS:\s+(\d+)/.exec(await gateway.sh(`cat /proc/${await routerPid(gateway)}/status`))![1]);
  console.log([
    `the program starts in ${starting} ms, which is part of each time`,
    `${OWN - 1} services made by one file: ${made} ms`,
    `${OWN} services applied again, of which none changes: ${applied} ms`,
    `2 × ${OTHERS} of others are known everywhere after ${told} ms`,
    `one change with one service: ${changeOfOne} ms; with ${OWN}: ${changeOfThousand} ms; with ${OWN} of ${
      OWN + 2 * OTHERS
    }: ${changeOfAll} ms`,
    `a new service is used from elsewhere after ${seen} ms`,
    `memory of the router: ${(memory / 1024).toFixed(0)} MB`,
    `rules: ${rulesOfAll.octets} octets, ${rulesOfAll.way} in the way of a packet (one service: ${rulesOfOne.octets}, ${rulesOfOne.way})`,
  ].join("\n"));
  assert.equal(rulesOfAll.way, rulesOfOne.way, "a packet passes no more rules");
  assert.ok(changeOfAll < 3_000, `one change takes ${changeOfAll} ms`);
  assert.ok(memory < 1024 * 1024, `${memory} KB`);
});

async function services(host: EmulatedHost): Promise<ServicesReport> {
  return JSON.parse(await host.weave("report")).Services;
}

/** Makes services `PREFIX-1` and on; besides them what is there stays. */
async function apply(host: EmulatedHost, prefix: string, count: number): Promise<void> {
  const first = prefix === "own" ? ["  - {name: first, import: {to: ['192.168.0.2:81']}}"] : [];
  const list = Array.from(
    { length: count },
    (_, i) =>
      `  - {name: ${prefix}-${i + 1}, import: {to: ["172.20.${1 + Math.floor(i / 250)}.${
        1 + i % 250
      }:80"], check: none}}`,
  );
  const input = ["services:", ...first, ...list].join("\n") + "\n";
  await host.exec([...host.weaveCommand(), "service", "apply", "-"], { input, timeoutMs: 60_000 });
}

/** Size of the table, and how many rules a packet from the mesh may pass in it before the one that is for it. */
async function rules(host: EmulatedHost): Promise<{ octets: number; way: number }> {
  const text = await host.sh("nft list table ip weave-services");
  const chain = /\tchain from_1 \{\n([^]*?)\n\t\}/.exec(text)![1]!;
  return { octets: text.length, way: chain.split("\n").length };
}
