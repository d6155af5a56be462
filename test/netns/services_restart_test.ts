/** Transfers through services go on while a gateway's router is restarted, killed or replaced by another version. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, report, routerPid, waitEstablished } from "./mesh.ts";
import { compileVersion } from "./other_version.ts";
import { type Machine, rulesOf, service, waitKnown } from "./services.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

const MEGABYTES = 24;
/** Of curl, so that the transfer takes a few seconds and is in its middle when something happens. */
const RATE = "6M";
/** A transfer, a router that starts meanwhile, and what TCP waits until it tries again. */
const TRANSFER_MS = 60_000;

testAsRoot("restart, upgrade and kill -9 of either gateway's router in the middle of a transfer", async (t) => {
  const folder = await Deno.makeTempDir({ prefix: "weave-next-" });
  try {
    const next = await compileVersion(folder, "99.0.0");
    await using lab = new Lab();
    const [importer, exporter] = [await lab.host("importer"), await lab.host("exporter")];
    const [backend, client] = [await lab.host("backend"), await lab.host("client")];
    await lab.link(importer, exporter);
    await lab.switch([importer, backend], ["192.168.50.1", "192.168.50.10"]);
    await lab.switch([exporter, client], ["192.168.50.1", "192.168.50.10"]);
    await importer.weave("launch");
    await exporter.weave("launch", importer.address(exporter));
    await waitEstablished(importer, [exporter]);
    const container = await attachNew(exporter, "c1");
    const sum = await serveFile(backend);
    const address = await service(importer, "import", "files", "--to", `${backend.address()}:80`);
    await waitKnown(exporter, "files");
    await service(exporter, "export", "files", "--listen", "8000");
    await waitFor(
      "the service",
      async () => (await client.attempt(["nc", "-z", "-w", "1", "192.168.50.1", "8000"])).code === 0,
      10_000,
      [importer, exporter],
    );

    const targetsOf = (host: EmulatedHost) => host === exporter ? [importer.address(exporter)] : [];
    const events: [string, (host: EmulatedHost) => Promise<unknown>][] = [
      ["kill -9", async (host) => await host.sh(`kill -9 ${await routerPid(host)}`)],
      ["restart", async (host) => {
        await host.weave("stop");
        await host.weave("launch", ...targetsOf(host));
      }],
      ["upgrade", async (host) => {
        await host.exec([next, "launch", ...targetsOf(host)]);
        assert.equal((await report(host)).Version, "99.0.0");
      }],
    ];
    for (const host of [importer, exporter]) {
      for (const [what, event] of events) {
        await t.step(`${what} of the ${host.name}`, async () => {
          const rules = (await rulesOf(host)).services;
          const transfers = [[client, "192.168.50.1:8000"], [container, `${address}:80`]] as const;
          const running = transfers.map(([from, at]) => download(from, at));
          await waitFor(
            "the middle of the transfers",
            async () => (await sizeOf(client)) > 2e6 && (await sizeOf(container)) > 2e6,
            10_000,
          );
          const before = await Promise.all(transfers.map(([from]) => sizeOf(from)));
          assert.ok(
            before.every((size) => size < MEGABYTES * 2 ** 20 / 2),
            `${before} octets before anything happened`,
          );
          const begun = performance.now();
          await event(host);
          const sums = await Promise.all(running);
          console.log(`${what} of the ${host.name}: whole after ${Math.round(performance.now() - begun)} ms`);
          assert.deepEqual(sums, [sum, sum]);
          await waitEstablished(importer, [exporter], 20_000);
          assert.equal((await rulesOf(host)).services, rules, "the rules are those that were there");
        });
      }
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

/** A file on a web server that needs nothing but socat. @returns its SHA-256 */
async function serveFile(host: EmulatedHost): Promise<string> {
  await host.sh(`head -c ${MEGABYTES}M /dev/urandom > /run/file`);
  const script = 'while read line; do [ "$line" = "$(printf "\\r")" ] && break; done; ' +
    `printf "HTTP/1.0 200 OK\\r\\nContent-Length: ${MEGABYTES * 2 ** 20}\\r\\n\\r\\n"; cat /run/file`;
  await host.exec(["sh", "-ec", "cat > /run/serve"], { input: script });
  host.spawn(["socat", "TCP4-LISTEN:80,fork,reuseaddr", "EXEC:sh /run/serve"]);
  await waitFor("a web server", () => host.sh("ss -Hltn sport = :80"), 5_000);
  return (await host.sh("sha256sum /run/file")).split(" ")[0]!;
}

/** Downloads to a file of its own, slowly. @returns its SHA-256 */
async function download(from: Machine, at: string): Promise<string> {
  await from.exec(
    ["curl", "-sS", "--limit-rate", RATE, "-o", fileOf(from), `http://${at}/`],
    { timeoutMs: TRANSFER_MS },
  );
  return await from.sh(`sha256sum ${fileOf(from)} | cut -d' ' -f1; rm ${fileOf(from)}`);
}

async function sizeOf(from: Machine): Promise<number> {
  return Number(await from.sh(`stat -c %s ${fileOf(from)} 2>/dev/null || echo 0`));
}

function fileOf(from: Machine): string {
  return join("/run", `download-${from.name}`);
}
