import assert from "node:assert/strict";
import { OptionError } from "../lib/errors.ts";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import { type Given, toArguments, withEnvironment } from "./option.ts";
import * as options from "./options.ts";
import { laterGiven, LAUNCH, ROUTER, routerOptions, type Surroundings } from "./options.ts";

const AROUND: Surroundings = { env: () => undefined, hostname: () => "host1" };

Deno.test("routerOptions() has Weave Net's defaults where nothing is given", () => {
  const loopback = (port: number) => ({ transport: "tcp", hostname: "127.0.0.1", port });
  const { proxy, plugin, ...rest } = routerOptions(new Map(), [], AROUND);
  assert.deepEqual([plugin?.driver?.name, plugin?.meshDriver?.name], ["weave", "weavemesh"]);
  assert.ok(proxy?.rewriteHosts);
  assert.deepEqual(rest, {
    name: undefined,
    nickname: "host1",
    port: 6783,
    host: undefined,
    password: undefined,
    targets: [],
    resume: false,
    discovery: true,
    connLimit: 200,
    trustedSubnets: [],
    minProtocolVersion: 2,
    mtu: undefined,
    noFastdp: false,
    httpAddr: loopback(6784),
    statusAddr: loopback(6782),
    metricsAddr: undefined,
    dbPrefix: "/var/lib/weave/weave",
    dockerBridge: "docker0",
    dockerBridgeIp: undefined,
    ipam: {
      range: parseCidr("10.32.0.0/12"),
      rangeGiven: false,
      defaultSubnet: parseCidr("10.32.0.0/12"),
      init: { mode: "consensus", peers: undefined },
      reclaimMs: undefined,
    },
    noDns: false,
    dnsListenAddress: undefined,
    dnsDomain: "weave.local.",
    dnsTtl: 1,
    dnsFallbackTimeoutMs: 5_000,
    dnsGraceMs: 60_000,
    resolvConf: "/etc/resolv.conf",
    networks: [],
    logLevel: "info",
    logFormat: "text",
    testIdentity: undefined,
    testSpin: false,
  });
});

const READ: readonly [flag: string, text: string, name: keyof options.RouterOptions, value: unknown][] = [
  ["name", "::1", "name", 1],
  ["name", "6E:23:66:a4:8c:09", "name", 0x6e2366a48c09],
  ["nickname", "x y", "nickname", "x y"],
  ["port", "65535", "port", 65535],
  ["host", "10.0.0.1", "host", parseIpv4("10.0.0.1")],
  ["password", "", "password", undefined],
  ["password", "p", "password", "p"],
  ["resume", "true", "resume", true],
  ["resume", "false", "resume", false],
  ["no-discovery", "T", "discovery", false],
  ["conn-limit", "0", "connLimit", 0],
  ["trusted-subnets", "", "trustedSubnets", []],
  ["trusted-subnets", "10.1.2.3/16, 10.2.0.0/16", "trustedSubnets", [
    parseCidr("10.1.0.0/16"),
    parseCidr("10.2.0.0/16"),
  ]],
  ["mtu", "8900", "mtu", 8900],
  ["http-addr", "", "httpAddr", undefined],
  ["http-addr", "/run/weave.sock", "httpAddr", { transport: "unix", path: "/run/weave.sock" }],
  ["status-addr", ":6782", "statusAddr", { transport: "tcp", hostname: "0.0.0.0", port: 6782 }],
  ["metrics-addr", "localhost:1", "metricsAddr", { transport: "tcp", hostname: "localhost", port: 1 }],
  ["db-prefix", "/a/../b/c", "dbPrefix", "/b/c"],
  ["docker-bridge-ip", "172.17.0.1", "dockerBridgeIp", parseIpv4("172.17.0.1")],
  ["log-level", "warning", "logLevel", "warn"],
  ["log-level", "trace", "logLevel", "trace"],
  ["log-format", "json", "logFormat", "json"],
  ["min-protocol-version", "1", "minProtocolVersion", 1],
  ["no-dns", "true", "noDns", true],
  ["dns-listen-address", "10.0.0.1:5353", "dnsListenAddress", { address: parseIpv4("10.0.0.1"), port: 5353 }],
  ["dns-listen-address", "10.0.0.1", "dnsListenAddress", { address: parseIpv4("10.0.0.1"), port: 53 }],
  ["dns-listen-address", ":53", "dnsListenAddress", { address: 0, port: 53 }],
  ["dns-domain", "Example.com", "dnsDomain", "Example.com."],
  ["dns-domain", "example.com.", "dnsDomain", "example.com."],
  ["dns-ttl", "0", "dnsTtl", 0],
  ["dns-fallback-timeout", "1m30s", "dnsFallbackTimeoutMs", 90_000],
  ["dns-fallback-timeout", "0.5s", "dnsFallbackTimeoutMs", 500],
  ["dns-fallback-timeout", "250ms", "dnsFallbackTimeoutMs", 250],
  ["dns-grace", "30", "dnsGraceMs", 30_000],
  ["resolv-conf", "/run/../etc/r", "resolvConf", "/etc/r"],
  ["resolv-conf", "", "resolvConf", ""],
];

