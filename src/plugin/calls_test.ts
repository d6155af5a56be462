import assert from "node:assert/strict";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import {
  type Action,
  addressAnswer,
  decide,
  endpointAnswer,
  endpointLinks,
  joinAnswer,
  Refusal,
  refusalAnswer,
  type Role,
} from "./calls.ts";

const MESH: Role = { scope: "local", ipam: true, multicast: false };
const GLOBAL: Role = { scope: "global", ipam: false, multicast: false };
const DEFAULT_SUBNET = parseCidr("10.32.0.0/12")!;
const NETWORK = "a".repeat(64);
const ENDPOINT = "0123456789abcdef".repeat(4);
const POOL = { subnet: DEFAULT_SUBNET, range: DEFAULT_SUBNET };
const POOL_ID = "weave-10.32.0.0/12-10.32.0.0/12";

function answered(body: unknown): Action {
  return { do: "answer", body } as Action;
}

const CASES: readonly { path: string; body?: unknown; role?: Role; want: Action }[] = [
  { path: "Plugin.Activate", want: answered({ Implements: ["NetworkDriver", "IpamDriver"] }) },
  { path: "Plugin.Activate", role: GLOBAL, want: answered({ Implements: ["NetworkDriver"] }) },
  { path: "NetworkDriver.GetCapabilities", want: answered({ Scope: "local" }) },
  { path: "NetworkDriver.GetCapabilities", role: GLOBAL, want: answered({ Scope: "global" }) },
  { path: "NetworkDriver.AllocateNetwork", body: { NetworkID: NETWORK }, want: answered({ Options: {} }) },
  { path: "NetworkDriver.FreeNetwork", body: { NetworkID: NETWORK }, want: answered({}) },
  {
    path: "NetworkDriver.CreateNetwork",
    body: {
      NetworkID: NETWORK,
      Options: { "com.docker.network.enable_ipv6": false, "com.docker.network.generic": {} },
    },
    want: { do: "createNetwork", id: NETWORK, multicast: false, unknown: [] },
  },
  ...([["", true], ["true", true], ["1", true], ["False", false], [true, true]] as const).map(([value, multicast]) => ({
    path: "NetworkDriver.CreateNetwork",
    body: { NetworkID: NETWORK, Options: { "com.docker.network.generic": { "works.weave.multicast": value, x: "y" } } },
    want: { do: "createNetwork", id: NETWORK, multicast, unknown: ["x"] } as const,
  })),
  {
    path: "NetworkDriver.CreateNetwork",
    body: { NetworkID: NETWORK },
    role: { ...GLOBAL, multicast: true },
    want: { do: "createNetwork", id: NETWORK, multicast: true, unknown: [] },
  },
  {
    path: "NetworkDriver.DeleteNetwork",
    body: { NetworkID: NETWORK },
    want: { do: "deleteNetwork", id: NETWORK },
  },
  {
    path: "NetworkDriver.CreateEndpoint",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT, Interface: { Address: "10.32.0.1/12", MacAddress: "" } },
    want: { do: "createEndpoint", id: ENDPOINT, mac: undefined },
  },
  {
    path: "NetworkDriver.CreateEndpoint",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT, Interface: { MacAddress: "02:42:0a:00:00:0B" } },
    want: { do: "createEndpoint", id: ENDPOINT, mac: 0x02420a00000b as Mac },
  },
  {
    path: "NetworkDriver.DeleteEndpoint",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT },
    want: { do: "deleteEndpoint", id: ENDPOINT },
  },
  { path: "NetworkDriver.EndpointOperInfo", body: {}, want: answered({ Value: {} }) },
  {
    path: "NetworkDriver.Join",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT, SandboxKey: "/var/run/docker/netns/1", Options: null },
    want: { do: "join", network: NETWORK, endpoint: ENDPOINT, sandbox: "/var/run/docker/netns/1" },
  },
  {
    path: "NetworkDriver.Leave",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT },
    want: { do: "leave", endpoint: ENDPOINT },
  },
  { path: "NetworkDriver.DiscoverNew", body: { DiscoveryType: 1 }, want: answered({}) },
  {
    path: "IpamDriver.GetCapabilities",
    want: answered({ RequiresMACAddress: false, RequiresRequestReplay: false }),
  },
  {
    path: "IpamDriver.GetDefaultAddressSpaces",
    want: answered({ LocalDefaultAddressSpace: "weavelocal", GlobalDefaultAddressSpace: "weaveglobal" }),
  },
  {
    path: "IpamDriver.RequestPool",
    body: { AddressSpace: "weavelocal", Pool: "", SubPool: "", Options: {}, V6: false },
    want: answered({
      PoolID: POOL_ID,
      Pool: "10.32.0.0/12",
      Data: { "com.docker.network.gateway": "10.32.0.0/12" },
    }),
  },
  {
    path: "IpamDriver.RequestPool",
    body: { Pool: "10.40.0.0/16", SubPool: "10.40.8.0/24" },
    want: answered({
      PoolID: "weave-10.40.0.0/16-10.40.8.0/24",
      Pool: "10.40.0.0/16",
      Data: { "com.docker.network.gateway": "10.40.0.0/16" },
    }),
  },
  { path: "IpamDriver.ReleasePool", body: { PoolID: POOL_ID }, want: answered({}) },
  {
    path: "IpamDriver.RequestAddress",
    body: { PoolID: POOL_ID, Address: "", Options: { "com.docker.network.endpoint.macaddress": "02:00:00:00:00:01" } },
    want: { do: "requestAddress", pool: POOL, address: undefined },
  },
  {
    path: "IpamDriver.RequestAddress",
    body: { PoolID: POOL_ID, Address: "10.32.0.9", Options: { RequestAddressType: "com.docker.network.gateway" } },
    want: { do: "requestAddress", pool: POOL, address: parseIpv4("10.32.0.9")! },
  },
  {
    // The gateway that we told Docker.
    path: "IpamDriver.RequestAddress",
    body: { PoolID: POOL_ID, Address: "10.32.0.0" },
    want: answered({ Address: "10.32.0.0/12", Data: {} }),
  },
  {
    path: "IpamDriver.ReleaseAddress",
    body: { PoolID: POOL_ID, Address: "10.32.0.9" },
    want: { do: "releaseAddress", address: parseIpv4("10.32.0.9")! },
  },
  { path: "IpamDriver.ReleaseAddress", body: { PoolID: POOL_ID, Address: "10.32.0.0" }, want: answered({}) },
];

