import assert from "node:assert/strict";
import { lonelyReport, OURS } from "../../test/example_report.ts";
import type { IpamStatus } from "../ipam/status.ts";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import { parsePeerName } from "../lib/mac.ts";
import { makeIpamReport } from "./ipam_report.ts";
import { formatMetrics } from "./metrics.ts";
import { type Report, REPORT_VIEWS } from "./status.ts";

const US = parsePeerName(OURS.Name)!;
const BETA = parsePeerName("02:bb:00:00:00:02")!;
const GAMMA = parsePeerName("02:cc:00:00:00:03")!;

const IDLE: IpamStatus = {
  range: parseCidr("10.32.0.0/24")!,
  size: 256,
  active: 0,
  election: undefined,
  entries: [],
  pendingClaims: [],
  pendingAllocations: [],
  conflicts: [],
  contests: [],
  reclaim: undefined,
};

const ENTRIES: IpamStatus["entries"] = [
  entry("10.32.0.0", 64, US, "host1", true, 3),
  entry("10.32.0.64", 64, GAMMA, "gamma", false, 7),
  entry("10.32.0.128", 100, BETA, "beta", true, 1),
  entry("10.32.0.228", 28, US, "host1", true, 0),
];

function entry(
  token: string,
  size: number,
  peer: typeof US,
  nickname: string,
  inReach: boolean,
  version: number,
): IpamStatus["entries"][number] {
  return { token: parseIpv4(token)!, size, peer, nickname, inReach, version };
}

function reportOf(status: Partial<IpamStatus>, warnings: readonly string[] = []): Report {
  const defaultSubnet = parseCidr("10.32.0.0/25")!;
  const IPAM = makeIpamReport({ status: { ...IDLE, ...status }, ourName: US, defaultSubnet, warnings });
  return { ...lonelyReport(), IPAM };
}

function statusLine(status: Partial<IpamStatus>): string {
  const text = REPORT_VIEWS.text("main", reportOf(status));
  return /Service: ipam\n +Status: (.*)\n/.exec(text)![1]!;
}

Deno.test("the main view says how it stands with addresses, in Weave Net's words", () => {
  const pending = [{ id: "c1", subnet: IDLE.range, isContainer: true }];
  assert.equal(statusLine({}), "idle");
  assert.equal(
    statusLine({ election: { elector: true, knownNodes: 1, quorum: 2 } }),
    "awaiting consensus (quorum: 2, known: 1)",
  );
  assert.equal(statusLine({ election: { elector: false, knownNodes: 0, quorum: 0 } }), "priming");
  assert.equal(statusLine({ entries: ENTRIES }), "ready");
  assert.equal(
    statusLine({ entries: ENTRIES, pendingAllocations: pending }),
    "waiting for IP(s) to become available",
  );
  assert.equal(
    statusLine({ entries: ENTRIES.filter(({ inReach }) => !inReach), pendingAllocations: pending }),
    "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead",
  );
});

Deno.test("the main view has the block of Weave Net, and warnings after it", () => {
  const status = { entries: ENTRIES, conflicts: [{ peer: BETA, reason: "Incompatible IP allocation ranges (…)" }] };
  assert.deepEqual(REPORT_VIEWS.text("main", reportOf(status, ["the disk is full"])).trimEnd().split("\n").slice(-6), [
    "        Service: ipam",
    "         Status: ready",
    "          Range: 10.32.0.0/24",
    "  DefaultSubnet: 10.32.0.0/25",
    "        Warning: Incompatible IP allocation ranges (…)",
    "        Warning: the disk is full",
  ]);
});

Deno.test("the ipam view has Weave Net's columns, ourselves first, and names the command that frees what is stranded", () => {
  assert.equal(REPORT_VIEWS.text("ipam", reportOf({})), "");
  assert.deepEqual(REPORT_VIEWS.text("ipam", reportOf({ entries: ENTRIES, active: 5 })).split("\n"), [
    "ce:31:e0:06:45:1a(host1)                    92 IPs (35.9% of total) (5 active)",
    "02:bb:00:00:00:02(beta)                    100 IPs (39.1% of total) ",
    "02:cc:00:00:00:03(gamma)                    64 IPs (25.0% of total) - unreachable!",
    "   stranded  64 IPs (25.0% of total) of 02:cc:00:00:00:03(gamma); if it is dead, 'weave rmpeer 02:cc:00:00:00:03' frees them",
    "",
  ]);
});

Deno.test("the ipam view says whether what is stranded comes back by itself", () => {
  const stranded = (reclaim: Partial<NonNullable<IpamStatus["reclaim"]>>, reclaimable = true) => {
    const absent = [{ peer: GAMMA, forMs: 3_700_000, reclaimable }];
    const whole = { afterMs: 86_400_000, majority: true, fenced: false, absent, ...reclaim };
    return REPORT_VIEWS.text("ipam", reportOf({ entries: ENTRIES, reclaim: whole })).split("\n")[3]!.split(
      "frees them",
    )[1];
  };
  assert.equal(stranded({}), "; missed for 1h1m, taken over after 24h0m");
  assert.equal(stranded({}, false), "; it has no --ipalloc-reclaim, and is not taken over");
  assert.equal(stranded({ majority: false }), "; not taken over, as no majority of the owners is reachable");
  assert.equal(stranded({ absent: [] }), "");
});