for (const [flag, text, name, value] of READ) {
  Deno.test(`routerOptions() reads --${flag} "${text}"`, () => {
    assert.deepEqual(routerOptions(new Map([[flag, [text]]]), [], AROUND)[name], value);
  });
}

const REFUSED: readonly [flag: string, text: string][] = [
  ["name", "host1"],
  ["port", "0"],
  ["port", "65536"],
  ["port", "-1"],
  ["port", "6783x"],
  ["port", ""],
  ["host", "localhost"],
  ["host", "010.0.0.1"],
  ["conn-limit", "1.5"],
  ["conn-limit", "99999999999"],
  ["resume", "yes"],
  ["trusted-subnets", "10.0.0.0/40"],
  ["trusted-subnets", "10.0.0.0/8,10.0.0.1"],
  ["mtu", "60"],
  ["http-addr", "6784"],
  ["http-addr", "example.com:80"],
  ["http-addr", "127.0.0.1:0"],
  ["http-addr", "run/weave.sock"],
  ["log-level", "toString"],
  ["log-format", "xml"],
  ["min-protocol-version", "3"],
  ["dns-listen-address", "10.0.0.1:0"],
  ["dns-listen-address", "localhost:53"],
  ["dns-domain", "."],
  ["dns-domain", "a..b"],
  ["dns-domain", "-a.b"],
  ["dns-ttl", "1s"],
  ["dns-fallback-timeout", "5 s"],
  ["dns-grace", "1y"],
  ["dns-grace", "800h"],
];

for (const [flag, text] of REFUSED) {
  Deno.test(`routerOptions() refuses --${flag} "${text}"`, () => {
    const refused = text.split(",").at(-1)!;
    assert.throws(() => routerOptions(new Map([[flag, [text]]]), [], AROUND), (error) => {
      assert.ok(error instanceof OptionError);
      assert.equal(error.option, flag);
      assert.ok(error.message.startsWith(`Cannot use "${refused}" as ${flag}: `), error.message);
      return true;
    });
  });
}

Deno.test("routerOptions() takes the last of several", () => {
  assert.equal(routerOptions(new Map([["port", ["1", "2"]]]), [], AROUND).port, 2);
});

Deno.test("routerOptions() refuses peers together with --resume", () => {
  const given = new Map([["resume", ["true"]]]);
  assert.throws(
    () => routerOptions(given, ["host1"], AROUND),
    /must not specify an initial peer list in conjunction with --resume/,
  );
});

Deno.test("routerOptions() takes the ids of a recorded router from the environment", () => {
  const json = JSON.stringify({
    uid: "18429543378625361601",
    shortId: 910,
    connectionIds: ["6830725795327261564"],
    privateKeys: ["00ff".repeat(16)],
  });
  const env = (name: string) => name === "WEAVE_TEST_IDENTITY" ? json : undefined;
  assert.deepEqual(routerOptions(new Map(), [], { ...AROUND, env }).testIdentity, {
    uid: 18429543378625361601n,
    shortId: 910,
    connectionIds: [6830725795327261564n],
    privateKeys: [new Uint8Array(32).map((_, i) => i % 2 === 0 ? 0 : 255)],
  });
});

Deno.test("withEnvironment() completes flags, which win", () => {
  const variables: Record<string, string> = {
    WEAVE_PORT: "1",
    WEAVE_MTU: "8900",
    WEAVE_NO_FASTDP: "0",
    WEAVE_PASSWORD: "",
    WEAVE_STATUS_ADDR: "",
    WEAVE_HTTP_ADDR: "",
  };
  const given = withEnvironment(ROUTER, new Map([["port", ["2"]]]), (name) => variables[name]);
  const read = routerOptions(given, [], AROUND);
  assert.equal(read.port, 2);
  assert.equal(read.mtu, 8900);
  assert.equal(read.noFastdp, true, "any text switches it on, as in Weave Net");
  assert.equal(read.password, undefined);
  assert.equal(read.statusAddr, undefined, "an empty variable switches it off");
  assert.deepEqual(read.httpAddr, { transport: "tcp", hostname: "127.0.0.1", port: 6784 });
});

Deno.test("toArguments() writes what was given", () => {
  const given: Given = new Map([["port", ["1"]], ["resume", ["true"]], ["nickname", ["a b"]], ["proxy-listen", [
    "x",
    "y",
  ]]]);
  assert.deepEqual(toArguments(given), [
    "--port=1",
    "--resume=true",
    "--nickname=a b",
    "--proxy-listen=x",
    "--proxy-listen=y",
  ]);
});

Deno.test("laterGiven() names flags of parts to come, but none that switches them off", () => {
  const silent: Given = new Map([["awsvpc", ["false"]], ["port", ["1"]]]);
  assert.deepEqual(laterGiven(silent), []);
  const given: Given = new Map([["token", ["x"]], ["awsvpc", ["true"]]]);
  assert.deepEqual(laterGiven(given), ["--token", "--awsvpc"]);
});

Deno.test("options of one command have spellings of their own", () => {
  const all = Object.values({ ...ROUTER, ...LAUNCH, ...options.LATER });
  const spellings = all.flatMap(({ flag, aliases }) => [`--${flag}`, ...aliases]);
  assert.deepEqual(spellings.filter((spelling, i) => spellings.indexOf(spelling) !== i), []);
});
