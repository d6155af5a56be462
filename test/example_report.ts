/** A report with something of everything in it, for tests of what is made of reports. */

import type { CarrierReport, ConnectionReport, DnsReport, Report, RouterReport } from "../src/daemon/status.ts";
import { failedInfo, liveInfo, NO_VERSION_CHECK } from "../src/daemon/status.ts";

export const OURS = { Name: "ce:31:e0:06:45:1a", NickName: "host1" };
export const HOST2 = { Name: "ea:2d:b2:e6:e4:f5", NickName: "host2" };
export const HOST3 = { Name: "ee:38:33:a7:d9:71", NickName: "host3" };

/** A router alone, in clear, without anything to say. */
export function lonelyReport(router: Partial<RouterReport> = {}): Report {
  return {
    Ready: true,
    Version: "0.1.0",
    VersionCheck: NO_VERSION_CHECK,
    Router: {
      Protocol: "weave",
      ProtocolMinVersion: 2,
      ProtocolMaxVersion: 2,
      Encryption: false,
      PeerDiscovery: true,
      ...OURS,
      Port: 6783,
      Peers: [{ ...OURS, UID: 1n, ShortID: 7, Version: 1n, Connections: [] }],
      UnicastRoutes: [{ Dest: OURS.Name, Via: "00:00:00:00:00:00" }],
      BroadcastRoutes: [{ Source: OURS.Name, Via: [] }],
      Connections: [],
      TerminationCount: 0,
      Targets: [],
      OverlayDiagnostics: { sleeve: null },
      TrustedSubnets: [],
      Interface: "vethwe-bridge (via TAP)",
      CaptureStats: null,
      MACs: [],
      SecretBox: null,
      BridgeMTU: 1376,
      Drops: {},
      Totals: {},
      Unresolved: [],
      TurnedAway: [],
      Warnings: [],
      ...router,
    },
  };
}

/** One connection in each state: encrypted to host2, pending to host3, and three targets. */
export function busyReport(router: Partial<RouterReport> = {}): Report {
  return lonelyReport({
    Encryption: true,
    SecretBox: "libsodium.so.23",
    Peers: [
      {
        ...OURS,
        UID: 13490210014865600209n,
        ShortID: 7,
        Version: 9007199254740993n,
        Connections: [
          { ...HOST2, Address: "192.168.48.12:39634", Outbound: false, Established: true },
          { ...HOST3, Address: "192.168.48.13:6783", Outbound: true, Established: false },
        ],
      },
      {
        ...HOST2,
        UID: 2n,
        ShortID: 8,
        Version: 4n,
        Connections: [
          { ...OURS, Address: "192.168.48.11:6783", Outbound: true, Established: true },
          { ...HOST3, Address: "192.168.48.13:58181", Outbound: false, Established: true },
        ],
      },
      {
        ...HOST3,
        UID: 3n,
        ShortID: 9,
        Version: 5n,
        Connections: [{ ...HOST2, Address: "192.168.48.12:6783", Outbound: true, Established: true }],
      },
    ],
    UnicastRoutes: [
      { Dest: OURS.Name, Via: "00:00:00:00:00:00" },
      { Dest: HOST2.Name, Via: HOST2.Name },
      { Dest: HOST3.Name, Via: HOST2.Name },
    ],
    BroadcastRoutes: [{ Source: OURS.Name, Via: [HOST2.Name] }, { Source: HOST2.Name, Via: [] }],
    Connections: [
      live(HOST2, {
        Address: "192.168.48.12:39634",
        Outbound: false,
        State: "established",
        Attrs: { encrypted: true, mtu: 1414, name: "sleeve" },
      }),
      live(HOST3, { Address: "192.168.48.13:6783", Outbound: true, State: "pending", Attrs: { name: "sleeve" } }),
      target("192.168.48.14:6783", "retrying", "dial tcp4 192.168.48.14:6783: no route to host"),
      target(
        "192.168.48.15:6783",
        "failed",
        failedInfo("dial tcp4 192.168.48.15:6783: no route to host", Date.UTC(2015, 7, 6, 18, 55, 38, 246)),
      ),
      target("192.168.48.16:6783", "connecting", ""),
    ],
    TerminationCount: 3,
    Targets: ["192.168.48.14", "host15", "192.168.48.16:6783"],
    TrustedSubnets: ["10.1.0.0/16", "10.2.0.0/16"],
    Unresolved: ["host15"],
    TurnedAway: [{ Address: "192.168.48.17", Reason: "Unable to decrypt TCP msg", SecondsAgo: 12 }],
    MACs: [{ Mac: "12:78:0f:ca:a9:e0", ...HOST2, LastSeen: "2026-07-30T16:42:00.000Z" }],
    ...router,
  });
}

/** Names of three hosts, one of which is out of reach. */
export const DNS: DnsReport = {
  Domain: "weave.local.",
  Upstream: ["192.0.2.53", "192.0.2.54"],
  Address: "172.17.0.1:53",
  TTL: 1,
  Entries: [
    dnsEntry(OURS, "db.weave.local.", "10.32.0.1", "c".repeat(64)),
    dnsEntry(HOST2, "host2.sub.Weave.Local.", "10.32.0.102", "weave:expose"),
    { ...dnsEntry(OURS, "old.weave.local.", "10.32.0.9", "d".repeat(64)), Version: 1, Tombstone: 1795280443 },
    dnsEntry(HOST2, "Web-of-the-shop.weave.local.", "10.32.0.2", "netns-4-4026532"),
  ],
  Records: [{
    Hostname: "db.weave.local.",
    Origin: OURS.Name,
    ContainerID: "weave:extern",
    Record: "AAAA fd00::1",
    Version: 0,
    Tombstone: 0,
  }],
  Listening: ["172.17.0.1:53", "10.32.0.100:53"],
  Suspended: [
    { Peer: HOST3.Name, NickName: HOST3.NickName, Entries: 7, Since: "2026-11-24T10:49:00.000Z", Hidden: true },
  ],
  Counters: { queries: 12, local: 9, pending: 1 },
  Warnings: ["Cannot listen for DNS queries at 10.32.0.101:53: EADDRINUSE"],
};

function dnsEntry(
  origin: { readonly Name: string },
  Hostname: string,
  Address: string,
  ContainerID: string,
): DnsReport["Entries"][number] {
  return { Hostname, Origin: origin.Name, ContainerID, Address, Version: 0, Tombstone: 0 };
}

export function live(
  peer: { readonly Name: string; readonly NickName: string },
  connection: Pick<ConnectionReport, "Address" | "Outbound" | "State" | "Attrs"> & Partial<ConnectionReport>,
): ConnectionReport {
  const encrypted = connection.Attrs?.encrypted === true;
  return {
    Info: liveInfo({ encrypted, overlay: "sleeve", peer: peer.Name, nickName: peer.NickName }),
    Carrier: carrier(peer),
    Clocks: null,
    ...connection,
  };
}

export function target(address: string, state: ConnectionReport["State"], info: string): ConnectionReport {
  return { Address: address, Outbound: true, State: state, Info: info, Attrs: null, Carrier: null, Clocks: null };
}

function carrier(peer: { readonly Name: string; readonly NickName: string }): CarrierReport {
  return {
    Peer: peer.Name,
    NickName: peer.NickName,
    Remote: null,
    MaxPayload: 1472,
    StackFragments: false,
    Extensions: [],
    TxPackets: 10,
    TxOctets: 1000,
    RxPackets: 20,
    RxOctets: 2000,
  };
}
