/** Backends and gateways that die, hang or are cut off; how soon clients are with others, and that nothing flaps. */

import assert from "node:assert/strict";
import type { Container, EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import type { Link } from "./link.ts";
import { attachNew, report, waitEstablished } from "./mesh.ts";
import {
  ask,
  Clients,
  type Machine,
  serveMany,
  serveName,
  service,
  show,
  tally,
  waitAnswer,
  waitKnown,
  waitShown,
} from "./services.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** From a failure to a time from which all new connections succeed. */
const FAILOVER_MS = 3_000;
/** How long a failure is watched: longer, so that a late recovery is told as a number. */
const WATCH_MS = 20_000;
const OFFERED = "192.168.70.9";
const PORT = 80;

/**
 *     x, y ── g1, g2 ══ hub ══ e1, e2 ── machine
 *                        └ container
 */
interface Setting {
  readonly hub: EmulatedHost;
  readonly importers: readonly EmulatedHost[];
  readonly exporters: readonly EmulatedHost[];
  /** Of each importer and exporter to the hub. */
  readonly links: ReadonlyMap<EmulatedHost, Link>;
  readonly x: EmulatedHost;
  readonly y: EmulatedHost;
  readonly machine: EmulatedHost;
  readonly container: Container;
}

async function setting(lab: Lab): Promise<Setting> {
  const hub = await lab.host("hub");
  const hosts = new Map<string, EmulatedHost>();
  for (const name of ["g1", "g2", "e1", "e2", "x", "y", "machine"]) hosts.set(name, await lab.host(name));
  const named = (...names: string[]) => names.map((name) => hosts.get(name)!);
  const links = new Map<EmulatedHost, Link>();
  for (const host of named("g1", "g2", "e1", "e2")) links.set(host, await lab.link(hub, host));
  const lan = (subnet: number, members: readonly EmulatedHost[]) =>
    lab.switch(members, members.map((_, i) => `192.168.${subnet}.${i + 1}`));
  await lan(60, named("g1", "g2", "x", "y"));
  await lan(70, named("e1", "e2", "machine"));
  await hub.weave("launch");
  for (const host of links.keys()) {
    const network = host.name.startsWith("e") ? ["--network", "plant=eth1"] : [];
    await host.weave("launch", ...network, hub.address(host));
  }
  await waitEstablished(hub, [...links.keys()]);
  const container = await attachNew(hub, "container");
  const [x, y, machine] = named("x", "y", "machine");
  return {
    hub,
    importers: named("g1", "g2"),
    exporters: named("e1", "e2"),
    links,
    x: x!,
    y: y!,
    machine: machine!,
    container,
  };
}

/** Imports at both gateways, each its own backend, exports at both with an address that neither has, and waits for all of it. */
async function offer({ hub, importers, exporters, x, y, machine, container }: Setting, ...options: string[]) {
  for (const [i, importer] of importers.entries()) {
    await service(importer, "import", "db", "--to", `${[x, y][i]!.address()}:${PORT}`, ...options);
  }
  const address = await waitKnown(hub, "db");
  for (const exporter of exporters) {
    await waitKnown(exporter, "db");
    const listen = ["--network", "plant", "--listen", `${OFFERED}:8080`];
    assert.equal(await service(exporter, "export", "db", ...listen), `${OFFERED}:8080`);
  }
  await waitShown(
    hub,
    "db",
    "up everywhere",
    ({ imports, exports }) =>
      imports.length === 2 && imports.every(({ backends }) => backends.every(({ health }) => health === "up")) &&
      exports.filter(({ answers }) => answers).length === 1,
  );
  const targets: readonly (readonly [Machine, { address: string; port: number }])[] = [
    [container, { address, port: PORT }],
    [machine, { address: OFFERED, port: 8080 }],
  ];
  return { address, targets };
}

/** Lets clients come from everywhere, does something, and asserts how long until all is well again. */
async function failover(
  what: string,
  { hub, importers, exporters }: Setting,
  targets: readonly (readonly [Machine, { address: string; port: number }])[],
  action: () => Promise<unknown>,
  holdMs: 0 | "http" = 0,
): Promise<void> {
  await using running = new AsyncDisposableStack();
  const clients = targets.map(([from, to]) => running.use(new Clients(from, to, { rate: 20, seconds: 60, holdMs })));
  await delay(2_000);
  for (const one of clients) {
    const bad = one.attempts.filter(({ ok }) => !ok);
    assert.deepEqual(bad, [], `before ${what}`);
    assert.ok(one.attempts.length > 20, `${one.attempts.length} connections before ${what}`);
  }
  const since = Date.now();
  await action();
  const witnesses = [hub, ...importers, ...exporters];
  const times = await Promise.all(clients.map((one) => one.waitRecovered(since, WATCH_MS, witnesses)));
  const reached = clients.map((one) => tally(one.attempts.filter(({ started }) => started > since + FAILOVER_MS)));
  console.log(`${what}: ${targets.map(([{ name }], i) => `${name} ${times[i]} ms`).join(", ")}`, ...reached);
  for (const time of times) assert.ok(time <= FAILOVER_MS, `${what}: ${time} ms`);
}

/** Lets a gateway that was cut off come back, and asserts for how long that disturbs anybody. */
async function heal(
  what: string,
  { hub, links }: Setting,
  targets: readonly (readonly [Machine, { address: string; port: number }])[],
  gateway: EmulatedHost,
): Promise<void> {
  await using running = new AsyncDisposableStack();
  const clients = targets.map(([from, to]) => running.use(new Clients(from, to, { rate: 20, seconds: 60, holdMs: 0 })));
  await delay(1_000);
  await links.get(gateway)!.heal();
  const back = async () => {
    const states = (await report(hub)).Router.Connections ?? [];
    return states.filter(({ State }) => State === "established").length === links.size;
  };
  await waitFor("its connection", back, 30_000, [hub, gateway]);
  await delay(5_000);
  const times = clients.map((one) => {
    const bad = one.attempts.filter(({ ok }) => !ok).map(({ started, ended }) => [started, ended]).flat();
    return bad.length === 0 ? 0 : Math.max(...bad) - Math.min(...bad);
  });
  console.log(`${what}: ${targets.map(([{ name }], i) => `${name} disturbed for ${times[i]} ms`).join(", ")}`);
  for (const time of times) assert.ok(time <= FAILOVER_MS, `${what}: ${time} ms`);
  assert.ok(clients.every((one) => one.attempts.at(-1)!.ok));
}

testAsRoot("a backend that dies is left within three seconds, and comes back", async (t) => {
  await using lab = new Lab();
  const all = await setting(lab);
  const { hub, x, y } = all;
  let server = await serveMany(x, PORT);
  await serveMany(y, PORT);
  const { targets, address } = await offer(all);
  await t.step("the program", () =>
    failover("backend's program dies", all, targets, async () => {
      server.signal("SIGKILL");
      await server.finished();
    }));
  await t.step("and comes back", async () => {
    server = await serveMany(x, PORT);
    await waitShown(hub, "db", "up", ({ imports }) => imports.every((one) => one.backends[0]!.health === "up"));
    await waitAnswer(targets[0]![0], address, PORT, "x");
  });
  await t.step("the machine", () => failover("backend's machine dies", all, targets, () => x.ports[0]!.unplug()));
});

testAsRoot(
  "a backend that accepts and never answers is left within three seconds, where it is asked by HTTP",
  async () => {
    await using lab = new Lab();
    const all = await setting(lab);
    const server = await serveMany(all.x, PORT, "http");
    await serveMany(all.y, PORT, "http");
    const { targets } = await offer(all, "--check", "http:/");
    const hang = () => {
      server.signal("SIGSTOP");
      return Promise.resolve();
    };
    await failover("backend hangs", all, targets, hang, "http");
    server.signal("SIGCONT");
    await waitShown(all.hub, "db", "up", ({ imports }) => imports.every((one) => one.backends[0]!.health === "up"));
  },
);

testAsRoot("gateways that die are replaced within three seconds", async (t) => {
  await using lab = new Lab();
  const all = await setting(lab);
  for (const backend of [all.x, all.y]) await serveMany(backend, PORT);
  const { targets } = await offer(all);
  await t.step("the importing one", async () => {
    const holder = await holderOf(all);
    await failover("importing gateway dies", all, targets, () => die(holder));
  });
  await t.step("the exporting one", async () => {
    const answering = await answeringOf(all);
    await failover("exporting gateway dies", all, targets, () => die(answering));
  });
});

testAsRoot("gateways that are cut off are replaced within three seconds, and heal", async (t) => {
  await using lab = new Lab();
  const all = await setting(lab);
  for (const backend of [all.x, all.y]) await serveMany(backend, PORT);
  const { targets } = await offer(all);
  for (const [what, find] of [["importing", holderOf], ["exporting", answeringOf]] as const) {
    await t.step(`the ${what} one`, async () => {
      const gateway = await find(all);
      await failover(`${what} gateway cut off`, all, targets, () => all.links.get(gateway)!.cut());
      await heal(`${what} gateway back`, all, targets, gateway);
    });
  }
  // Nobody answers for an address beside the one that does.
  assert.equal((await show(all.hub, "db")).exports.filter(({ answers }) => answers).length, 1);
  assert.equal(await arpAnswers(all.container, targets[0]![1].address), 1);
  assert.equal(await arpAnswers(all.machine, OFFERED), 1);
});

testAsRoot("a backend that fails every other check does not flap", async () => {
  await using lab = new Lab();
  const all = await setting(lab);
  await serveMany(all.x, PORT, "flaky");
  await serveMany(all.y, PORT, "http");
  const [g1, g2] = all.importers;
  await service(g1!, "import", "db", "--to", `${all.x.address()}:${PORT}`, "--check", "http:/,interval=0.5");
  await service(g2!, "import", "db", "--to", `${all.y.address()}:${PORT}`, "--check", "http:/");
  await waitKnown(all.hub, "db");
  await delay(3_000);
  let changes = 0, last = "";
  const until = performance.now() + 12_000;
  while (performance.now() < until) {
    const shown = await show(g1!, "db");
    const state = shown.imports.flatMap(({ backends }) => backends.map(({ health }) => health)).sort().join();
    if (last !== "" && state !== last) changes++;
    last = state;
    await delay(150);
  }
  console.log(`a backend that fails every other check: ${changes} changes in 12 s, ${last}`);
  assert.ok(changes <= 1, `${changes} changes`);
});

testAsRoot("a service without a healthy backend leaves DNS, is refused at once, and comes back", async () => {
  await using lab = new Lab();
  const all = await setting(lab);
  const servers = [await serveMany(all.x, PORT), await serveMany(all.y, PORT)];
  const { address } = await offer(all);
  assert.equal(await all.hub.weave("dns-lookup", "db"), address);
  for (const server of servers) {
    server.signal("SIGKILL");
    await server.finished();
  }
  const gone = async () => (await all.hub.weave("dns-lookup", "db")) === "";
  await waitFor("the name to go", gone, FAILOVER_MS, [all.hub, ...all.importers]);
  assert.equal(await ask(all.container, address, PORT), "");
  await serveMany(all.y, PORT);
  await waitFor("the name to be back", async () => (await all.hub.weave("dns-lookup", "db")) === address, 5_000);
  await waitAnswer(all.container, address, PORT, "y", { deadlineMs: 5_000 });
});

testAsRoot("several gateways' backends are used by priority and weight", async () => {
  await using lab = new Lab();
  const all = await setting(lab);
  const server = await serveMany(all.x, PORT);
  await serveMany(all.y, PORT);
  const [g1, g2] = all.importers;
  const weigh = async (weight: string, priority: string) => {
    const to = `${all.y.address()}:${PORT}`;
    await service(g2!, "import", "db", "--to", to, "--weight", weight, "--priority", priority);
  };
  await service(g1!, "import", "db", "--to", `${all.x.address()}:${PORT}`, "--weight", "3");
  await weigh("1", "0");
  const address = await waitKnown(all.hub, "db");
  const both = (await show(all.hub, "db")).addresses.map((one) => one.address);
  assert.deepEqual(both, [address], "one address, whoever imports it");
  await waitAnswer(all.container, address, PORT, "y");
  const count = async () => {
    await using clients = new Clients(all.container, { address, port: PORT }, { rate: 200, seconds: 3, holdMs: 0 });
    const attempts = await clients.finished(20_000);
    assert.deepEqual(attempts.filter(({ ok }) => !ok), []);
    return tally(attempts);
  };
  const counts = await count();
  console.log("weights 3 and 1:", counts);
  const share = counts.x! / (counts.x! + counts.y!);
  assert.ok(share > 0.67 && share < 0.83, `${share}`);
  await weigh("1", "10");
  await delay(1_000);
  assert.deepEqual(Object.keys(await count()), ["x"]);
  server.signal("SIGKILL");
  await waitAnswer(all.container, address, PORT, "y", { deadlineMs: FAILOVER_MS });
  await delay(FAILOVER_MS);
  assert.deepEqual(Object.keys(await count()), ["y"]);
  await serveMany(all.x, PORT);
  await waitAnswer(all.container, address, PORT, "x", { deadlineMs: 5_000 });
  // The first importer goes: the name keeps its address.
  await service(g1!, "rm", "db");
  await waitAnswer(all.container, address, PORT, "y", { deadlineMs: FAILOVER_MS });
  assert.equal(await all.hub.weave("dns-lookup", "db"), address);
});

testAsRoot("a UDP service is watched by a payload", async () => {
  await using lab = new Lab();
  const all = await setting(lab);
  await serveName(all.y, PORT, "udp");
  const server = await serveMany(all.x, PORT, "udp");
  for (const [i, importer] of all.importers.entries()) {
    const to = `${[all.x, all.y][i]!.address()}:${PORT}/udp`;
    await service(importer, "import", "db", "--to", to, "--check", "udp:hello");
  }
  const address = await waitKnown(all.hub, "db");
  await waitShown(
    all.hub,
    "db",
    "up",
    ({ imports }) => imports.length === 2 && imports.every((one) => one.backends[0]!.health === "up"),
  );
  await waitAnswer(all.container, address, PORT, "x", { transport: "udp" });
  await waitAnswer(all.container, address, PORT, "y", { transport: "udp" });
  server.signal("SIGSTOP");
  await delay(FAILOVER_MS);
  for (let i = 0; i < 5; i++) assert.equal(await ask(all.container, address, PORT, "udp"), "y");
  server.signal("SIGCONT");
});

/** All processes of a host, and its links: the machine is without power. */
async function die(host: EmulatedHost): Promise<void> {
  for (const port of host.ports) await port.unplug();
  await host.attempt(["kill", "-9", "-1"]);
}

/** The gateway that answers for the virtual address. */
async function holderOf({ hub, importers }: Setting): Promise<EmulatedHost> {
  const { addresses } = await show(hub, "db");
  return await hostOf(importers, addresses[0]!.holder ?? "");
}

/** The gateway that answers for the exported address. */
async function answeringOf({ hub, exporters }: Setting): Promise<EmulatedHost> {
  const { exports } = await show(hub, "db");
  return await hostOf(exporters, exports.find(({ answers }) => answers)?.owner ?? "");
}

async function hostOf(hosts: readonly EmulatedHost[], peer: string): Promise<EmulatedHost> {
  for (const host of hosts) {
    if (peer.includes((await report(host)).Router.Name)) return host;
  }
  throw new Error(`None of ${hosts.map(({ name }) => name).join(", ")} is ${peer || "there"}`);
}

/** How many machines say that they have an address. */
async function arpAnswers(from: Machine, address: string): Promise<number> {
  const script = `
    tcpdump -l -n -i any 'arp[6:2] = 2' >/tmp/arp-${from.name}-$$ 2>/dev/null & watch=$!
    sleep 0.5
    ip neigh flush all
    nc -z -w 1 ${address} 9 || true
    sleep 1
    kill $watch; wait $watch || true
    grep -c 'Reply ${address.replaceAll(".", "\\.")} is-at' /tmp/arp-${from.name}-$$ || true
    rm -f /tmp/arp-${from.name}-$$`;
  return Number(await from.sh(script));
}
