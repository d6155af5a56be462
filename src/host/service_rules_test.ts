import assert from "node:assert/strict";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { Mac } from "../lib/mac.ts";
import type { ListenerPlan, ServicePlan } from "../service/plan.ts";
import { parsePresent, planScript, presentAfter, renderRules, type RuleFacts, type Rules } from "./service_rules.ts";

const MESH = 1, HOST = 2, SITE = 3;

Deno.test("renderRules() makes one element of a map for a listener, whatever its ports", () => {
  const rules = render({
    listeners: [
      listener({ address: "10.32.0.100", firstPort: 8080, lastPort: 8080, to: 80 }),
      listener({ address: "10.32.0.100", protocol: "udp", firstPort: 10_000, lastPort: 20_000, to: 10_000 }),
    ],
  });
  assert.deepEqual([...rules.maps.get("at_1")!.elements], [
    ["10.32.0.100 . tcp . 8080", "goto to_1_7_tcp_8080-8080_80"],
    ["10.32.0.100 . udp . 10000-20000", "goto to_1_7_udp_10000-20000_10000"],
  ]);
  assert.deepEqual(rules.chains.get("to_1_7_tcp_8080-8080_80")!.rules, [
    "tcp flags & (fin|syn|rst|ack) != syn goto refuse_1",
    "meta l4proto tcp ct mark set 0x03810007 meta mark set 0x03000000 dnat to 192.168.1.10:80",
  ]);
  assert.deepEqual(rules.chains.get("to_1_7_udp_10000-20000_10000")!.rules, [
    "meta l4proto udp ct mark set 0x03810007 meta mark set 0x03000000 dnat to 192.168.1.10",
  ]);
});

Deno.test("renderRules() shifts ports by a map of each, shared by whoever shifts alike", () => {
  const shifted = { protocol: "udp", firstPort: 20_000, lastPort: 20_002, to: 10_000 } as const;
  const rules = render({
    listeners: [listener({ address: "10.32.0.100", ...shifted }), listener({ address: "10.32.0.101", ...shifted })],
  });
  assert.deepEqual([...rules.maps.get("shift_20000-20002_10000")!.elements], [
    ["20000", "10000"],
    ["20001", "10001"],
    ["20002", "10002"],
  ]);
  assert.match(
    rules.chains.get("to_1_7_udp_20000-20002_10000")!.rules[0]!,
    /dnat to 192\.168\.1\.10 : th dport map @shift_20000-20002_10000$/,
  );
});

Deno.test("renderRules() asks who the client is before it chooses a backend by weight", () => {
  const rules = render({
    listeners: [{
      ...listener({ address: "10.32.0.100", firstPort: 80, lastPort: 80, to: 80 }),
      allow: ["10.0.0.0/8", "10.1.0.0/16", "192.168.1.7/24"].map((cidr) => parseCidr(cidr)!),
      targets: [{ backend: 7, firstPort: 80, weight: 3 }, { backend: 8, firstPort: 80, weight: 1 }],
    }],
  });
  assert.deepEqual(rules.chains.get("l_1_1_10.32.0.100_tcp_80")!.rules, [
    "ip saddr != { 10.0.0.0/8, 192.168.1.0/24 } goto refuse_1",
    "numgen random mod 4 vmap { 0-2 : goto to_1_7_tcp_80-80_80, 3 : goto to_1_8_tcp_80-80_80 }",
  ]);
});

Deno.test("renderRules() refuses where there is no backend, or nobody is allowed", () => {
  const one = listener({ address: "10.32.0.100", firstPort: 80, lastPort: 80, to: 80 });
  const two = listener({ address: "10.32.0.100", firstPort: 81, lastPort: 81, to: 81 });
  const rules = render({ listeners: [{ ...one, targets: [] }, { ...two, allow: [] }] });
  assert.equal(rules.maps.get("at_1")!.elements.get("10.32.0.100 . tcp . 80"), "goto refuse_1");
  assert.equal(rules.chains.get("l_1_1_10.32.0.100_tcp_81")!.rules[0], "goto refuse_1");
  assert.equal(rules.chains.get("refuse_1")!.rules[0], "ct mark set 0x00810000");
});