Deno.test("addresses that are held twice, and peers that do not fit, are shown in all views", () => {
  const status: Partial<IpamStatus> = {
    entries: ENTRIES,
    conflicts: [{ peer: GAMMA, reason: "IP allocation was seeded by different peers (received: [x], ours: [y])" }],
    contests: [
      { id: "c1", cidr: "10.32.0.130/24", owner: BETA, heldTwice: true },
      { id: "c2", cidr: "10.32.0.131/24", owner: BETA, heldTwice: false },
    ],
  };
  const ipam = REPORT_VIEWS.text("ipam", reportOf(status));
  assert.match(
    ipam,
    /^ {3}twice {5}10\.32\.0\.130\/24 of c1: 02:bb:\S+\(beta\) owns it, and has given it to another one$/m,
  );
  assert.match(ipam, /^ {3}contested 10\.32\.0\.131\/24 of c2: 02:bb:\S+\(beta\) owns it$/m);
  assert.match(ipam, /^ {3}warning {3}02:cc:00:00:00:03: IP allocation was seeded by different peers/m);
  assert.match(
    REPORT_VIEWS.text("connections", reportOf(status)),
    /^ {3}warning {3}02:cc:\S+: IP allocation was seeded/m,
  );
  const main = REPORT_VIEWS.text("main", reportOf(status));
  assert.match(main, /Warning: IP allocation was seeded by different peers \(received: \[x\], ours: \[y\]\)$/m);
  assert.match(main, /Warning: Address 10\.32\.0\.130\/24 of c1 is held twice: 02:bb:\S+\(beta\)/);
  assert.doesNotMatch(main, /10\.32\.0\.131/);
  const waiting = reportOf({ election: { elector: true, knownNodes: 1, quorum: 3 } });
  assert.match(
    REPORT_VIEWS.text("connections", waiting),
    /^ {3}hint {6}no agreement on addresses yet: 3 peers are needed, 1 known$/m,
  );
});

Deno.test("a router that others may have taken over says so", () => {
  const reclaim = { afterMs: 86_400_000, majority: false, fenced: true, absent: [] };
  assert.match(
    REPORT_VIEWS.text("main", reportOf({ entries: ENTRIES, reclaim })),
    /Warning: No addresses are given out/,
  );
});

Deno.test("the report has the fields of Weave Net, null for empty lists, and ours after them", () => {
  const status: Partial<IpamStatus> = {
    entries: ENTRIES.slice(0, 1),
    pendingClaims: [{ id: "c1", cidr: parseCidr("10.32.0.9/24")! }],
    pendingAllocations: [{ id: "c2", subnet: parseCidr("10.32.0.0/25")!, isContainer: false }],
  };
  const { IPAM } = JSON.parse(REPORT_VIEWS.report(reportOf(status)));
  const { Owners: _o, Conflicts: _c, Contested: _t, Reclaim: _r, Warnings: _w, ...weave } = IPAM;
  assert.deepEqual(weave, {
    Paxos: null,
    Range: "10.32.0.0/24",
    RangeNumIPs: 256,
    ActiveIPs: 0,
    DefaultSubnet: "10.32.0.0/25",
    Entries: [{ Token: "10.32.0.0", Size: 64, Peer: OURS.Name, Nickname: "host1", IsKnownPeer: true, Version: 3 }],
    PendingClaims: [{ Ident: "c1", CIDR: { Addr: "10.32.0.9", PrefixLen: 24 } }],
    PendingAllocates: ["c2 10.32.0.0/25"],
  });
  assert.equal(JSON.parse(REPORT_VIEWS.report(reportOf({}))).IPAM.Entries, null);
  assert.deepEqual(JSON.parse(REPORT_VIEWS.json("ipam", reportOf({}))).Range, "10.32.0.0/24");
  assert.equal(JSON.parse(REPORT_VIEWS.json("main", reportOf({}))).IPAM.Status, "idle");
  const result = REPORT_VIEWS.template("{{.IPAM.DefaultSubnet}} {{len .IPAM.Entries}}", reportOf(status));
  assert.deepEqual(result, { ok: true, text: "10.32.0.0/25 1" });
});

Deno.test("formatMetrics() has Weave Net's metrics of addresses, and none where there is no allocator", () => {
  const process = {
    residentOctets: 1,
    virtualOctets: 1,
    cpuSeconds: 1,
    openFds: 1,
    maxFds: 1,
    threads: 1,
    startSeconds: 1,
  };
  const status: Partial<IpamStatus> = {
    entries: ENTRIES,
    active: 5,
    pendingAllocations: [{ id: "c2", subnet: IDLE.range, isContainer: false }],
    contests: [{ id: "c1", cidr: "10.32.0.130/24", owner: BETA, heldTwice: true }],
  };
  const text = formatMetrics(reportOf(status), process);
  for (
    const line of [
      'weave_ips{state="local-used"} 5',
      "weave_max_ips 256",
      "weave_ipam_unreachable_count 1",
      "weave_ipam_unreachable_percentage 25",
      "weave_ipam_pending_allocates 1",
      "weave_ipam_pending_claims 0",
      "weave_ipam_held_twice 1",
    ]
  ) assert.ok(text.includes(`\n${line}\n`), line);
  assert.doesNotMatch(formatMetrics(lonelyReport(), process), /weave_ip|weave_max_ips/);
});
