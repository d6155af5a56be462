import assert from "node:assert/strict";
import { formatIpv4, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { ListenerPlan, ServicePlan } from "../service/plan.ts";
import { splitPlan } from "./service_isolated.ts";

const MESH = 1, SITE = 3, OTHER = 4, TRANSIT = 63;

const PLAN: ServicePlan = {
  networks: [
    { id: SITE, name: "site", interfaces: ["eth1"], isolated: true },
    { id: OTHER, name: "other", interfaces: ["eth2"], isolated: false },
  ],
  subnets: [{ subnet: parseCidr("10.32.0.0/12")!, address: parseIpv4("10.32.0.1")! }],
  answered: [
    { network: MESH, address: parseIpv4("10.32.0.9")! },
    { network: SITE, address: parseIpv4("192.168.1.77")! },
  ],
  backends: [
    { id: 1, service: "a", network: SITE, address: parseIpv4("192.168.1.10")! },
    { id: 2, service: "b", network: MESH, address: parseIpv4("10.32.0.5")! },
    { id: 3, service: "c", network: SITE, address: parseIpv4("192.168.1.11")!, revoked: true },
  ],
  listeners: [
    listener(MESH, parseIpv4("10.32.0.9")!, 1),
    listener(SITE, "own", 2),
    { ...listener(SITE, parseIpv4("192.168.1.77")!, 2), allow: [parseCidr("192.168.1.0/24")!] },
  ],
};

Deno.test("splitPlan() leaves a plan without isolated networks alone", () => {
  const plan = { ...PLAN, networks: PLAN.networks.slice(1) };
  assert.equal(splitPlan(plan).here, plan);
});

Deno.test("splitPlan() has backends and clients of an isolated network behind addresses of its transit, here", () => {
  const { here } = splitPlan(PLAN);
  assert.deepEqual(here.networks.map(({ interfaces }) => interfaces), [["weave-net3"], ["eth2"]]);
  assert.deepEqual(here.backends.map(({ address }) => formatIpv4(address)), ["240.3.0.4", "10.32.0.5", "240.3.0.6"]);
  assert.deepEqual(
    here.listeners.map(({ address, allow }) => [address === "own" ? address : formatIpv4(address), allow]),
    [
      ["10.32.0.9", undefined],
      ["240.3.254.0", undefined],
      ["240.3.254.183", undefined],
    ],
  );
  assert.deepEqual(here.answered.map(({ network, address }) => `${network} ${formatIpv4(address)}`).sort(), [
    "1 10.32.0.9",
    "3 240.3.254.0",
    "3 240.3.254.183",
  ]);
});

Deno.test("splitPlan() judges clients inside, translates to backends there, and refuses revoked ones", () => {
  const { inside: [part, ...others] } = splitPlan(PLAN);
  assert.deepEqual(others, []);
  const { plan } = part!;
  assert.deepEqual(plan.networks.map(({ id, interfaces, isolated }) => [id, interfaces, isolated]), [
    [SITE, ["eth1"], false],
    [TRANSIT, ["weave-net3"], false],
  ]);
  const said = plan.listeners.map(({ network, address, protocol, firstPort, lastPort, allow, targets }) => [
    `${network} ${address === "own" ? address : formatIpv4(address)}:${firstPort}-${lastPort}/${protocol}`,
    allow?.length,
    targets.map(({ backend, firstPort }) => `${backend}:${firstPort}`).join(),
  ]);
  assert.deepEqual(said, [
    ["63 240.3.0.4:1-65535/tcp", undefined, "1:1"],
    ["63 240.3.0.4:1-65535/udp", undefined, "1:1"],
    ["63 240.3.0.6:1-65535/tcp", undefined, ""],
    ["63 240.3.0.6:1-65535/udp", undefined, ""],
    ["3 own:80-80/tcp", undefined, "65024:80"],
    ["3 192.168.1.77:80-80/tcp", 1, "65207:80"],
  ]);
  assert.deepEqual(plan.subnets, []);
});

Deno.test("splitPlan() gives an address at which clients call the same number whatever else there is", () => {
  const alone = splitPlan({ ...PLAN, listeners: PLAN.listeners.slice(2) }).here.listeners[0]!;
  assert.equal(alone.address, splitPlan(PLAN).here.listeners[2]!.address);
});

function listener(network: number, address: number | "own", backend: number): ListenerPlan {
  return {
    service: "x",
    network,
    address,
    protocol: "tcp",
    firstPort: 80,
    lastPort: 80,
    allow: undefined,
    targets: [{ backend, firstPort: 8080, weight: 1 }],
  };
}
