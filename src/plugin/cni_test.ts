import assert from "node:assert/strict";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import {
  addressResult,
  chained,
  CNI_CODE,
  CNI_VERSIONS,
  type CniContainerCall,
  CniError,
  type CniResult,
  ownerId,
  readCall,
  readGiven,
  readResult,
  routingOf,
  versionOf,
  writeError,
  writeResult,
  writeVersions,
} from "./cni.ts";

const ENV = {
  CNI_COMMAND: "ADD",
  CNI_CONTAINERID: "c1",
  CNI_NETNS: "/run/netns/c1",
  CNI_IFNAME: "eth0",
  CNI_PATH: "/opt/cni/bin:relative:/usr/lib/cni",
};
const CONFIG = { cniVersion: "1.0.0", name: "weave", type: "weave-net" };

Deno.test("readCall() reads what a runtime says, with the defaults of Weave Net", () => {
  assert.deepEqual(call({}, { name: "weave" }), {
    command: "ADD",
    containerId: "c1",
    netns: "/run/netns/c1",
    ifName: "eth0",
    path: ["/opt/cni/bin", "/usr/lib/cni"],
    config: {
      version: "0.1.0",
      name: "weave",
      bridge: undefined,
      mtu: undefined,
      hairpin: true,
      ipam: { plugin: undefined, subnet: undefined, gateway: undefined, routes: undefined },
      dns: {},
      previous: undefined,
    },
  });
  const { config } = call({}, {
    ...CONFIG,
    bridge: "other",
    mtu: 1200,
    hairpinMode: false,
    dns: { nameservers: ["10.1.0.1"] },
    ipam: {
      type: "weave-ipam",
      subnet: "10.2.0.0/16",
      gateway: "10.2.0.1",
      routes: [{ dst: "0.0.0.0/0" }, { dst: "10.3.0.0/16", gw: "10.2.0.9" }],
    },
  });
  assert.deepEqual([config.bridge, config.mtu, config.hairpin, config.dns], [
    "other",
    1200,
    false,
    { nameservers: ["10.1.0.1"] },
  ]);
  assert.deepEqual(config.ipam, {
    plugin: undefined,
    subnet: cidr("10.2.0.0/16"),
    gateway: ip("10.2.0.1"),
    routes: [
      { destination: cidr("0.0.0.0/0"), gateway: undefined },
      { destination: cidr("10.3.0.0/16"), gateway: ip("10.2.0.9") },
    ],
  });
});

Deno.test("readCall() leaves the configuration of another program alone, and tells no routes from none", () => {
  const other = call({}, { ...CONFIG, ipam: { type: "host-local", subnet: "fd00::/64", routes: "?" } }).config.ipam;
  assert.deepEqual(other, { plugin: "host-local", subnet: undefined, gateway: undefined, routes: undefined });
  assert.deepEqual(call({}, { ...CONFIG, ipam: { routes: [] } }).config.ipam.routes, []);
  assert.equal(call({}, { ...CONFIG, ipam: {} }).config.ipam.routes, undefined);
  assert.equal(call({}, { ...CONFIG, ipam: null }).config.ipam.plugin, undefined);
});

Deno.test("readCall() needs no namespace to delete, and nothing at all to tell versions", () => {
  assert.equal(call({ CNI_COMMAND: "DEL", CNI_NETNS: "" }, CONFIG).netns, undefined);
  assert.deepEqual(readCall((name) => name === "CNI_COMMAND" ? "VERSION" : undefined, ""), { command: "VERSION" });
});

