import assert from "node:assert/strict";
import { busyReport, DNS, HOST2, live, lonelyReport } from "../../test/example_report.ts";
import { readProcessStats } from "../host/process_stats.ts";
import { formatMetrics } from "./metrics.ts";
import type { Report } from "./status.ts";

const PROCESS = {
  residentOctets: 50_000_000,
  virtualOctets: 1_000_000_000,
  cpuSeconds: 1.25,
  openFds: 23,
  maxFds: Infinity,
  threads: 6,
  startSeconds: 1795553705.67,
};

Deno.test("formatMetrics() counts connections by state and type, for both values of encryption", () => {
  assert.deepEqual(samples(busyReport(), "weave_connections"), [
    'weave_connections{encryption="",state="connecting",type="unknown"} 1',
    'weave_connections{encryption="",state="established",type="sleeve"} 0',
    'weave_connections{encryption="",state="failed",type="unknown"} 1',
    'weave_connections{encryption="",state="pending",type="sleeve"} 1',
    'weave_connections{encryption="",state="retrying",type="unknown"} 1',
    'weave_connections{encryption="yes",state="connecting",type="unknown"} 0',
    'weave_connections{encryption="yes",state="established",type="sleeve"} 1',
    'weave_connections{encryption="yes",state="failed",type="unknown"} 0',
    'weave_connections{encryption="yes",state="pending",type="sleeve"} 0',
    'weave_connections{encryption="yes",state="retrying",type="unknown"} 0',
  ]);
});

Deno.test("formatMetrics() has zero established connections where there are none", () => {
  assert.deepEqual(samples(lonelyReport(), "weave_connections"), [
    'weave_connections{encryption="",state="established",type="sleeve"} 0',
    'weave_connections{encryption="yes",state="established",type="sleeve"} 0',
  ]);
});

Deno.test("formatMetrics() has drops by reason, totals and the process", () => {
  const report = lonelyReport({
    TerminationCount: 3,
    Drops: { noRoute: 4, queueFull: 0 },
    Totals: { capturedFrames: 12, gsoRefused: 1 },
  });
  const text = formatMetrics(report, PROCESS);
  for (
    const line of [
      "weave_connection_terminations_total 3",
      'weave_build_info{version="0.1.0"} 1',
      'weave_drops_total{reason="noRoute"} 4',
      'weave_drops_total{reason="queueFull"} 0',
      "weave_captured_frames_total 12",
      "weave_gso_refused_total 1",
      "process_resident_memory_bytes 50000000",
      "process_cpu_seconds_total 1.25",
      "process_open_fds 23",
      "process_max_fds +Inf",
      "process_start_time_seconds 1795553705.67",
    ]
  ) assert.ok(text.includes(`\n${line}\n`), line);
  assert.doesNotMatch(text, /weave_ips|weave_dns_entries|weave_ipam/);
});

Deno.test("formatMetrics() has live names of this host, and what came to the DNS server", () => {
  const lines = (report: Report) =>
    formatMetrics(report, PROCESS).split("\n").filter((line) => /^weave_dns/.test(line));
  assert.deepEqual(lines({ ...lonelyReport(), DNS }), [
    "weave_dns_entries 1",
    'weave_dns_events_total{event="queries"} 12',
    'weave_dns_events_total{event="local"} 9',
    "weave_dns_pending 1",
    "weave_dns_suspended_entries 7",
  ]);
  assert.deepEqual(lines(lonelyReport()), []);
});

Deno.test("formatMetrics() adds up two connections to one peer", () => {
  const connection = live(HOST2, {
    Address: "192.0.2.1:6783",
    Outbound: true,
    State: "established",
    Attrs: { name: "sleeve" },
  });
  const report = lonelyReport({ Connections: [connection, connection] });
  assert.deepEqual(samples(report, "weave_peer_octets_total"), [
    'weave_peer_octets_total{direction="received",peer="ea:2d:b2:e6:e4:f5"} 4000',
    'weave_peer_octets_total{direction="sent",peer="ea:2d:b2:e6:e4:f5"} 2000',
  ]);
});

Deno.test("formatMetrics() is well formed: every family once, with help and type before its samples, no sample twice", () => {
  const report = busyReport({ Drops: { noRoute: 4 }, Totals: { capturedFrames: 12 } });
  const lines = formatMetrics({ ...report, Version: 'a"b\\c\nd' }, PROCESS).trimEnd().split("\n");
  const seen = new Set<string>();
  let family = "";
  for (const [i, line] of lines.entries()) {
    const [, help] = /^# HELP ([a-z_]+) \S/.exec(line) ?? [];
    const [, type] = /^# TYPE ([a-z_]+) (?:gauge|counter)$/.exec(line) ?? [];
    if (help !== undefined) {
      family = help;
      assert.ok(lines[i + 1]!.startsWith(`# TYPE ${family} `), line);
    } else if (type === undefined) {
      const [, name, labels] = /^([a-z_]+)(\{(?:[a-z]+="(?:[^"\\]|\\.)*",?)+\})? \S+$/.exec(line) ?? assert.fail(line);
      assert.equal(name, family);
      assert.ok(!seen.has(`${name}${labels}`), line);
      seen.add(`${name}${labels}`);
    }
  }
  assert.equal(
    new Set(lines.filter((line) => line.startsWith("# HELP"))).size,
    lines.filter((line) => line.startsWith("# TYPE")).length,
  );
  assert.ok(lines.includes('weave_build_info{version="a\\"b\\\\c\\nd"} 1'));
});

Deno.test("readProcessStats() finds everything", () => {
  const stats = readProcessStats();
  assert.ok(stats.residentOctets > 10e6 && stats.virtualOctets > stats.residentOctets);
  assert.ok(stats.cpuSeconds > 0 && stats.openFds > 3 && stats.maxFds >= stats.openFds && stats.threads >= 1);
  assert.ok(Math.abs(stats.startSeconds * 1000 + performance.now() - Date.now()) < 5_000);
});

function samples(report: Report, family: string): string[] {
  return formatMetrics(report, PROCESS).split("\n").filter((line) => line.startsWith(`${family}{`));
}
