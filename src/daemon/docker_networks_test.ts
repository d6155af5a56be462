import assert from "node:assert/strict";
import { parseIpv4 } from "../lib/ip.ts";
import { type NetworkedContainer, readNetwork, readNetworked } from "./docker_networks.ts";
import { namesOf } from "./plugin_containers.ts";
import { leftoversOf } from "./plugin_sweep.ts";

const ip = (text: string) => parseIpv4(text)!;
const ID = "0123456789abcdef".repeat(4);

const NETWORK = {
  Name: "weave",
  Id: ID,
  Driver: "weavemesh",
  IPAM: {
    Driver: "weavemesh",
    Config: [{
      Subnet: "10.32.0.0/12",
      Gateway: "10.32.0.0/12",
      AuxiliaryAddresses: { printer: "10.32.0.9" },
    }],
  },
  Containers: {
    [ID]: { Name: "c1", EndpointID: "aaaaaaaaaaaa", MacAddress: "02:00:00:00:00:01", IPv4Address: "10.32.0.1/12" },
    "ep-bbbbbbbbbbbb": { Name: "c2", EndpointID: "bbbbbbbbbbbb", IPv4Address: "" },
  },
  Options: { "works.weave.multicast": "true" },
};

Deno.test("readNetwork() reads what the engine says of a network, and can do without all of it", () => {
  assert.deepEqual(readNetwork(NETWORK), {
    id: ID,
    name: "weave",
    driver: "weavemesh",
    ipamDriver: "weavemesh",
    subnets: ["10.32.0.0/12"],
    reserved: [ip("10.32.0.0"), ip("10.32.0.9")],
    options: { "works.weave.multicast": "true" },
    endpoints: [
      { id: "aaaaaaaaaaaa", name: "c1", container: ID, address: ip("10.32.0.1") },
      { id: "bbbbbbbbbbbb", name: "c2", container: "ep-bbbbbbbbbbbb", address: undefined },
    ],
  });
  const nothing = {
    id: "",
    name: "",
    driver: "",
    ipamDriver: "",
    subnets: [],
    reserved: [],
    options: {},
    endpoints: [],
  };
  for (const answer of [{}, null, [], "text", { IPAM: { Config: null }, Containers: null }]) {
    assert.deepEqual(readNetwork(answer), nothing);
  }
});

const CONTAINER: NetworkedContainer = {
  id: ID,
  name: "c1",
  running: true,
  pid: 42,
  hostname: "one",
  domainname: "weave.local",
  networks: [{ id: "n1", address: ip("10.32.0.1"), aliases: ["web", ID.slice(0, 12)] }],
};

Deno.test("readNetworked() reads what the engine says of a container", () => {
  assert.deepEqual(
    readNetworked({
      Id: ID,
      Name: "/c1",
      State: { Running: true, Pid: 42 },
      Config: { Hostname: "one", Domainname: "weave.local" },
      NetworkSettings: {
        Networks: { any: { NetworkID: "n1", IPAddress: "10.32.0.1", Aliases: ["web", 7, ID.slice(0, 12)] } },
      },
    }),
    CONTAINER,
  );
  assert.deepEqual(readNetworked({}).networks, []);
});

Deno.test("namesOf() gives a container its hostname, its name and its aliases", () => {
  const names = (changes: Partial<NetworkedContainer>) =>
    namesOf({ ...CONTAINER, ...changes }, "weave.local.").map(({ hostname }) => hostname);
  assert.deepEqual(names({}), ["one.weave.local", "c1.weave.local.", "web.weave.local."]);
  assert.deepEqual(names({ hostname: "one", domainname: "" }), ["c1.weave.local.", "web.weave.local."]);
  assert.deepEqual(names({ hostname: "x.weave.local", domainname: "", name: "" }), [
    "x.weave.local",
    "web.weave.local.",
  ]);
  const [network] = CONTAINER.networks;
  assert.deepEqual(names({ networks: [{ ...network!, aliases: ["web.weave.local", "a.b"] }] }).slice(2), [
    "web.weave.local",
    "a.b.weave.local.",
  ]);
  assert.deepEqual(names({ networks: [{ ...network!, address: undefined }] }), []);
  const two = namesOf({
    ...CONTAINER,
    networks: [network!, { id: "n2", address: ip("10.40.0.1"), aliases: [] }],
  }, "weave.local.");
  assert.deepEqual(two.filter(({ address }) => address === ip("10.40.0.1")).map(({ hostname }) => hostname), [
    "one.weave.local",
    "c1.weave.local.",
  ]);
});

Deno.test("leftoversOf() finds what no endpoint has", () => {
  const network = readNetwork(NETWORK);
  const held = new Set(["10.32.0.1", "10.32.0.2", "10.32.0.9"].map(ip));
  // Of a running one the other end is in the container.
  const names = [
    "weave",
    "vethwlaaaaaaaaa",
    "vethwlbbbbbbbbb",
    "vethwgbbbbbbbbb",
    "vethwlccccccccc",
    "vethwgccccccccc",
  ];
  assert.deepEqual(leftoversOf([network], { held, names }), {
    addresses: new Set([ip("10.32.0.2")]),
    links: new Set(["vethwlccccccccc"]),
  });
  assert.equal(leftoversOf([], { held, names: [] }).addresses.size, 3);
});
