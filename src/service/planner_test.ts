import assert from "node:assert/strict";
import { type Cidr, formatIpv4, type Ipv4, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import { parsePortRange, type PortRange } from "../lib/ports.ts";
import { HOST_NETWORK, type ListenerPlan, type NetworkPlan, WEAVE_NETWORK } from "./plan.ts";
import { cut, type PlannerView, planServices } from "./planner.ts";
import type { Backend, BackendHealth, ExportRecord, ImportRecord, Known } from "./records.ts";
import { DEFAULT_CHECK } from "./spec.ts";

const US = 1 as PeerName;
const THEM = 2 as PeerName;
const SUBNET = cidr("10.32.0.0/12");
const GATEWAY = ip("10.32.0.1");
const VIRTUAL = ip("10.32.0.2");
const RELAY = ip("10.40.0.9");
const PLANT: NetworkPlan = { id: 3, name: "plant", interfaces: ["eth1"], isolated: false };

Deno.test("planServices() does nothing where there are no services", () => {
  const { plan, names, warnings } = planServices(view({}));
  assert.deepEqual(plan.listeners, []);
  assert.deepEqual(plan.answered, []);
  assert.deepEqual(plan.backends, []);
  assert.deepEqual(names, []);
  assert.equal(warnings.size, 0);
});

Deno.test("planServices() answers for a virtual address, and leads it to the healthy backends of the best priority", () => {
  const record = imported({
    backends: [backend("192.168.7.2"), backend("192.168.7.3", { weight: 3 }), backend("192.168.7.4", { priority: 1 })],
    health: ["up", "up", "up"],
  });
  const { plan, names, importHolding } = planServices(view({ own: [record] }));
  assert.deepEqual(plan.answered, [{ network: WEAVE_NETWORK, address: VIRTUAL }]);
  assert.deepEqual(show(plan.listeners), ["1 10.32.0.2 tcp 80-80: 1:80*1 2:80*3"]);
  assert.deepEqual(plan.backends.map(({ id, network, address }) => [id, network, formatIpv4(address)]), [
    [1, HOST_NETWORK, "192.168.7.2"],
    [2, HOST_NETWORK, "192.168.7.3"],
  ]);
  assert.deepEqual(names, [
    { hostname: "web.weave.local", data: VIRTUAL },
    { hostname: "web.weave.local", data: "SRV 0 1 80 web.weave.local" },
  ]);
  assert.deepEqual([...importHolding.values()], [[{ address: VIRTUAL, flows: false }]]);
});

Deno.test("planServices() goes to the next priority, and refuses where nothing is healthy", () => {
  const backends = [backend("192.168.7.2"), backend("192.168.7.3", { priority: 1 })];
  const next = planServices(view({ own: [imported({ backends, health: ["down", "up"] })] }));
  assert.deepEqual(show(next.plan.listeners), ["1 10.32.0.2 tcp 80-80: 1:80*1"]);
  assert.equal(formatIpv4(next.plan.backends[0]!.address), "192.168.7.3");
  const none = planServices(view({ own: [imported({ backends, health: ["down", "down"] })] }));
  assert.deepEqual(show(none.plan.listeners), ["1 10.32.0.2 tcp 80-80: "]);
  assert.equal(none.plan.answered.length, 1, "who asks is refused at once");
  assert.deepEqual(none.names, []);
});

Deno.test("planServices() reaches others' backends at their relay address, and has one for them", () => {
  const own = imported({ backends: [backend("192.168.7.2")], relay: ip("10.32.0.8"), priority: 0 });
  const others = [known(THEM, imported({ backends: [backend("192.168.9.2"), backend("192.168.9.3")], relay: RELAY }))];
  const { plan } = planServices(view({ own: [own], others, holder: true }));
  const at = plan.listeners.filter(({ address }) => address === VIRTUAL);
  const relay = plan.listeners.filter(({ address }) => address === ip("10.32.0.8"));
  assert.equal(relay.length, 1);
  assert.deepEqual(relay[0]!.targets.map(({ weight }) => weight), [1], "our own alone");
  assert.ok(plan.answered.some(({ address }) => address === ip("10.32.0.8")));
  if (at.length === 1) {
    const targets = at[0]!.targets.map(({ backend: id, weight }) => {
      const { network, address } = plan.backends.find((one) => one.id === id)!;
      return `${network} ${formatIpv4(address)} ${weight}`;
    });
    assert.deepEqual(targets.sort(), ["1 10.40.0.9 2", "2 192.168.7.2 1"]);
  } else assert.deepEqual(plan.reached, [VIRTUAL], "who does not answer for it reaches it all the same");
});

Deno.test("planServices() has nothing in a subnet where this host has no address yet, and says so", () => {
  const { plan, warnings } = planServices(
    view({ own: [imported({ backends: [backend("192.168.7.2")] })], gateways: [] }),
  );
  assert.deepEqual(plan.answered, []);
  assert.deepEqual(warnings.get("web"), ["This host has no address of its own in 10.32.0.0/12 yet"]);
});

Deno.test("planServices() keeps offsets of ranges, and cuts them where importers differ", () => {
  const range = backend("192.168.7.2", { serves: ports("10000-10009/udp"), firstPort: 20_000 });
  const own = imported({ backends: [range], ports: [ports("10000-10009/udp")] });
  const { plan } = planServices(view({ own: [own] }));
  assert.deepEqual(show(plan.listeners), ["1 10.32.0.2 udp 10000-10009: 1:20000*1"]);
  const exporting = exported({ name: "web", port: 10_004, listen: "5004-5005/udp" });
  const both = planServices(view({ own: [own, exporting] }));
  assert.deepEqual(show(both.plan.listeners), [
    "1 10.32.0.2 udp 10000-10009: 1:20000*1",
    "2 own udp 5004-5005: 1:20004*1",
  ]);
});

Deno.test("planServices() exports what others import through its virtual address", () => {
  const others = [known(THEM, imported({ backends: [backend("192.168.9.2")], holding: true }))];
  const { plan, exportStatus } = planServices(view({ own: [exported({ name: "web", listen: "8080" })], others }));
  assert.deepEqual(show(plan.listeners), ["2 own tcp 8080-8080: 1:80*1"]);
  assert.deepEqual(plan.backends.map(({ network, address }) => [network, address]), [[WEAVE_NETWORK, VIRTUAL]]);
  assert.deepEqual(plan.reached, [VIRTUAL]);
  assert.deepEqual([...exportStatus.values()], [{ ready: true, holding: undefined }]);
});

Deno.test("planServices() refuses on an export whose importers are out of reach", () => {
  const others = [{ ...known(THEM, imported({ backends: [backend("192.168.9.2")] })), reachable: false }];
  const { plan, exportStatus, warnings } = planServices(
    view({ own: [exported({ name: "web", listen: "192.168.70.9:8080", network: "plant" })], others }),
  );
  assert.deepEqual(show(plan.listeners), ["3 192.168.70.9 tcp 8080-8080: "]);
  assert.deepEqual(plan.answered, [], "another exporter may reach them");
  assert.deepEqual([...exportStatus.values()], [{ ready: false, holding: undefined }]);
  assert.deepEqual(warnings.get("web"), ["Nobody within reach imports it"]);
});

Deno.test("planServices() answers on a network for an address that nobody has, and not for the host's own", () => {
  const own = imported({ backends: [backend("192.168.7.2")] });
  const foreign = exported({ name: "web", listen: "192.168.70.9:8080", network: "plant" });
  const ours = exported({ name: "web", listen: "192.168.70.1:8081", network: "plant" });
  const { plan, exportStatus } = planServices(view({ own: [own, foreign, ours] }));
  assert.deepEqual(plan.answered.filter(({ network }) => network === PLANT.id), [{
    network: PLANT.id,
    address: ip("192.168.70.9"),
  }]);
  assert.deepEqual([...exportStatus.values()].map(({ holding }) => holding), [
    { address: ip("192.168.70.9"), flows: false },
    undefined,
  ]);
});

Deno.test("planServices() exports a container by its name, where this host has an address in its subnet", () => {
  const record = exported({ name: "c1.weave.local", port: 80, listen: "8080" });
  const found = planServices(view({ own: [record], names: { "c1.weave.local": [ip("10.32.0.77")] } }));
  assert.deepEqual(show(found.plan.listeners), ["2 own tcp 8080-8080: 1:80*1"]);
  const elsewhere = planServices(view({ own: [record], names: { "c1.weave.local": [ip("172.20.0.7")] } }));
  assert.deepEqual(show(elsewhere.plan.listeners), ["2 own tcp 8080-8080: "]);
  assert.match(elsewhere.warnings.get("c1.weave.local")![0]!, /no address in the subnet of 172\.20\.0\.7/);
  const unknown = planServices(view({ own: [record] }));
  assert.deepEqual(unknown.warnings.get("c1.weave.local"), ["Nothing has the name c1.weave.local"]);
});

Deno.test("planServices() takes another port of an address for another backend", () => {
  const v = view({ own: [imported({ backends: [backend("192.168.7.2")] })] });
  const before = planServices(v).plan.backends.map(({ id }) => id);
  const moved = imported({ backends: [{ ...backend("192.168.7.2"), firstPort: 81 }], state: "revoked" });
  const former = before.map((id) => ({ id, network: HOST_NETWORK, address: ip("192.168.7.2") }));
  const { plan, revoked } = planServices({ ...view({ own: [moved] }), idOf: v.idOf, backendsOf: () => former });
  assert.deepEqual(before, [1]);
  assert.deepEqual([...revoked], [2, 1]);
  assert.deepEqual(plan.backends.map(({ id }) => id), [2, 1]);
});

Deno.test("planServices() names revoked backends, and sends nothing there", () => {
  const { plan, revoked, names } = planServices(
    view({ own: [imported({ backends: [backend("192.168.7.2")], state: "revoked" })] }),
  );
  assert.deepEqual(show(plan.listeners), ["1 10.32.0.2 tcp 80-80: "]);
  assert.deepEqual(plan.backends.map(({ id, revoked }) => [id, revoked]), [[1, true]]);
  assert.deepEqual([...revoked], [1]);
  assert.deepEqual(names, []);
});

Deno.test("planServices() takes a port once", () => {
  const own = imported({ backends: [backend("192.168.7.2")] });
  const { plan, warnings } = planServices(
    view({ own: [own, exported({ name: "web", listen: "8080" }), { ...exported({ name: "web", listen: "8080" }) }] }),
  );
  assert.equal(plan.listeners.filter(({ network }) => network === HOST_NETWORK).length, 1);
  assert.deepEqual(warnings.get("web"), ["Port 8080 is taken there by web"]);
});

Deno.test("cut() leaves what lies apart apart, and nothing out", () => {
  const text = (ranges: readonly PortRange[]) => ranges.map(({ first, last }) => `${first}-${last}`).join(" ");
  assert.equal(text(cut([ports("80"), ports("443")])), "80-80 443-443");
  assert.equal(text(cut([ports("80-90"), ports("85")])), "80-84 85-85 86-90");
  assert.equal(text(cut([ports("80-90"), ports("80-90")])), "80-90");
  assert.equal(text(cut([])), "");
});

interface World {
  readonly own?: readonly (ImportRecord | ExportRecord)[];
  readonly others?: readonly Known<ImportRecord>[];
  readonly gateways?: PlannerView["gateways"];
  readonly names?: Readonly<Record<string, readonly Ipv4[]>>;
  readonly holder?: boolean;
}

function view(
  { own = [], others = [], gateways = [{ subnet: SUBNET, address: GATEWAY }], names = {} }: World,
): PlannerView {
  const ids = new Map<string, number>();
  const ourImports = own.filter((record) => record.kind === "import").map((record) => known(US, record));
  const ourExports = own.filter((record) => record.kind === "export");
  return {
    ourName: US,
    domain: "weave.local",
    own: () => own,
    imports: (name) => [...ourImports, ...others].filter(({ record }) => record.spec.name === name),
    exportsAt: (network, address) =>
      ourExports.filter(({ spec }) => spec.network === network && spec.listen.address === address)
        .map((record) => known(US, record)),
    networks: [PLANT],
    gateways,
    addresses: (_spec, { host }) => typeof host === "number" ? [host] : names[host] ?? [],
    containerAddresses: (name) => names[name] ?? [],
    health: (_name, { host }) => {
      const backends = ourImports.flatMap(({ record }) =>
        record.spec.backends.map((one, i) => [one, record, i] as const)
      );
      const [, record, i] = backends.find(([one]) => one.host === host)!;
      return record.status.health[i]!;
    },
    ownAddresses: (network) => network === "plant" ? [ip("192.168.70.1")] : [ip("192.168.1.1")],
    siteAddresses: () => [],
    idOf({ service, network, address, port }) {
      const key = `${service} ${network} ${address} ${port?.protocol} ${port?.first}`;
      if (!ids.has(key)) ids.set(key, ids.size + 1);
      return ids.get(key)!;
    },
    backendsOf: () => [],
    hasFlows: () => false,
  };
}

function known<R extends ImportRecord | ExportRecord>(owner: PeerName, record: R): Known<R> {
  return { owner, reachable: true, secondHand: false, record };
}

function imported(
  o: {
    readonly backends: readonly Backend[];
    readonly health?: readonly BackendHealth[];
    readonly ports?: readonly PortRange[];
    readonly relay?: Ipv4;
    readonly priority?: number;
    readonly state?: ImportRecord["spec"]["state"];
    readonly holding?: boolean;
  },
): ImportRecord {
  return {
    kind: "import",
    spec: {
      name: "web",
      network: "host",
      ports: o.ports ?? [ports("80")],
      backends: o.backends,
      check: DEFAULT_CHECK,
      priority: o.priority ?? 0,
      weight: 1,
      subnets: [],
      allowLocal: false,
      state: o.state ?? "active",
    },
    offers: [{ subnet: SUBNET, address: VIRTUAL, since: 1, relay: o.relay }],
    status: {
      health: o.health ?? o.backends.map(() => "up"),
      holding: o.holding === true ? [{ address: VIRTUAL, flows: false }] : [],
    },
  };
}

function exported(
  o: {
    readonly name: string;
    readonly listen: string;
    readonly network?: string;
    readonly port?: number;
  },
): ExportRecord {
  const [, address, range] = /^(?:([\d.]+):)?(.*)$/.exec(o.listen)!;
  return {
    kind: "export",
    spec: {
      name: o.name,
      port: o.port,
      network: o.network ?? "host",
      listen: { address: address === undefined ? "own" : ip(address), ports: ports(range!) },
      allow: undefined,
      dns: false,
      force: false,
    },
    status: { ready: false, holding: undefined },
  };
}

function backend(host: string, more: Partial<Backend> = {}): Backend {
  return { host: ip(host), network: "host", serves: ports("80"), firstPort: 80, priority: 0, weight: 1, ...more };
}

/** `network address protocol first-last: backend:port*weight …` */
function show(listeners: readonly ListenerPlan[]): string[] {
  return listeners.map(({ network, address, protocol, firstPort, lastPort, targets }) =>
    `${network} ${address === "own" ? address : formatIpv4(address)} ${protocol} ${firstPort}-${lastPort}: ${
      targets.map((one) => `${one.backend}:${one.firstPort}*${one.weight}`).join(" ")
    }`
  );
}

function ip(text: string): Ipv4 {
  return parseIpv4(text)!;
}

function cidr(text: string): Cidr {
  return parseCidr(text)!;
}

function ports(text: string): PortRange {
  return parsePortRange(text)!;
}