for (const { path, body, role = MESH, want } of CASES) {
  Deno.test(`decide() says what is to be done for ${role.scope} ${path} ${JSON.stringify(body) ?? ""}`, () => {
    assert.deepEqual(decide(`/${path}`, octets(body), role, { defaultSubnet: DEFAULT_SUBNET }), want);
  });
}

const REFUSED: readonly { path: string; body: unknown; role?: Role; says: RegExp; status?: number }[] = [
  { path: "NetworkDriver.CreateNetwork", body: undefined, says: /NetworkID must be an id, is nothing/ },
  { path: "NetworkDriver.CreateNetwork", body: [], says: /no JSON object/ },
  { path: "NetworkDriver.CreateEndpoint", body: { NetworkID: NETWORK, EndpointID: "../x" }, says: /EndpointID/ },
  { path: "NetworkDriver.CreateEndpoint", body: { NetworkID: NETWORK, EndpointID: "12345678" }, says: /EndpointID/ },
  { path: "NetworkDriver.CreateEndpoint", body: { NetworkID: NETWORK, EndpointID: ENDPOINT }, says: /no interface/ },
  {
    path: "NetworkDriver.CreateEndpoint",
    body: { NetworkID: NETWORK, EndpointID: ENDPOINT, Interface: { MacAddress: "01:00:5e:00:00:01" } },
    says: /MAC address/,
  },
  {
    path: "NetworkDriver.CreateNetwork",
    body: { NetworkID: NETWORK, Options: { "com.docker.network.generic": { "works.weave.multicast": "yes" } } },
    says: /Cannot use "yes" as works.weave.multicast/,
  },
  { path: "IpamDriver.RequestPool", body: { V6: true }, says: /IPv6/ },
  { path: "IpamDriver.RequestPool", body: { Pool: "10.32.0.1/12" }, says: /as subnet: bits after/ },
  { path: "IpamDriver.RequestPool", body: { Pool: "10.32.0.0/31" }, says: /length must be 8 to 30/ },
  { path: "IpamDriver.RequestPool", body: { Pool: "fd00::/64" }, says: /a\.b\.c\.d\/length expected/ },
  { path: "IpamDriver.RequestPool", body: { SubPool: "10.32.0.0/24" }, says: /without its subnet/ },
  { path: "IpamDriver.RequestPool", body: { Pool: "10.40.0.0/16", SubPool: "10.41.0.0/24" }, says: /not within/ },
  { path: "IpamDriver.RequestPool", body: { Pool: "10.40.0.0/16", SubPool: "10.0.0.0/8" }, says: /not within/ },
  { path: "IpamDriver.RequestAddress", body: { PoolID: "other-1-2" }, says: /Unrecognized pool ID: "other-1-2"/ },
  { path: "IpamDriver.RequestAddress", body: { PoolID: POOL_ID, Address: "10.64.0.1" }, says: /not within 10\.32/ },
  { path: "IpamDriver.RequestAddress", body: { PoolID: POOL_ID, Address: "::1" }, says: /a\.b\.c\.d expected/ },
  { path: "IpamDriver.ReleaseAddress", body: { PoolID: POOL_ID }, says: /none is named/ },
  { path: "IpamDriver.RequestPool", body: {}, role: GLOBAL, says: /not known/, status: 404 },
  { path: "NetworkDriver.Dance", body: {}, says: /not known/, status: 404 },
  { path: "Plugin.Activate/", body: {}, says: /not known/, status: 404 },
  { path: "constructor.constructor", body: {}, says: /not known/, status: 404 },
];

