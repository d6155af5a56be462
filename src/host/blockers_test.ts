import assert from "node:assert/strict";
import { join } from "node:path";
import { parseIpv4 } from "../lib/ip.ts";
import { type FilterTable, findBlocker, type Flow, readIptables, readNft } from "./blockers.ts";
import type { NftObject } from "./nft.ts";

/** As ufw 0.36.2 and firewalld 1.3.3 make them, of Debian. */
const FIXTURES = join(import.meta.dirname!, "../../test/fixtures/firewalls");
const UFW = Deno.readTextFileSync(join(FIXTURES, "ufw.save"));
const FIREWALLD = nftables(Deno.readTextFileSync(join(FIXTURES, "firewalld.json")));

const OUR_RULE = "-m connmark --mark 0x800000/0x800000 -j ACCEPT";

Deno.test("findBlocker() finds that ufw drops what is forwarded and what is for the host, by policy", () => {
  const ufw = [readIptables(UFW, "ip filter")];
  assert.deepEqual(findBlocker(ufw, FORWARDED), { table: "ip filter", chain: "FORWARD", rule: undefined });
  assert.deepEqual(findBlocker(ufw, LOCAL), { table: "ip filter", chain: "INPUT", rule: undefined });
});

Deno.test("findBlocker() knows our own rule at the top of ufw's chains", () => {
  const opened = UFW.replace("-A INPUT", `-A INPUT ${OUR_RULE}\n-A INPUT`)
    .replace("-A FORWARD", `-A FORWARD ${OUR_RULE}\n-A FORWARD`);
  for (const flow of [FORWARDED, LOCAL]) {
    assert.equal(findBlocker([readIptables(opened, "ip filter")], flow), undefined);
  }
  // Another bit is somebody else's.
  const others = UFW.replace("-A FORWARD", `-A FORWARD -m connmark --mark 0x1/0x1 -j DROP\n-A FORWARD`);
  assert.equal(findBlocker([readIptables(others, "ip filter")], FORWARDED)?.rule, undefined);
});

Deno.test("findBlocker() finds what ufw was told to allow, and to refuse", () => {
  const told = (
    rule: string,
  ) => [readIptables(UFW.replace("COMMIT", `-A ufw-user-forward ${rule}\nCOMMIT`), "ip filter")];
  const rules: readonly (readonly [rule: string, blocked: string | undefined | false])[] = [
    ["-i eth0 -o eth1 -p tcp -m tcp --dport 5432 -j ACCEPT", false],
    ["-d 192.168.7.0/24 -p tcp -m multiport --dports 80,5000:6000 -j ACCEPT", false],
    ["-p tcp -m tcp --dport 5433 -j ACCEPT", undefined],
    ["-p udp -m udp --dport 5432 -j ACCEPT", undefined],
    ["! -d 192.168.7.0/24 -j ACCEPT", undefined],
    ["-d 192.168.7.2/32 -j REJECT --reject-with icmp-port-unreachable", "REJECT"],
    // Of whom it comes nobody knows here: it may be accepted, so nothing is said.
    ["-s 10.0.0.0/8 -j ACCEPT", false],
    // As it may be dropped, which somebody meant so; but by then the policy is sure.
    ["-s 10.0.0.0/8 -j DROP", undefined],
    ["-m set --match-set bad src -j DROP", undefined],
  ];
  for (const [rule, blocked] of rules) {
    const blocker = findBlocker(told(rule), FORWARDED);
    if (blocked === false) assert.equal(blocker, undefined, rule);
    else if (blocked === undefined) assert.deepEqual([blocker?.chain, blocker?.rule], ["FORWARD", undefined], rule);
    else assert.deepEqual([blocker?.chain, blocker?.rule], ["ufw-user-forward", rule], rule);
  }
});

Deno.test("findBlocker() finds that firewalld lets pass what is translated", () => {
  for (const flow of [FORWARDED, LOCAL]) assert.equal(findBlocker(readNft(FIREWALLD), flow), undefined);
});

