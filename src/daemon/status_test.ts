import assert from "node:assert/strict";
import { busyReport, DNS, HOST2, HOST3, live, lonelyReport, OURS, target } from "../../test/example_report.ts";
import { failedInfo, liveInfo, type Report, REPORT_VIEWS } from "./status.ts";

Deno.test("text() of the main view has the labels of Weave Net, the colon in column 16", () => {
  assert.equal(
    REPORT_VIEWS.text("main", lonelyReport()),
    `        Version: 0.1.0 (version check update disabled)

        Service: router
       Protocol: weave 2
           Name: ce:31:e0:06:45:1a(host1)
     Encryption: disabled
  PeerDiscovery: enabled
        Targets: 0
    Connections: 0
          Peers: 1
 TrustedSubnets: none
`,
  );
});

Deno.test("text() of the main view counts by state, and says what encrypts", () => {
  assert.equal(
    REPORT_VIEWS.text("main", busyReport({ ProtocolMinVersion: 1, PeerDiscovery: false })),
    `        Version: 0.1.0 (version check update disabled)

        Service: router
       Protocol: weave 1..2
           Name: ce:31:e0:06:45:1a(host1)
     Encryption: enabled
      SecretBox: libsodium.so.23
  PeerDiscovery: disabled
        Targets: 3
    Connections: 5 (1 established, 1 pending, 1 retrying, 1 failed, 1 connecting)
          Peers: 3 (with 4 established, 1 pending connections)
 TrustedSubnets: 10.1.0.0/16, 10.2.0.0/16
`,
  );
});

Deno.test("text() of the main view tells drops that are not part of normal work, and warnings", () => {
  const Drops = { noRoute: 5, spanningTree: 9, queueFull: 2, undecryptable: 30, txError: 0 };
  const text = REPORT_VIEWS.text("main", lonelyReport({ Drops, Warnings: ["the packet thread was started again"] }));
  assert.deepEqual(text.trimEnd().split("\n").slice(-2), [
    "          Drops: 32 (packet that does not open with the connection's key: 30; no room in the sending queue: 2)",
    "        Warning: the packet thread was started again",
  ]);
});

Deno.test("text() of the connections view has Weave Net's columns in every state", () => {
  const rows = REPORT_VIEWS.text("connections", busyReport()).split("\n");
  assert.deepEqual(rows.slice(0, 5), [
    "<- 192.168.48.12:39634   established encrypted   sleeve ea:2d:b2:e6:e4:f5(host2) encrypted=true mtu=1414",
    "-> 192.168.48.13:6783    pending     unencrypted sleeve ee:38:33:a7:d9:71(host3) ",
    "-> 192.168.48.14:6783    retrying    dial tcp4 192.168.48.14:6783: no route to host ",
    "-> 192.168.48.15:6783    failed      dial tcp4 192.168.48.15:6783: no route to host, retry: 2015-08-06 18:55:38.246 +0000 UTC ",
    "-> 192.168.48.16:6783    connecting   ",
  ]);
});

Deno.test("text() of the connections view names relays, and what UDP may hang on", () => {
  const lines = REPORT_VIEWS.text("connections", busyReport()).trimEnd().split("\n");
  assert.deepEqual(lines.slice(5), [
    "   relayed   ee:38:33:a7:d9:71(host3) via ea:2d:b2:e6:e4:f5(host2)",
    "   hint      UDP packets to and from ee:38:33:a7:d9:71(host3) do not come through; let UDP port 6783 pass both ways",
    "   hint      no address is known for host15; it is looked up again every few seconds",
    "   hint      192.168.48.17 was turned away 12 s ago: its password is another than ours",
  ]);
});

Deno.test("text() of the connections view says in plain words that passwords differ", () => {
  const why = "no password specificed, but peer requested an encrypted connection";
  const report = lonelyReport({
    Connections: [target("192.0.2.1:6783", "failed", failedInfo(why, 0)), target("192.0.2.2:6783", "retrying", "EOF")],
    TurnedAway: [{ Address: "192.0.2.3", Reason: "no overlays in common with peer", SecondsAgo: 1 }],
  });
  assert.deepEqual(REPORT_VIEWS.text("connections", report).trimEnd().split("\n").slice(2), [
    "   hint      192.0.2.1 cannot be joined: it has a password, and we have none",
    "   hint      192.0.2.3 was turned away 1 s ago: no overlays in common with peer",
  ]);
});

const CLEAR = { Address: "192.0.2.1:6783", Outbound: true, State: "established" } as const;