for (const { path, body, role = MESH, says, status = 500 } of REFUSED) {
  Deno.test(`decide() refuses ${path} ${JSON.stringify(body) ?? ""}`, () => {
    assert.throws(
      () => decide(`/${path}`, octets(body), role, { defaultSubnet: DEFAULT_SUBNET }),
      (error) => error instanceof Refusal && says.test(error.message) && error.status === status,
    );
  });
}

Deno.test("decide() refuses what is not JSON, and a pool without a subnet where nobody allocates", () => {
  const call = (path: string, body: Uint8Array) => () => decide(path, body, MESH, { defaultSubnet: undefined });
  assert.throws(call("/IpamDriver.RequestPool", new TextEncoder().encode("{")), /not JSON/);
  assert.throws(call("/IpamDriver.RequestPool", octets({})), /allocates no addresses/);
});

Deno.test("answers say what Docker needs to know", () => {
  assert.deepEqual(endpointAnswer(0x02420a00000b as Mac), { Interface: { MacAddress: "02:42:0a:00:00:0b" } });
  assert.deepEqual(endpointAnswer(undefined), { Interface: {} });
  assert.deepEqual(joinAnswer(ENDPOINT, false), { InterfaceName: { SrcName: "vethwg012345678", DstPrefix: "ethwe" } });
  assert.deepEqual(joinAnswer(ENDPOINT, true), {
    InterfaceName: { SrcName: "vethwg012345678", DstPrefix: "ethwe" },
    StaticRoutes: [{ Destination: "224.0.0.0/4", RouteType: 1 }],
  });
  const range = parseCidr("10.40.8.0/24")!;
  const address = parseIpv4("10.40.8.1")!;
  assert.deepEqual(addressAnswer(address, { subnet: parseCidr("10.40.0.0/16")!, range }), {
    Address: "10.40.8.1/16",
    Data: {},
  });
  assert.deepEqual(refusalAnswer("why"), { Err: "why" });
  assert.equal(endpointLinks(ENDPOINT).host, "vethwl012345678");
});

function octets(body: unknown): Uint8Array {
  return new TextEncoder().encode(body === undefined ? "" : JSON.stringify(body));
}