Deno.test("renderRules() gives a client from the mesh what the mesh has before what the host has", () => {
  const rules = render({
    listeners: [
      listener({ network: HOST, address: "192.168.1.1", firstPort: 1, lastPort: 100, to: 1 }),
      { ...listener({ address: "192.168.1.1", firstPort: 50, lastPort: 59, to: 50 }), targets: [] },
      listener({ network: HOST, address: "own", firstPort: 22, lastPort: 22, to: 22 }),
    ],
  });
  assert.deepEqual([...rules.maps.get("at_1")!.elements.keys()], [
    "192.168.1.1 . tcp . 50-59",
    "192.168.1.1 . tcp . 1-49",
    "192.168.1.1 . tcp . 60-100",
  ]);
  assert.deepEqual([...rules.maps.get("at_2")!.elements.keys()], ["192.168.1.1 . tcp . 1-100"]);
  assert.deepEqual([...rules.maps.get("own_2")!.elements.keys()], ["tcp . 22"]);
  assert.deepEqual([...rules.maps.get("host_1")!.elements.keys()], ["tcp . 22"]);
});

Deno.test("renderRules() knows a named network by its links, and has its addresses for programs on the host", () => {
  const rules = render({
    networks: [{ id: SITE, name: "site", interfaces: ["eth1", "eth2"], isolated: false }],
    listeners: [listener({ network: SITE, address: "own", firstPort: 80, lastPort: 80, to: 80 })],
  }, { ownAddresses: new Map([[SITE, [parseCidr("192.168.1.1/24")!, parseCidr("192.168.2.1/24")!]]]) });
  assert.ok(rules.chains.get("tracking")!.rules.includes('iifname { "eth1", "eth2" } ct original zone set 3'));
  assert.equal(
    rules.chains.get("new")!.rules[0],
    'iifname vmap { "weave" : goto from_1, "eth1" : goto from_3, "eth2" : goto from_3 }',
  );
  assert.ok(
    rules.chains.get("from_3")!.rules.includes(
      "ip daddr { 192.168.1.1, 192.168.2.1 } meta l4proto . th dport vmap @own_3",
    ),
  );
  assert.deepEqual([...rules.maps.get("at_local")!.elements.keys()], [
    "192.168.1.1 . tcp . 80",
    "192.168.2.1 . tcp . 80",
  ]);
});

Deno.test("renderRules() refuses a revoked backend's packets before they are translated, and has no rule for it otherwise", () => {
  assert.equal(render({}).chains.has("revoked"), false);
  const revoked = render({ backends: BACKENDS.map((backend) => ({ ...backend, revoked: true as const })) });
  assert.ok(revoked.chains.get("revoked")!.rules.at(-1)!.includes("{ 0x00000007, 0x00000008 } goto refusal"));
  assert.equal(revoked.chains.get("revoked")!.hook, "type filter hook prerouting priority -149");
});

Deno.test("renderRules() drops what is not ours only where nothing was forwarded before, and spares bridges", () => {
  const drop = "ct mark & 0x00800000 == 0 drop";
  assert.equal(render({}).chains.get("forward")!.rules.includes(drop), false);
  const { rules } = render({}, { forwardOnlyOurs: { bridges: ["weave", "br0"] } }).chains.get("forward")!;
  assert.deepEqual(rules.slice(-2), ['iifname . oifname { "br0" . "br0", "weave" . "weave" } accept', drop]);
});

Deno.test("renderRules() does not track on the bridge what comes from the other link, or goes to it", () => {
  const { rules } = render({}, { meshLeg: { name: "weave-svc", mac: 0x02000000000a as Mac } }).chains.get("tracking")!;
  assert.deepEqual(rules.slice(-2), [
    'meta mark & 0xff000000 == 0x01000000 iifname "weave" notrack',
    'ether daddr 02:00:00:00:00:0a iifname "weave" notrack',
  ]);
});

Deno.test("renderRules() refuses names that would end a string", () => {
  const networks = [{ id: SITE, name: "site", interfaces: ['eth0" accept #'], isolated: false }];
  assert.throws(() => render({ networks }), /Not the name of an interface/);
});