const REFUSED: readonly { env?: Record<string, string>; config?: unknown; code: number; says: RegExp }[] = [
  { env: { CNI_COMMAND: "" }, code: CNI_CODE.environment, says: /unknown CNI_COMMAND: ""/ },
  { env: { CNI_COMMAND: "GC" }, code: CNI_CODE.environment, says: /unknown CNI_COMMAND/ },
  { env: { CNI_NETNS: "", CNI_IFNAME: "" }, code: CNI_CODE.environment, says: /\[CNI_IFNAME,CNI_NETNS\] missing/ },
  { env: { CNI_CONTAINERID: "../c" }, code: CNI_CODE.environment, says: /containerID/ },
  { env: { CNI_IFNAME: "a/b" }, code: CNI_CODE.environment, says: /interface name/ },
  { env: { CNI_IFNAME: ".." }, code: CNI_CODE.environment, says: /interface name/ },
  { env: { CNI_IFNAME: "sixteencharacter" }, code: CNI_CODE.environment, says: /interface name/ },
  { config: "not an object", code: CNI_CODE.decoding, says: /no JSON object/ },
  { config: { ...CONFIG, cniVersion: "2.0.0" }, code: CNI_CODE.incompatibleVersion, says: /incompatible/ },
  { config: { cniVersion: "1.0.0" }, code: CNI_CODE.config, says: /missing network name/ },
  { config: { name: "a b" }, code: CNI_CODE.config, says: /network name/ },
  { config: { ...CONFIG, isGateway: true }, code: CNI_CODE.unsupportedField, says: /Gateway functionality/ },
  { config: { ...CONFIG, ipMasq: true }, code: CNI_CODE.unsupportedField, says: /Masquerading/ },
  { config: { ...CONFIG, mtu: 1 }, code: CNI_CODE.config, says: /mtu must be/ },
  { config: { ...CONFIG, mtu: "1400" }, code: CNI_CODE.config, says: /mtu must be/ },
  { config: { ...CONFIG, hairpinMode: "no" }, code: CNI_CODE.config, says: /hairpinMode/ },
  { config: { ...CONFIG, bridge: 7 }, code: CNI_CODE.config, says: /bridge/ },
  { config: { ...CONFIG, ipam: [] }, code: CNI_CODE.config, says: /ipam must be/ },
  { config: { ...CONFIG, ipam: { type: "../sh" } }, code: CNI_CODE.config, says: /ipam\.type/ },
  { config: { ...CONFIG, ipam: { subnet: "fd00::/64" } }, code: CNI_CODE.config, says: /ipam\.subnet must be IPv4/ },
  { config: { ...CONFIG, ipam: { gateway: "host" } }, code: CNI_CODE.config, says: /ipam\.gateway/ },
  { config: { ...CONFIG, ipam: { routes: {} } }, code: CNI_CODE.config, says: /routes must be a list/ },
  { config: { ...CONFIG, ipam: { routes: [{}] } }, code: CNI_CODE.config, says: /dst of a route/ },
  {
    env: { CNI_COMMAND: "CHECK" },
    config: { ...CONFIG, cniVersion: "0.3.1" },
    code: CNI_CODE.incompatibleVersion,
    says: /does not allow CHECK/,
  },
];

for (const { env = {}, config = CONFIG, code, says } of REFUSED) {
  Deno.test(`readCall() refuses ${JSON.stringify({ ...env, config })}`, () => {
    assert.throws(
      () => call(env, config),
      (error) => error instanceof CniError && error.code === code && says.test(error.message),
    );
  });
}

Deno.test("readCall() refuses what is not JSON", () => {
  const env = (name: string) => (ENV as Record<string, string>)[name];
  assert.throws(() => readCall(env, "{"), (error) => error instanceof CniError && error.code === CNI_CODE.decoding);
});

const RESULT: CniResult = {
  interfaces: [{ name: "vethweplc1", mac: "02:00:00:00:00:01" }, { name: "eth0", sandbox: "/run/netns/c1" }],
  ips: [{ address: "10.32.0.1/12", gateway: "10.32.0.2", interface: 1 }],
  routes: [{ dst: "0.0.0.0/0", gw: "10.32.0.2" }],
  dns: {},
};

Deno.test("writeResult() speaks every version", () => {
  const old = { ip: "10.32.0.1/12", gateway: "10.32.0.2", routes: RESULT.routes };
  const ip = { address: "10.32.0.1/12", gateway: "10.32.0.2", interface: 1 };
  const rest = { interfaces: RESULT.interfaces, routes: RESULT.routes, dns: {} };
  for (const cniVersion of CNI_VERSIONS) {
    assert.deepEqual(
      writeResult(RESULT, cniVersion),
      cniVersion === "0.1.0" || cniVersion === "0.2.0"
        ? { cniVersion, ip4: old, dns: {} }
        : { cniVersion, ips: [cniVersion === "1.0.0" ? ip : { version: "4", ...ip }], ...rest },
    );
  }
});

