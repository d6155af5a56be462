import assert from "node:assert/strict";
import fc from "fast-check";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import { formatPortRange, parsePortRange } from "../lib/ports.ts";
import {
  checkNetworkSpec,
  checkServiceName,
  DEFAULT_CHECK,
  exportedPorts,
  formatBackend,
  formatCheck,
  type ImportInput,
  parseCheck,
  parseExport,
  parseImport,
  parseListen,
  parseTarget,
  rebind,
  refusedBackend,
  refusedListen,
  type SpecContext,
  SpecError,
} from "./spec.ts";

const CONTEXT: SpecContext = {
  domain: "weave.local.",
  networks: ["site"],
  ownAddresses: (network) => network === "host" ? [parseIpv4("192.0.2.1")!] : [],
};

Deno.test("parseImport() takes the ports of the targets where none are told", () => {
  const spec = parseImport({ name: "DB", to: ["192.168.1.5:5432"], network: "site" }, CONTEXT);
  assert.deepEqual(spec, {
    name: "db",
    network: "site",
    ports: [parsePortRange("5432")],
    backends: [{
      host: parseIpv4("192.168.1.5"),
      network: "site",
      serves: parsePortRange("5432"),
      firstPort: 5432,
      priority: 0,
      weight: 1,
    }],
    check: DEFAULT_CHECK,
    priority: 0,
    weight: 1,
    subnets: [],
    allowLocal: false,
    state: "active",
  });
});

for (
  const [what, input, mapping] of [
    ["one range: every target serves it", { to: ["10.0.0.1:8080", "10.0.0.2:80"], port: ["80"] }, "80>8080 80>80"],
    ["several targets of several ports", { to: ["10.0.0.1:80", "10.0.0.1:443", "10.0.0.2:80"] }, "80>80 443>443 80>80"],
    ["told ports, paired as they come", {
      to: ["10.0.0.1:8080", "10.0.0.1:8443", "10.0.0.2:8080"],
      port: ["80,443"],
    }, "80>8080 443>8443 80>8080"],
    [
      "told ports that are the targets' own, in another order",
      { to: ["10.0.0.1:443", "10.0.0.1:80"], port: ["80", "443"] },
      "443>443 80>80",
    ],
    [
      "one range of each protocol",
      { to: ["10.0.0.1:5060", "10.0.0.1:5061/udp"], port: ["5060,5060/udp"] },
      "5060>5060 5060/udp>5061",
    ],
    [
      "ranges keep their length",
      { to: ["10.0.0.1:20000-29999/udp"], port: ["10000-19999/udp"] },
      "10000-19999/udp>20000",
    ],
  ] as const satisfies readonly (readonly [string, Omit<ImportInput, "name">, string])[]
) {
  Deno.test(`parseImport() maps ports: ${what}`, () => {
    const { backends } = parseImport({ name: "a", ...input }, CONTEXT);
    assert.equal(backends.map(({ serves, firstPort }) => `${formatPortRange(serves)}>${firstPort}`).join(" "), mapping);
  });
}

Deno.test("a container is in the mesh, other names where they are told to be", () => {
  const { backends } = parseImport({
    name: "a",
    to: ["A1.weave.local.:80", "db.example.com:80", "db.example.com:80,network=host"],
    network: "site",
  }, CONTEXT);
  assert.deepEqual(backends.map(({ host, network }) => `${host} ${network}`), [
    "a1.weave.local weave",
    "db.example.com site",
    "db.example.com host",
  ]);
});