Deno.test("text() of the connections view warns of a path MTU below the bridge's", () => {
  const Connections = [live(HOST2, { ...CLEAR, Attrs: { mtu: 1138, name: "sleeve" } })];
  assert.equal(
    REPORT_VIEWS.text("connections", lonelyReport({ Connections })).split("\n")[1],
    "   warning   path MTU to ea:2d:b2:e6:e4:f5(host2) is 1138, below the bridge's 1376, so large frames travel in pieces; " +
      "launch all routers with WEAVE_MTU=1138, or let larger packets pass on the way",
  );
});

Deno.test("text() of the connections view says nothing of a path MTU that is enough, unknown, or meant to be smaller", () => {
  for (const [mtu, BridgeMTU] of [[1376, 1376], [undefined, 1376], [1438, 65535]] as const) {
    const Connections = [live(HOST2, { ...CLEAR, Attrs: { name: "sleeve", ...mtu === undefined ? {} : { mtu } } })];
    const text = REPORT_VIEWS.text("connections", lonelyReport({ Connections, BridgeMTU }));
    assert.equal(text.split("\n").length, 2, text);
  }
});

Deno.test("text() of the connections view names both clocks where they are too far apart", () => {
  const Clocks = { Ours: "2026-11-24T20:00:00Z", Theirs: "2026-11-24T18:00:00Z" };
  const cases = [
    [live(HOST2, { ...CLEAR, Attrs: { name: "sleeve" }, Clocks }), "ea:2d:b2:e6:e4:f5(host2)"],
    [{ ...target("192.0.2.1:6783", "failed", "clocks"), Clocks }, "192.0.2.1"],
  ] as const;
  for (const [connection, where] of cases) {
    assert.equal(
      REPORT_VIEWS.text("connections", lonelyReport({ Connections: [connection] })).split("\n")[1],
      `   warning   clocks are too far apart: 2026-11-24T20:00:00Z here, 2026-11-24T18:00:00Z at ${where}; set the wrong one`,
    );
  }
});

Deno.test("text() of the connections view adds no line that a filter takes for a connection", () => {
  const Clocks = { Ours: "2026-11-24T20:00:00Z", Theirs: "2026-11-24T18:00:00Z" };
  const report = busyReport();
  const Connections = report.Router.Connections.map((connection) => ({ ...connection, Clocks }));
  const lines = REPORT_VIEWS.text("connections", busyReport({ Connections, BridgeMTU: 1500 })).trimEnd().split("\n");
  const notes = lines.slice(Connections.length);
  assert.equal(notes.length, 10);
  const words = /->|<-|established|pending|retrying|failed|connecting|sleeve|fastdp|encrypted|mtu=|\d:\d{4,5}\b/;
  for (const note of notes) assert.doesNotMatch(note, words);
});

Deno.test("text() of the connections view does not list a thousand relayed peers", () => {
  const names = Array.from({ length: 1000 }, (_, i) => `00:00:00:00:00:${i.toString(16).padStart(4, "0")}`);
  const UnicastRoutes = names.map((Dest) => ({ Dest, Via: HOST2.Name }));
  const lines = REPORT_VIEWS.text("connections", lonelyReport({ UnicastRoutes })).trimEnd().split("\n");
  assert.equal(lines.length, 101);
  assert.equal(lines[100], "   relayed   and 900 more");
});

Deno.test("text() of the peers view has Weave Net's columns", () => {
  assert.equal(
    REPORT_VIEWS.text("peers", busyReport()),
    `ce:31:e0:06:45:1a(host1)
   <- 192.168.48.12:39634   ea:2d:b2:e6:e4:f5(host2)              established
   -> 192.168.48.13:6783    ee:38:33:a7:d9:71(host3)              pending
ea:2d:b2:e6:e4:f5(host2)
   -> 192.168.48.11:6783    ce:31:e0:06:45:1a(host1)              established
   <- 192.168.48.13:58181   ee:38:33:a7:d9:71(host3)              established
ee:38:33:a7:d9:71(host3)
   -> 192.168.48.12:6783    ea:2d:b2:e6:e4:f5(host2)              established
`,
  );
});

Deno.test("text() of the targets view gives them as they were given", () => {
  assert.equal(REPORT_VIEWS.text("targets", busyReport()), "192.168.48.14\nhost15\n192.168.48.16:6783\n");
  assert.equal(REPORT_VIEWS.text("targets", lonelyReport()), "");
});