Deno.test("findBlocker() names the rule by which an older firewalld refuses", () => {
  const isDnat = (object: NftObject) => JSON.stringify(object.rule?.expr ?? "").includes('"dnat"');
  const older = FIREWALLD.filter((object) => !isDnat(object));
  assert.equal(FIREWALLD.length - older.length, 2);
  const forwarded = findBlocker(readNft(older), FORWARDED);
  const handleOf = (chain: string) =>
    older.findLast(({ rule }) => rule?.chain === chain && JSON.stringify(rule.expr).includes("reject"))!.rule!.handle;
  assert.deepEqual(forwarded, {
    table: "inet firewalld",
    chain: "filter_FWD_public",
    rule: `handle ${handleOf("filter_FWD_public")}`,
  });
  assert.equal(findBlocker(readNft(older), LOCAL)?.chain, "filter_IN_public");
});

Deno.test("findBlocker() reads conditions of nftables, and says nothing where it is not sure", () => {
  const match = (left: unknown, right: unknown, op = "==") => ({ match: { op, left, right } });
  const port = { payload: { protocol: "tcp", field: "dport" } };
  const daddr = { payload: { protocol: "ip", field: "daddr" } };
  const accept = { accept: null };
  const cases: readonly (readonly [expr: readonly unknown[], passes: boolean])[] = [
    [[accept], true],
    [[match(port, 5432), accept], true],
    [[match(port, { set: [80, { range: [5000, 6000] }] }), accept], true],
    [[match(port, 80), accept], false],
    [[match(port, 80, "!="), accept], true],
    [[match(daddr, { prefix: { addr: "192.168.7.0", len: 24 } }), { counter: null }, accept], true],
    [[match(daddr, "192.168.7.3"), accept], false],
    [[match({ meta: { key: "iifname" } }, "eth0"), match({ meta: { key: "oifname" } }, "eth*"), accept], true],
    [[match({ meta: { key: "iifname" } }, "eth1"), accept], false],
    [[match({ ct: { key: "state" } }, ["established", "related"], "in"), accept], false],
    [[match({ ct: { key: "state" } }, ["new", "established"], "in"), accept], true],
    [[match({ "&": [{ ct: { key: "mark" } }, 0x800000] }, 0, "!="), accept], true],
    [[match({ "&": [{ ct: { key: "mark" } }, 0x800000] }, 0x800000), accept], true],
    [[match({ ct: { key: "mark" } }, 7), accept], true],
    [[match({ payload: { protocol: "ip6", field: "daddr" } }, "::1"), accept], false],
    [[match({ payload: { protocol: "udp", field: "dport" } }, 5432), accept], false],
    [[{ xt: { type: "match", name: "something" } }, accept], true],
    [[match({ payload: { protocol: "ip", field: "saddr" } }, "@friends"), accept], true],
    [[match({ payload: { protocol: "ip", field: "saddr" } }, "@friends"), { drop: null }], false],
    [[{ vmap: { key: {}, data: {} } }], true],
    [[{ jump: { target: "empty" } }], false],
    [[{ jump: { target: "gone" } }], true],
  ];
  for (const [expr, passes] of cases) {
    const table = { family: "inet", table: "filter" };
    const objects = [
      { chain: { ...table, name: "f", type: "filter", hook: "forward", policy: "drop" } },
      { chain: { ...table, name: "empty" } },
      { rule: { ...table, chain: "f", handle: 3, expr } },
    ] as unknown as NftObject[];
    const blocker = findBlocker(readNft(objects), FORWARDED);
    assert.deepEqual(
      blocker,
      passes ? undefined : { table: "inet filter", chain: "f", rule: undefined },
      JSON.stringify(expr),
    );
  }
});

Deno.test("findBlocker() comes to an end where chains call each other, and does not judge our own table", () => {
  const loop: FilterTable[] = [readIptables(
    "*filter\n:FORWARD DROP [0:0]\n:A - [0:0]\n-A FORWARD -j A\n-A A -j A\nCOMMIT\n",
    "ip filter",
  )];
  assert.equal(findBlocker(loop, FORWARDED), undefined);
  const chain = { family: "ip", table: "weave-services", name: "f", type: "filter", hook: "forward", policy: "drop" };
  assert.deepEqual(readNft([{ chain }]), []);
});

const FORWARDED: Flow = {
  hook: "forward",
  from: "eth0",
  to: "eth1",
  protocol: "tcp",
  address: parseIpv4("192.168.7.2")!,
  port: 5432,
};

const LOCAL: Flow = { ...FORWARDED, hook: "input", to: undefined, address: parseIpv4("127.53.2.1")! };

function nftables(text: string): NftObject[] {
  return (JSON.parse(text) as { nftables: NftObject[] }).nftables;
}