Deno.test("planScript() changes what differs and nothing else", () => {
  const listeners = [80, 81].map((port) =>
    listener({ address: "10.32.0.100", firstPort: port, lastPort: port, to: port })
  );
  const before = render({ listeners });
  assert.equal(planScript(presentAfter(before), before), "");
  const after = render({
    listeners: [listeners[0]!, { ...listeners[1]!, targets: [{ backend: 8, firstPort: 81, weight: 1 }] }],
  });
  const element = "10.32.0.100 . tcp . 81 :";
  assert.deepEqual(
    planScript(presentAfter(before), after).trim().split("\n").sort(),
    [
      ...["to_1_8", "to_2_8"].map((chain) => `add chain ip weave-services ${chain}_tcp_81-81_81`),
      `add element ip weave-services at_1 { ${element} goto to_1_8_tcp_81-81_81 }`,
      `add element ip weave-services at_local { ${element} goto to_2_8_tcp_81-81_81 }`,
      ...rulesOf(after, "to_1_8_tcp_81-81_81"),
      ...rulesOf(after, "to_2_8_tcp_81-81_81"),
      `delete chain ip weave-services to_1_7_tcp_81-81_81`,
      `delete chain ip weave-services to_2_7_tcp_81-81_81`,
      `delete element ip weave-services at_1 { ${element} goto to_1_7_tcp_81-81_81 }`,
      `delete element ip weave-services at_local { ${element} goto to_2_7_tcp_81-81_81 }`,
      `flush chain ip weave-services to_1_7_tcp_81-81_81`,
      `flush chain ip weave-services to_2_7_tcp_81-81_81`,
    ].sort(),
  );
});

Deno.test("planScript() fills a chain anew that somebody changed, and takes away what it does not know", () => {
  const rules = render({});
  const present = parsePresent([
    ...[...rules.chains.keys()].map((name) => ({ chain: { name } })),
    { chain: { name: "theirs" } },
    ...[...rules.maps.keys()].map((name) => ({ map: { name } })),
    { map: { name: "more", elem: [[{ concat: ["tcp", { range: [1, 2] }] }, { goto: { target: "theirs" } }]] } },
    { rule: { chain: "segments", comment: "0000000000000000/1" } },
  ]);
  assert.deepEqual([...present.maps.get("more")!], [["tcp . 1-2", "goto theirs"]]);
  const script = planScript(present, rules);
  assert.match(script, /^flush chain ip weave-services segments$/m);
  assert.match(
    script,
    /^flush chain ip weave-services theirs\ndelete map ip weave-services more\ndelete chain ip weave-services theirs$/m,
  );
});

Deno.test("parsePresent() counts the rules of a chain, so that one that was added shows", () => {
  const rules = render({});
  const [name, print] = [...presentAfter(rules).chains].map(([name, { fingerprint }]) => [name, fingerprint!] as const)
    .find(([, print]) => print.endsWith("/1"))!;
  const ours = { rule: { chain: name, comment: print } };
  assert.equal(parsePresent([{ chain: { name } }, ours]).chains.get(name)!.fingerprint, print);
  assert.equal(
    parsePresent([{ chain: { name } }, ours, { rule: { chain: name } }]).chains.get(name)!.fingerprint,
    undefined,
  );
  assert.equal(parsePresent([{ chain: { name } }]).chains.get(name)!.fingerprint, undefined);
});

const BACKENDS = [
  { id: 7, service: "web", network: SITE, address: parseIpv4("192.168.1.10")! },
  { id: 8, service: "web", network: MESH, address: parseIpv4("10.32.0.8")! },
];

function render(plan: Partial<ServicePlan>, facts: Partial<RuleFacts> = {}): Rules {
  const whole = { networks: [], subnets: [], answered: [], backends: BACKENDS, listeners: [], ...plan };
  return renderRules(whole, { bridge: "weave", ownAddresses: new Map(), forwardOnlyOurs: false, ...facts });
}

function listener(
  { network = MESH, address, protocol = "tcp", firstPort, lastPort, to }: {
    readonly network?: number;
    readonly address: string;
    readonly protocol?: "tcp" | "udp";
    readonly firstPort: number;
    readonly lastPort: number;
    readonly to: number;
  },
): ListenerPlan {
  return {
    service: "web",
    network,
    address: address === "own" ? "own" : parseIpv4(address)!,
    protocol,
    firstPort,
    lastPort,
    allow: undefined,
    targets: [{ backend: 7, firstPort: to, weight: 1 }],
  };
}

function rulesOf(rules: Rules, name: string): string[] {
  return rules.chains.get(name)!.rules.map((rule, i) =>
    `add rule ip weave-services ${name} ${rule}${
      i === 0 ? ` comment "${presentAfter(rules).chains.get(name)!.fingerprint}"` : ""
    }`
  );
}