Deno.test("text() of the main view has a block for names", () => {
  const text = REPORT_VIEWS.text("main", { ...lonelyReport(), DNS });
  assert.equal(
    text.slice(text.indexOf("TrustedSubnets") - 1),
    ` TrustedSubnets: none

        Service: dns
         Domain: weave.local.
       Upstream: 192.0.2.53, 192.0.2.54
            TTL: 1
        Entries: 3
         Hidden: 7 of 1 unreachable peers
        Warning: Cannot listen for DNS queries at 10.32.0.101:53: EADDRINUSE
`,
  );
  const without = { ...DNS, Upstream: [], Suspended: [], Warnings: [] };
  assert.match(REPORT_VIEWS.text("main", { ...lonelyReport(), DNS: without }), /Upstream: none\n.*\n.*Entries: 3\n$/);
});

Deno.test("text() of the dns view has Weave Net's columns", () => {
  assert.equal(
    REPORT_VIEWS.text("dns", { ...lonelyReport(), DNS }),
    `db           10.32.0.1       cccccccccccc ce:31:e0:06:45:1a
host2.sub    10.32.0.102     weave:expose ea:2d:b2:e6:e4:f5
Web-of-the-shop 10.32.0.2       netns-4-4026 ea:2d:b2:e6:e4:f5
db           AAAA fd00::1    weave:extern ce:31:e0:06:45:1a
   hidden    7 names of ee:38:33:a7:d9:71(host3), out of reach since 2026-11-24T10:49:00.000Z; weave rmpeer if it is gone
`,
  );
  const value = JSON.parse(REPORT_VIEWS.json("dns", { ...lonelyReport(), DNS }));
  assert.deepEqual([value.Entries.length, value.Records.length, value.Suspended[0].Entries], [3, 1, 7]);
});

