/** Services beside the other parts of a router: addresses, names, restarts, status, and a host without `nft`. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { routerPid, waitEstablished } from "./mesh.ts";
import { serveName, service, show, waitAnswer, waitKnown, waitShown } from "./services.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

const RANGE = ["--ipalloc-range", "10.40.0.0/24"];

/** Two gateways of one LAN, joined by a cable, and a machine on the LAN. */
async function setting(lab: Lab) {
  const [a, b, plain] = [await lab.host("a"), await lab.host("b"), await lab.host("plain")];
  await lab.link(a, b);
  await lab.switch([a, b, plain], ["192.168.60.1", "192.168.60.2", "192.168.60.10"]);
  await a.weave("launch", ...RANGE);
  await b.weave("launch", ...RANGE, a.address(b));
  await waitEstablished(a, [b]);
  for (const port of [80, 81]) await serveName(plain, port);
  const [c1, c2] = [await a.container("c1"), await b.container("c2")];
  for (const [host, container] of [[a, c1], [b, c2]] as const) await host.weave("attach", container.reference);
  return { a, b, plain, c1, c2 };
}

testAsRoot("a virtual address is held by whoever owns its range, as long as anybody imports the service", async () => {
  await using lab = new Lab();
  const { a, b, c1, c2 } = await setting(lab);
  const address = await service(a, "import", "web", "--to", "192.168.60.10:80");
  assert.deepEqual(await held(a, "service:web"), [`${address}/24`]);
  assert.equal(await service(b, "import", "web", "--to", "192.168.60.10:80"), address, "one address for both");
  assert.deepEqual(await held(b, "service:web"), [], "it is of the other's range");
  await waitShown(a, "web", "both's", ({ imports }) => imports.length === 2);
  for (const container of [c1, c2]) await waitAnswer(container, address, 80, "plain", { witnesses: [a, b] });

  // The first importer goes: the address stays what it is, and where it is held.
  await service(a, "rm", "web");
  await waitShown(
    b,
    "web",
    "b's alone",
    ({ imports, addresses }) => imports.length === 1 && addresses[0]!.holder === imports[0]!.owner,
  );
  for (const container of [c1, c2]) await waitAnswer(container, address, 80, "plain", { witnesses: [a, b] });
  assert.deepEqual(await held(a, "service:web"), [`${address}/24`]);

  // Its host goes for good: the range is another's, and the address is held there before it is given to anybody.
  await a.weave("stop");
  await waitFor("a to be gone", async () => !(await b.weave("status", "peers")).includes("(a)"), 10_000, [b]);
  await b.weave("rmpeer", "a");
  assert.deepEqual(await held(b, "service:web"), [`${address}/24`]);
  await waitAnswer(c2, address, 80, "plain", { witnesses: [b] });

  // The last one goes.
  await service(b, "rm", "web");
  assert.deepEqual(await held(b, "service:web"), []);
  assert.equal(await b.weave("dns-lookup", "web"), "");
});

testAsRoot("a router that is started again takes nothing from another, and finds what it had", async () => {
  await using lab = new Lab();
  const { a, b, c1, c2 } = await setting(lab);
  const address = await service(a, "import", "web", "--to", "192.168.60.10:80");
  await service(b, "import", "web", "--to", "192.168.60.10:81");
  const before = await waitShown(
    a,
    "web",
    "both's",
    ({ imports, addresses }) =>
      imports.length === 2 && imports.every(({ backends }) => backends[0]!.health === "up") &&
      addresses[0]!.holder !== null,
  );
  const { holder } = before.addresses[0]!;
  const [keeper, other] = before.imports.find(({ owner }) => owner === holder)!.nickname === "a" ? [a, b] : [b, a];
  const owner = before.imports.find((one) => one.owner !== holder)!.owner;
  // Watched by ARP: who answers for the address, from the keeper's container.
  const observer = keeper === a ? c1 : c2;
  await waitAnswer(observer, address, 80, "plain");
  for (const how of ["stop", "kill"]) {
    if (how === "stop") {
      await other.weave("stop");
      await other.weave("launch", ...RANGE, ...other === b ? [a.address(b)] : []);
    } else {
      await other.sh(`kill -9 ${await routerPid(other)}`);
    }
    await waitEstablished(keeper, [other], 20_000);
    await waitShown(
      keeper,
      "web",
      "both's again",
      ({ imports }) => imports.every(({ reachable }) => reachable),
      10_000,
    );
    for (let i = 0; i < 10; i++) {
      const { addresses, imports } = await show(other, "web");
      assert.equal(addresses[0]!.address, address);
      const ours = imports.find((one) => one.owner === owner);
      assert.equal(ours?.backends.length, 1);
      await delay(200);
    }
    await waitAnswer(observer, address, 80, "plain", { witnesses: [a, b] });
    assert.equal((await show(keeper, "web")).addresses[0]!.holder, holder);
  }
});