Deno.test("readResult() reads what writeResult() writes, of every version", () => {
  for (const version of CNI_VERSIONS) {
    const read = readResult(JSON.parse(JSON.stringify(writeResult(RESULT, version))));
    const old = version === "0.1.0" || version === "0.2.0";
    const ips = [{ address: "10.32.0.1/12", gateway: "10.32.0.2" }];
    assert.deepEqual(read, old ? { ...RESULT, interfaces: [], ips } : RESULT);
  }
  assert.deepEqual(readResult({ ips: "?", routes: [1], interfaces: null }), {
    interfaces: [],
    ips: [],
    routes: [],
    dns: {},
  });
  assert.throws(() => readResult("result"), CniError);
});

Deno.test("chained() puts ours behind what was there, and counts interfaces on", () => {
  assert.equal(chained(undefined, RESULT), RESULT);
  const before: CniResult = {
    interfaces: [{ name: "net0", sandbox: "/run/netns/c1" }],
    ips: [{ address: "192.0.2.1/24", interface: 0 }],
    routes: [{ dst: "192.0.2.0/24" }],
    dns: { domain: "example.com" },
  };
  assert.deepEqual(chained(before, RESULT), {
    interfaces: [...before.interfaces, ...RESULT.interfaces],
    ips: [before.ips[0], { ...RESULT.ips[0], interface: 2 }],
    routes: [...before.routes, ...RESULT.routes],
    dns: before.dns,
  });
});

Deno.test("routingOf() goes by way of the host only where nothing is said", () => {
  const gateway = ip("10.32.0.9");
  assert.deepEqual(routingOf({ gateway: undefined, routes: undefined }), { via: "bridge" });
  assert.deepEqual(routingOf({ gateway: undefined, routes: [] }), { via: "given", gateway: undefined, routes: [] });
  assert.deepEqual(routingOf({ gateway, routes: undefined }), {
    via: "given",
    gateway,
    routes: [{ destination: cidr("0.0.0.0/0"), gateway }],
  });
});

Deno.test("readGiven() takes all IPv4 that another program gave, and nothing else", () => {
  const [first] = readGiven(RESULT);
  assert.deepEqual(first, {
    cidr: cidr("10.32.0.1/12"),
    gateway: ip("10.32.0.2"),
    routes: [{ destination: cidr("0.0.0.0/0"), gateway: ip("10.32.0.2") }],
  });
  assert.equal(readGiven({ ...RESULT, routes: [] })[0].routes, undefined);
  assert.throws(() => readGiven({ ...RESULT, ips: [] }), /failed to allocate/);
  assert.throws(() => readGiven({ ...RESULT, ips: [{ address: "fd00::1/64" }] }), /must be IPv4/);
});

Deno.test("errors, versions and addresses are written as the specification has them", () => {
  const error = new CniError(CNI_CODE.tryAgain, "not now", "nobody there");
  assert.deepEqual(writeError(error, "0.4.0"), {
    cniVersion: "0.4.0",
    code: 11,
    msg: "not now",
    details: "nobody there",
  });
  assert.deepEqual(writeError(new CniError(7, "x"), undefined), { cniVersion: "0.1.0", code: 7, msg: "x" });
  assert.deepEqual(writeVersions(), { cniVersion: "1.0.0", supportedVersions: CNI_VERSIONS });
  assert.equal(versionOf('{"cniVersion":"0.3.1"}'), "0.3.1");
  assert.equal(versionOf("?"), undefined);
  assert.deepEqual(addressResult([cidr("10.0.0.1/24")], { gateway: undefined, routes: [] }), {
    ips: [{ address: "10.0.0.1/24" }],
    routes: [],
  });
});

Deno.test("ownerId() tells further interfaces of a container apart", () => {
  assert.equal(ownerId("c1", "eth0"), "c1");
  assert.notEqual(ownerId("c1", "net1"), ownerId("c1", "net2"));
});

function call(env: Record<string, string>, config: unknown): CniContainerCall {
  const all: Record<string, string> = { ...ENV, ...env };
  return readCall((name) => all[name], JSON.stringify(config)) as CniContainerCall;
}

function cidr(text: string) {
  return parseCidr(text)!;
}

function ip(text: string) {
  return parseIpv4(text)!;
}