Deno.test("text() of the dns view lets no name make lines", () => {
  const [first, ...rest] = DNS.Entries;
  const evil = { ...DNS, Entries: [{ ...first!, Hostname: "a\nb\u001b[2J.weave.local." }, ...rest] };
  const lines = REPORT_VIEWS.text("dns", { ...lonelyReport(), DNS: evil }).split("\n");
  assert.equal(lines.length, REPORT_VIEWS.text("dns", { ...lonelyReport(), DNS }).split("\n").length);
  assert.match(lines[0]!, /^a\?b\?\[2J /);
});

Deno.test("report() has names with their tombstones, as Weave Net does", () => {
  const { DNS: dns } = JSON.parse(REPORT_VIEWS.report({ ...lonelyReport(), DNS }));
  assert.deepEqual(Object.keys(dns).slice(0, 5), ["Domain", "Upstream", "Address", "TTL", "Entries"]);
  assert.deepEqual(Object.keys(dns.Entries[0]), [
    "Hostname",
    "Origin",
    "ContainerID",
    "Address",
    "Version",
    "Tombstone",
  ]);
  assert.equal(dns.Entries.length, 4);
  const count = REPORT_VIEWS.template("{{len .DNS.Entries}}", { ...lonelyReport(), DNS });
  assert.deepEqual(count, { ok: true, text: "4" });
  const none = JSON.parse(REPORT_VIEWS.report({ ...lonelyReport(), DNS: { ...DNS, Entries: [], Warnings: [] } })).DNS;
  assert.deepEqual([none.Entries, none.Warnings], [null, []]);
});

Deno.test("text() is empty for parts that are not there", () => {
  for (const view of ["dns", "ipam"] as const) {
    assert.equal(REPORT_VIEWS.text(view, busyReport()), "");
    assert.equal(REPORT_VIEWS.json(view, busyReport()), "null\n");
  }
});

Deno.test("text() lets no nickname make lines or move the cursor", () => {
  const evil = { Name: HOST2.Name, NickName: "x\n-> 192.0.2.9:6783 established\x1b[2J\u202e" };
  const Peers = [{ ...evil, UID: 1n, ShortID: 1, Version: 1n, Connections: [] }];
  assert.equal(
    REPORT_VIEWS.text("peers", lonelyReport({ Peers })),
    "ea:2d:b2:e6:e4:f5(x?-> 192.0.2.9:6783 established?[2J?)\n",
  );
});

Deno.test("liveInfo() has the mode only where there is a password", () => {
  const peer = { overlay: "sleeve", peer: HOST2.Name, nickName: HOST2.NickName };
  assert.equal(liveInfo({ ...peer, encrypted: undefined }), "sleeve ea:2d:b2:e6:e4:f5(host2)");
  assert.equal(liveInfo({ ...peer, encrypted: true }), "encrypted   sleeve ea:2d:b2:e6:e4:f5(host2)");
  assert.equal(liveInfo({ ...peer, encrypted: false }), "unencrypted sleeve ea:2d:b2:e6:e4:f5(host2)");
});

Deno.test("failedInfo() says when there is no next attempt", () => {
  assert.equal(failedInfo("cannot connect to ourself", undefined), "cannot connect to ourself, retry: never");
});

Deno.test("report() has Weave Net's fields in its order, numbers whole and null for empty lists", () => {
  const text = REPORT_VIEWS.report(lonelyReport({ Peers: busyReport().Router.Peers.slice(0, 1) }));
  assert.ok(
    text.startsWith('{\n    "Ready": true,\n    "Version": "0.1.0",\n    "VersionCheck": {\n        "Enabled": false,'),
  );
  assert.match(text, /"UID": 13490210014865600209,\n/);
  assert.match(text, /"Version": 9007199254740993,\n/);
  const { Router: router, ...rest } = JSON.parse(text);
  assert.deepEqual(Object.keys(rest), ["Ready", "Version", "VersionCheck"]);
  assert.equal(rest.VersionCheck.NextCheckAt, "0001-01-01T00:00:00Z");
  assert.equal(
    Object.keys(router).join(),
    "Protocol,ProtocolMinVersion,ProtocolMaxVersion,Encryption,PeerDiscovery,Name,NickName,Port,Peers,UnicastRoutes," +
      "BroadcastRoutes,Connections,TerminationCount,Targets,OverlayDiagnostics,TrustedSubnets,Interface,CaptureStats," +
      "MACs,SecretBox,BridgeMTU,Drops,Totals,Unresolved,TurnedAway,Warnings",
  );
  assert.equal(router.Connections, null);
  assert.equal(router.Targets, null);
  assert.equal(router.MACs, null);
  assert.equal(router.BroadcastRoutes[0].Via, null);
  assert.deepEqual(router.TrustedSubnets, []);
  assert.deepEqual(router.Warnings, []);
  assert.deepEqual(router.OverlayDiagnostics, { sleeve: null });
});

Deno.test("report() has attributes and carrier of a connection, null for a target", () => {
  const { Router: router } = JSON.parse(REPORT_VIEWS.report(busyReport()));
  const [established, , retrying] = router.Connections;
  assert.deepEqual(established.Attrs, { encrypted: true, mtu: 1414, name: "sleeve" });
  assert.equal(established.Carrier.Peer, HOST2.Name);
  assert.deepEqual(established.Carrier.Extensions, []);
  assert.equal(retrying.Attrs, null);
  assert.equal(retrying.Carrier, null);
});

Deno.test("json() of each view says what the text does", () => {
  const read = (view: "main" | "targets" | "connections" | "peers", report: Report) =>
    JSON.parse(REPORT_VIEWS.json(view, report));
  const report = busyReport();
  const { Ready, Router: main } = read("main", report);
  assert.equal(Ready, true);
  assert.equal(main.Targets, 3);
  assert.deepEqual(main.Connections, { Total: 5, established: 1, pending: 1, retrying: 1, failed: 1, connecting: 1 });
  assert.deepEqual(main.Peers, { Total: 3, established: 4, pending: 1 });
  assert.deepEqual(read("targets", report), report.Router.Targets);
  const connections = read("connections", report);
  assert.equal(connections.Connections.length, 5);
  assert.deepEqual(connections.Relayed, [{ ...HOST3, Via: HOST2 }]);
  assert.equal(connections.Notes.length, 3);
  assert.match(connections.Notes[0], /^hint: UDP packets to and from /);
  assert.equal(read("peers", report)[0].Name, OURS.Name);
  assert.deepEqual(read("targets", lonelyReport()), []);
});

Deno.test("template() shows map keys, absent parts and empty lists as Go does", () => {
  const shown = (template: string, report = busyReport()) => {
    const result = REPORT_VIEWS.template(template, report);
    return result.ok ? result.text : result.message;
  };
  assert.equal(
    shown("{{(index .Router.Connections 0).Attrs.mtu}} {{(index .Router.Connections 1).Attrs.mtu}}"),
    "1414 <no value>",
  );
  assert.equal(shown("{{.DNS}} {{json .DNS}} {{if .IPAM}}on{{else}}off{{end}}"), "<nil> null off");
  assert.match(shown("{{.DNS.Domain}}"), /^template: :1:2: executing "" at <\.DNS\.Domain>: nil pointer evaluating/);
  assert.equal(
    shown("{{json .Router.Targets}}{{json .Router.TrustedSubnets}}{{len .Router.Targets}}", lonelyReport()),
    "null[]0",
  );
  assert.equal(shown("{{(index .Router.Peers 0).UID}}"), "13490210014865600209");
});