testAsRoot("a backend is what its name says: a container's in the mesh, any other's for the host", async () => {
  await using lab = new Lab();
  const { a, b, plain, c1, c2 } = await setting(lab);
  const served = await a.container("served");
  await a.weave("attach", "--hostname", "served.weave.local", served.reference);
  await serveName(served, 80);
  const inMesh = await service(b, "import", "inside", "--to", "served.weave.local:80");
  for (const container of [c1, c2]) await waitAnswer(container, inMesh, 80, "served", { witnesses: [a, b] });
  await waitShown(b, "inside", "up", ({ imports }) => imports[0]!.backends[0]!.health === "up");

  await a.sh("echo 192.168.60.10 machine.example >> /etc/hosts");
  const named = await service(a, "import", "outside", "--to", "machine.example:80");
  await waitAnswer(c2, named, 80, "plain", { witnesses: [a, b] });
  const unknown = await service(a, "import", "nowhere", "--to", "nobody.example:80");
  await waitShown(a, "nowhere", "down", ({ imports }) => imports[0]!.backends[0]!.health === "down");
  assert.match(await service(a, "show", "nowhere"), /nobody\.example:80 .*its name is not known/);
  // What it turns out to be must not be the gateway's own.
  await a.sh("echo 127.0.0.1 nobody.example >> /etc/hosts");
  await delay(7_000);
  assert.notEqual((await show(a, "nowhere")).imports[0]!.backends[0]!.health, "up");
  assert.equal((await c1.attempt(["nc", "-zw", "1", unknown, "80"])).code, 1);
  assert.ok(plain);
});

testAsRoot("status, report and metrics tell of services", async () => {
  await using lab = new Lab();
  const { a, b } = await setting(lab);
  assert.doesNotMatch(await a.weave("status"), /Service: services/);
  const address = await service(a, "import", "web", "--to", "192.168.60.10:80", "--to", "192.168.60.11:80");
  await waitKnown(b, "web");
  await service(b, "export", "web", "--listen", "8080");
  await waitShown(
    a,
    "web",
    "watched",
    ({ imports }) => imports[0]!.backends.map(({ health }) => health).join() === "up,down",
  );
  assert.match(
    await a.weave("status"),
    /Service: services\n +Status: ready\n +Networks: host\n +Imports: 1 \(backends: 1 up, 1 not\)\n +Exports: 0\n +Holding: 1 address\n/,
  );
  const { Services: report } = JSON.parse(await a.weave("report"));
  assert.deepEqual(report.Holding, [address]);
  assert.deepEqual(report.Backends, { Up: 1, Down: 1, Unknown: 0 });
  assert.deepEqual(report.Rejections, []);
  const metrics = await b.sh("curl -s http://127.0.0.1:6782/metrics");
  assert.match(metrics, /^weave_services_exported 1$/m);
  assert.match(metrics, /^weave_services_known 2$/m);
  const { Services: json } = JSON.parse(await b.weave("status", "--json"));
  assert.equal(json.Exports, 1);
});

testAsRoot("a host without nft says so at once, and does everything else", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.sh('mount --bind /dev/null "$(readlink -f "$(command -v nft)")"');
  const launched = await host.attemptWeave("launch");
  assert.equal(launched.code, 0);
  assert.match(
    launched.stderr,
    /^WARNING: services cannot be offered: "nft" is not installed: install package nftables$/m,
  );
  const refused = await host.attemptWeave("service", "import", "web", "--to", "192.168.60.10:80");
  assert.deepEqual([refused.code, refused.stdout], [1, ""]);
  assert.equal(refused.stderr, 'Cannot offer services: "nft" is not installed: install package nftables\n');
  assert.equal(await service(host, "ls"), "");
  assert.match(await host.weave("expose"), /^10\./);
  await host.weave("reset");
});

/** What an id holds on a host, by its API. */
async function held(host: EmulatedHost, id: string): Promise<string[]> {
  const { owned } = JSON.parse(await host.sh("curl -s http://127.0.0.1:6784/ip")) as {
    readonly owned: readonly { readonly containerid: string; readonly addrs: string[] }[] | null;
  };
  return owned?.find(({ containerid }) => containerid === id)?.addrs ?? [];
}