for (
  const [input, message] of [
    [{ to: [] }, "Cannot tell where the service is: --to HOST:PORT is missing"],
    [
      { to: ["10.0.0.1"] },
      'Cannot use "10.0.0.1" as target: HOST:PORT[-PORT][/udp] is expected, such as 192.168.1.5:5432',
    ],
    [{ to: ["10.0.0.1:0"] }, /^Cannot use "10\.0\.0\.1:0" as target: HOST/],
    [{ to: ["10.0.0.1:80-70"] }, /^Cannot use "10\.0\.0\.1:80-70" as target: HOST/],
    [{ to: ["10.0.0.256:80"] }, /^Cannot use "10\.0\.0\.256:80" as target: HOST/],
    [{ to: ["224.0.0.1:80"] }, /^Cannot use "224\.0\.0\.1:80" as target: HOST/],
    [{ to: ["[fd00::1]:80"] }, /^Cannot use "\[fd00::1\]:80" as target: HOST/],
    [{ to: ["a b:80"] }, /as target: HOST/],
    [{ to: ["10.0.0.1:80,speed=9"] }, /^Cannot use "speed=9" of target "10\.0\.0\.1:80,speed=9": priority=N/],
    [
      { to: ["10.0.0.1:80,weight=0"] },
      'Cannot use "0" as weight of a target: a number from 1 to 256 is expected',
    ],
    [{ to: ["10.0.0.1:80", "10.0.0.1:80,weight=2"] }, 'Cannot use target "10.0.0.1:80" twice'],
    [{ to: ["10.0.0.1:80"], port: ["http"] }, /^Cannot use "http" as port: P/],
    [{ to: ["10.0.0.1:80"], port: ["80,80-90"] }, "Cannot use ports 80 and 80-90 together: they overlap"],
    [{ to: ["10.0.0.1:80-90"], port: ["80"] }, /it has 11 ports, 1 are expected$/],
    [{ to: ["10.0.0.1:80"], port: ["80,443"] }, "Cannot offer port 443: no target serves it"],
    [
      { to: ["10.0.0.1:81"], port: ["80,443"] },
      `Cannot tell which of the service's ports 80, 443 target "10.0.0.1:81" serves`,
    ],
    [{ to: ["10.0.0.1:80/udp"], port: ["80"] }, /^Cannot tell which of the service's ports 80 target/],
    [{ to: ["10.0.0.1:80"], network: "attic" }, /^Cannot find network "attic": there are "host", "weave", "site"/],
    [{ to: ["10.0.0.1:80"], network: "../etc" }, /^Cannot use "\.\.\/etc" as name of a network/],
    [
      { to: ["a1.weave.local:80,network=site"] },
      'Cannot use "a1.weave.local" in network "site": containers are in the mesh',
    ],
    [{ to: ["10.0.0.1:80"], priority: "-1" }, 'Cannot use "-1" as priority: a number from 0 to 255 is expected'],
    [{ to: ["10.0.0.1:80"], weight: "1e2" }, 'Cannot use "1e2" as weight: a number from 1 to 256 is expected'],
    [{ to: ["10.0.0.1:80"], subnets: ["10.32.0.0/33"] }, /^Cannot use "10\.32\.0\.0\/33" as subnet/],
    [
      { to: ["10.0.0.1:80"], subnets: ["10.32.0.1"] },
      'Cannot offer it in "10.32.0.1/32": a subnet with room for hosts is expected',
    ],
    [{ to: ["10.0.0.1:53/udp"], check: "tcp" }, "Cannot check by tcp: the service has no port of TCP"],
    [
      { to: ["127.0.0.1:80"] },
      'Cannot use "127.0.0.1" as target: 127.0.0.1 is a loopback address, which only --allow-local allows',
    ],
    [{ to: ["localhost:80"] }, /^Cannot use "localhost" as target: it is this host itself/],
    [{ to: ["169.254.1.1:80"] }, /is a link-local address/],
    [{ to: ["169.254.169.254:80"] }, /is the metadata service of clouds/],
    [{ to: ["192.0.2.1:80"] }, /is an address of this gateway itself/],
    [{ to: Array.from({ length: 65 }, (_, i) => `10.0.0.${i}:80`) }, "Cannot use 65 targets: at most 64 may be"],
  ] as const
) {
  Deno.test(`parseImport() refuses ${JSON.stringify(input).slice(0, 80)}`, () => {
    assert.throws(() => parseImport({ name: "a", ...input }, CONTEXT), (error) => {
      assert.ok(error instanceof SpecError);
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      assert.ok(!error.message.includes("\n"));
      return true;
    });
  });
}

Deno.test("what is local is allowed by saying so, and an address of another network's is nobody's own", () => {
  const to = ["127.0.0.1:80", "169.254.169.254:80", "192.0.2.1:80", "localhost:80"];
  assert.equal(parseImport({ name: "a", to, allowLocal: true }, CONTEXT).backends.length, 4);
  parseImport({ name: "a", to: ["192.0.2.1:80"], network: "site" }, CONTEXT);
});

Deno.test("refusedBackend() says what an address is", () => {
  assert.equal(refusedBackend(parseIpv4("10.0.0.1")!, []), undefined);
  assert.match(refusedBackend(parseIpv4("127.8.8.8")!, [])!, /^127\.8\.8\.8 is a loopback address/);
  assert.match(refusedBackend(parseIpv4("100.100.100.200")!, [])!, /metadata/);
  assert.match(refusedBackend(0, [])!, /no address of a single host/);
  assert.match(refusedBackend(0xffff_ffff, [])!, /no address of a single host/);
  assert.match(refusedBackend(parseIpv4("10.0.0.1")!, [parseIpv4("10.0.0.1")!])!, /this gateway itself/);
});

Deno.test("rebind() moves a service, keeps its ports, and makes it active again", () => {
  const spec = parseImport({ name: "a", to: ["10.0.0.1:8080"], port: ["80"], state: "revoked" }, CONTEXT);
  const moved = rebind(spec, ["10.0.0.2:9090"], CONTEXT);
  assert.equal(moved.state, "active");
  assert.deepEqual(moved.ports, spec.ports);
  assert.equal(formatBackend(moved.backends[0]!, "host"), "10.0.0.2:9090");
  assert.throws(() => rebind(spec, ["10.0.0.2:9090-9091"], CONTEXT), /it has 2 ports, 1 are expected$/);
  assert.throws(() => rebind(spec, ["127.0.0.1:80"], CONTEXT), /loopback/);
});

Deno.test("checkServiceName() takes one label of DNS", () => {
  assert.equal(checkServiceName("Web-1"), "web-1");
  for (const bad of ["", "-a", "a-", "a.b", "a_b", "ä", "a".repeat(64), "a b", "a\n", "../a"]) {
    assert.throws(() => checkServiceName(bad), /^OptionError: Cannot use "[^\n]*" as name of a service/);
  }
});

for (
  const [text, expected] of [
    ["tcp", {}],
    ["none", { kind: "none" }],
    ["http:/healthz?a=1,b=2", { kind: "http", payload: "/healthz?a=1,b=2" }],
    ["udp:ping,pong,interval=2s", { kind: "udp", payload: "ping,pong", intervalMs: 2_000, timeoutMs: 1_600 }],
    ["tcp,interval=500ms,rise=3,fall=1", { intervalMs: 500, timeoutMs: 400, rise: 3, fall: 1 }],
    ["http:/,interval=10,timeout=2.5s", { kind: "http", payload: "/", intervalMs: 10_000, timeoutMs: 2_500 }],
    ["tcp,interval=1m", { intervalMs: 60_000, timeoutMs: 5_000 }],
  ] as const
) {
  Deno.test(`parseCheck() understands ${text}`, () => {
    const check = parseCheck(text);
    assert.deepEqual(check, { ...DEFAULT_CHECK, ...expected });
    assert.deepEqual(parseCheck(formatCheck(check)), check);
  });
}

for (
  const text of [
    "",
    "icmp",
    "tcp:80",
    "none:x",
    "http",
    "http:healthz",
    "http:/a b",
    "http:/a\r\nHost: x",
    "udp",
    "udp:",
    "tcp,interval=0",
    "tcp,interval=1h",
    "tcp,interval=2h",
    "tcp,timeout=2s",
    "tcp,rise=0",
    "tcp,fall=x",
    "tcp,speed=3",
    `udp:${"x".repeat(513)}`,
  ]
) {
  Deno.test(`parseCheck() refuses ${JSON.stringify(text).slice(0, 40)}`, () => {
    assert.throws(() => parseCheck(text), SpecError);
  });
}

Deno.test("parseExport() reads names, ports and where to listen", () => {
  const spec = parseExport({ name: "web:80", listen: "192.168.1.100:8080", network: "site", dns: true }, CONTEXT);
  assert.deepEqual(spec, {
    name: "web",
    port: 80,
    network: "site",
    listen: { address: parseIpv4("192.168.1.100"), ports: parsePortRange("8080") },
    allow: undefined,
    dns: true,
    force: false,
  });
  const container = parseExport(
    { name: "A1.weave.local:4422", listen: "2211", allow: ["10.0.0.0/8,192.0.2.7"] },
    CONTEXT,
  );
  assert.equal(container.name, "a1.weave.local");
  assert.deepEqual(container.allow, [parseCidr("10.0.0.0/8"), parseCidr("192.0.2.7/32")]);
  assert.deepEqual(container.listen, { address: "own", ports: parsePortRange("2211") });
});

for (
  const [input, message] of [
    [
      { name: "a.example.com", listen: "80" },
      /^Cannot export "a\.example\.com": the name of a service, or of a container/,
    ],
    [{ name: "web:0", listen: "80" }, /as port of the service/],
    [{ name: "web", listen: "80,81" }, /^Cannot listen at "80,81"/],
    [{ name: "web", listen: "eth0:80" }, /^Cannot listen at "eth0:80"/],
    [{ name: "web", listen: "127.0.0.1:80" }, /a loopback address, which no other machine can reach$/],
    [{ name: "web", listen: "224.0.0.5:80" }, /^Cannot listen at/],
    [{ name: "web", listen: "80", network: "weave" }, /^Cannot export to network "weave"/],
    [{ name: "web", listen: "80", allow: ["everybody"] }, /^Cannot use "everybody" as subnet/],
  ] as const
) {
  Deno.test(`parseExport() refuses ${JSON.stringify(input)}`, () => {
    assert.throws(
      () => parseExport(input, CONTEXT),
      (error: Error) => error instanceof SpecError && message.test(error.message),
    );
  });
}

Deno.test("refusedListen() protects the administrator and what the host listens on", () => {
  const refused = (text: string, listening: readonly string[] = []) =>
    refusedListen(parseListen(text), listening.map((range) => parsePortRange(range)!));
  assert.match(refused("22")!, /port 22 is how administrators get in; --force/);
  assert.match(refused("20-30")!, /port 22/);
  assert.match(refused("6783/udp")!, /the router's own/);
  assert.match(refused("8080", ["8000-9000"])!, /the host itself listens on port 8000-9000/);
  assert.equal(refused("8080", ["8080/udp"]), undefined);
  assert.equal(refused("6785", ["22"]), undefined);
});

Deno.test("exportedPorts() finds the ports that an export offers", () => {
  const ports = ["80", "8000-8009", "53/udp"].map((text) => parsePortRange(text)!);
  const offered = (name: string, listen: string) => {
    const found = exportedPorts(parseExport({ name, listen }, CONTEXT), ports);
    return found && formatPortRange(found);
  };
  assert.equal(offered("a:80", "1234"), "80");
  assert.equal(offered("a:8003", "9000-9002"), "8003-8005");
  assert.equal(offered("a:8008", "9000-9002"), undefined);
  assert.equal(offered("a", "5353/udp"), "53/udp");
  assert.equal(offered("a", "1234"), undefined, "there are two ranges of TCP");
  assert.equal(offered("a:53", "1234"), undefined);
});

Deno.test("checkNetworkSpec() refuses what is no network of a site's", () => {
  const check = (name: string, interfaces: readonly string[]) =>
    checkNetworkSpec({ name, interfaces, isolated: false });
  check("site", ["eth1", "eth2.5"]);
  for (
    const [name, interfaces, message] of [
      ["host", ["eth1"], /always there/],
      ["weave", ["eth1"], /always there/],
      ["Site", ["eth1"], /lower-case/],
      ["site", [], /no interface/],
      ["site", ["lo"], /none of a site's/],
      ["site", ["weave"], /none of a site's/],
      ["site", ["eth1", "eth1"], /twice/],
      ["site", ["a/b"], /a name such as eth1/],
      ["site", ["a".repeat(16)], /a name such as eth1/],
    ] as const
  ) assert.throws(() => check(name, interfaces), message);
});

Deno.test("what is refused is told in one line, whatever it has in it", () => {
  assert.throws(
    () => checkServiceName("a\nb\u2028c\u009b"),
    /Cannot use "a\\u000ab\\u2028c\\u009b" as name/,
  );
});

Deno.test("whatever people type ends in a value or in one line", () => {
  const word = fc.oneof(
    fc.string(),
    fc.constantFrom(
      "10.0.0.1",
      "a.weave.local",
      "80",
      "80-90",
      "/udp",
      ":",
      ",",
      "=",
      "weight=2",
      "tcp",
      "http:/",
      "0",
    ),
  );
  const words = fc.array(word, { maxLength: 4 }).map((parts) => parts.join(""));
  fc.assert(
    fc.property(fc.array(words, { maxLength: 3 }), words, words, words, (to, port, check, name) => {
      for (
        const work of [
          () => parseImport({ name, to, port: [port], check, subnets: [port] }, CONTEXT),
          () => parseExport({ name, listen: port, allow: [check] }, CONTEXT),
          () => parseTarget(name),
          () => checkNetworkSpec({ name, interfaces: to, isolated: true }),
        ]
      ) {
        try {
          work();
        } catch (error) {
          if (!(error instanceof SpecError)) throw error;
          assert.ok(!/[\n\r]/.test(error.message));
        }
      }
    }),
    { numRuns: 500 },
  );
});
