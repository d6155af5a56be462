/**
 * The one snapshot of a router, and what is made of it: `weave report` (JSON), the texts of `weave status …`, metrics. Field names,
 * their order and the texts are Weave Net 2.8's; what is ours says so.
 *
 * In the snapshot a list is always a list; the JSON has null for an empty one where Weave Net does.
 */
import { type JsonObject, writeJson } from "../lib/json.ts";
import { readProcessStats } from "../host/process_stats.ts";
import type { ReportViews } from "../api/types.ts";
import { formatMetrics } from "./metrics.ts";
import { renderTemplate, type TemplateRules } from "./report_template.ts";
import { formatStatus, statusValue } from "./status_texts.ts";

/** Peer names are text here, as `formatMac` writes them; times RFC 3339. */
export interface Report {
  /** Everything serves: `/status` answers 503 until then. */
  readonly Ready: boolean;
  readonly Version: string;
  readonly VersionCheck: VersionCheckReport;
  readonly Router: RouterReport;
  /** Parts that are off, or not built yet, are absent. */
  readonly IPAM?: IpamReport;
  readonly DNS?: DnsReport;
  /** Ours. */
  readonly Services?: ServicesReport;
  readonly Proxy?: ProxyReport;
  readonly Plugin?: PluginReport;
}

/** Drivers of Docker's networks; empty is what is not served. */
export interface PluginReport {
  readonly Config: {
    readonly Socket: string;
    readonly MeshSocket: string;
    readonly Enable: boolean;
    readonly EnableV2: boolean;
    readonly EnableV2Multicast: boolean;
    readonly DNS: boolean;
    readonly DefaultSubnet: string;
    readonly ProcPath: string;
  };
  readonly DriverName: string;
  readonly MeshDriverName: string;
}

/** Between Docker's clients and its engine. */
export interface ProxyReport {
  /** As `DOCKER_HOST` has them. */
  readonly Addresses: readonly string[];
}

/** All of it is ours. */
export interface ServicesReport {
  /** Why none can be offered here; empty: they can. */
  readonly Unable: string;
  readonly Networks: readonly {
    readonly Name: string;
    readonly Interfaces: readonly string[];
    readonly Isolated: boolean;
  }[];
  /** Of this host. */
  readonly Imports: number;
  readonly Exports: number;
  /** Backends of this host's imports. */
  readonly Backends: { readonly Up: number; readonly Down: number; readonly Unknown: number };
  /** Addresses that nobody has for himself and that this host answers for. */
  readonly Holding: readonly string[];
  /** Records of all peers together. */
  readonly Known: number;
  /** What other peers said and was not taken. */
  readonly Rejections: readonly {
    readonly Peer: string;
    readonly NickName: string;
    readonly What: string;
    readonly Reason: string;
    readonly Count: number;
  }[];
  /** What an operator must know, a plain line each. */
  readonly Warnings: readonly string[];
}

export interface IpamReport {
  /** null where nobody waits for an agreement. */
  readonly Paxos: { readonly Elector: boolean; readonly KnownNodes: number; readonly Quorum: number } | null;
  /** What addresses are allocated from. */
  readonly Range: string;
  readonly RangeNumIPs: number;
  /** In use on this host. */
  readonly ActiveIPs: number;
  readonly DefaultSubnet: string;
  /** The ring; empty before there is one. */
  readonly Entries: readonly IpamEntryReport[];
  readonly PendingClaims: readonly {
    readonly Ident: string;
    readonly CIDR: { readonly Addr: string; readonly PrefixLen: number };
  }[];
  /** `id subnet`, each. */
  readonly PendingAllocates: readonly string[];

  // Ours from here on.

  /** Ourselves first, then those who own most. */
  readonly Owners: readonly OwnerReport[];
  /** Peers whose ring and ours cannot become one. */
  readonly Conflicts: readonly { readonly Peer: string; readonly Reason: string }[];
  /** Addresses in use here that other peers own. */
  readonly Contested: readonly ContestedReport[];
  /** null where the option is off. */
  readonly Reclaim: ReclaimReport | null;
  /** What an operator must know, a plain line each. */
  readonly Warnings: readonly string[];
}

export interface IpamEntryReport {
  readonly Token: string;
  readonly Size: number;
  readonly Peer: string;
  readonly Nickname: string;
  readonly IsKnownPeer: boolean;
  readonly Version: number;
}

export interface OwnerReport {
  readonly Peer: string;
  readonly NickName: string;
  readonly Size: number;
  readonly Reachable: boolean;
}

export interface ContestedReport {
  readonly ContainerID: string;
  readonly Address: string;
  readonly Owner: string;
  /** The owner has given it to somebody else. */
  readonly HeldTwice: boolean;
}

export interface ReclaimReport {
  readonly AfterSeconds: number;
  /** A strict majority of the owners is in reach. */
  readonly Majority: boolean;
  /** Others may have taken over our addresses: none are given out. */
  readonly Fenced: boolean;
  readonly Absent: readonly { readonly Peer: string; readonly ForSeconds: number; readonly Reclaimable: boolean }[];
}

export interface DnsReport {
  /** With its final dot. */
  readonly Domain: string;
  /** Other servers, in the order in which they are asked. */
  readonly Upstream: readonly string[];
  /** Where containers are to ask, `ip:port`; empty where nobody can. */
  readonly Address: string;
  /** Seconds. */
  readonly TTL: number;
  /** In the order of names; those of peers that are out of reach for too long are left out, tombstones are not. */
  readonly Entries: readonly DnsEntryReport[];

  // Ours from here on.

  /** Other records than IPv4 addresses, as above. */
  readonly Records: readonly (Omit<DnsEntryReport, "Address"> & { readonly Record: string })[];
  /** Where queries are answered. */
  readonly Listening: readonly string[];
  /** Peers out of reach that have names; while they are not hidden the names are still answered. */
  readonly Suspended: readonly SuspendedReport[];
  /** Names of src/dns/chain.ts, and what there is right now. */
  readonly Counters: Readonly<Record<string, number>>;
  /** What an operator must know, a plain line each. */
  readonly Warnings: readonly string[];
}

export interface DnsEntryReport {
  readonly Hostname: string;
  readonly Origin: string;
  readonly ContainerID: string;
  readonly Address: string;
  readonly Version: number;
  /** Unix seconds of its deletion; 0: it is live. */
  readonly Tombstone: number;
}

export interface SuspendedReport {
  readonly Peer: string;
  readonly NickName: string;
  /** How many live names it has. */
  readonly Entries: number;
  readonly Since: string;
  readonly Hidden: boolean;
}

export interface VersionCheckReport {
  readonly Enabled: boolean;
  readonly Success: boolean;
  readonly NewVersion: string;
  readonly NextCheckAt: string;
}

/** There is no server to ask for newer versions. */
export const NO_VERSION_CHECK: VersionCheckReport = {
  Enabled: false,
  Success: false,
  NewVersion: "",
  NextCheckAt: "0001-01-01T00:00:00Z",
};

export interface RouterReport {
  readonly Protocol: string;
  readonly ProtocolMinVersion: number;
  readonly ProtocolMaxVersion: number;
  /** Whether there is a password. */
  readonly Encryption: boolean;
  readonly PeerDiscovery: boolean;
  readonly Name: string;
  readonly NickName: string;
  readonly Port: number;
  /** All known peers, ourselves included. */
  readonly Peers: readonly PeerReport[];
  /** `Via` of ourselves is 00:00:00:00:00:00. */
  readonly UnicastRoutes: readonly { readonly Dest: string; readonly Via: string }[];
  readonly BroadcastRoutes: readonly { readonly Source: string; readonly Via: readonly string[] }[];
  /** Our own connections, then targets that have none. */
  readonly Connections: readonly ConnectionReport[];
  readonly TerminationCount: number;
  /** As the user gave them. */
  readonly Targets: readonly string[];
  /** By overlay; sleeve has none. */
  readonly OverlayDiagnostics: Readonly<Record<string, JsonObject | null>>;
  readonly TrustedSubnets: readonly string[];
  /** `vethwe-bridge (via TAP)`, say. */
  readonly Interface: string;
  readonly CaptureStats: Readonly<Record<string, number>> | null;
  readonly MACs: readonly MacReport[];

  // Ours from here on.

  /** Which implementation encrypts ("libsodium.so.23", …); null where there is no password. */
  readonly SecretBox: string | null;
  /** MTU of the bridge, in octets: what containers send at most. */
  readonly BridgeMTU: number;
  /** Frames and packets that went no further, by reason: the names of src/datapath/counters.ts. */
  readonly Drops: Readonly<Record<string, number>>;
  /** What the packet thread counted otherwise: names of src/datapath/counters.ts. */
  readonly Totals: Readonly<Record<string, number>>;
  /** Targets whose names cannot be looked up so far. */
  readonly Unresolved: readonly string[];
  /** Who wanted to connect with us in the last minutes and may not, the last one first. */
  readonly TurnedAway: readonly TurnedAwayReport[];
  /** What an operator must know, a plain line each. */
  readonly Warnings: readonly string[];
}

export interface TurnedAwayReport {
  /** Without its port, which is another one each time. */
  readonly Address: string;
  readonly Reason: string;
  readonly SecondsAgo: number;
}

export interface PeerReport {
  readonly Name: string;
  readonly NickName: string;
  readonly UID: bigint;
  readonly ShortID: number;
  readonly Version: bigint;
  readonly Connections: readonly PeerConnectionReport[];
}

export interface PeerConnectionReport {
  readonly Name: string;
  readonly NickName: string;
  readonly Address: string;
  readonly Outbound: boolean;
  readonly Established: boolean;
}

/**
 * `connecting`: a target's first attempt runs · `retrying`: a later one · `failed`: a target waits for the next · `pending`: TCP is
 * up, no carrier works yet · `established`.
 */
export type ConnectionState = "established" | "pending" | "retrying" | "failed" | "connecting";

export interface ConnectionReport {
  /** Remote TCP address, `ip:port`. */
  readonly Address: string;
  readonly Outbound: boolean;
  readonly State: ConnectionState;
  /** `liveInfo` for what has TCP up, `failedInfo` or the last error for a target, empty on its first attempt. */
  readonly Info: string;
  /** Of the overlay; null for a target. */
  readonly Attrs: ConnectionAttributes | null;

  // Ours from here on.

  /** What carries its frames; null for a target. */
  readonly Carrier: CarrierReport | null;
  /** Set where the clocks of the two hosts are too far apart. */
  readonly Clocks: { readonly Ours: string; readonly Theirs: string } | null;
}

export interface ConnectionAttributes {
  /** Only where frames are encrypted. */
  readonly encrypted?: true;
  /** Largest frame without its Ethernet header that passes in one packet; absent before it is known. */
  readonly mtu?: number;
  /** Overlay: `sleeve`. */
  readonly name: string;
}

export interface CarrierReport {
  readonly Peer: string;
  readonly NickName: string;
  /** Where its packets go, UDP `ip:port`; null before it is known. */
  readonly Remote: string | null;
  /** Largest UDP payload that passes unfragmented. */
  readonly MaxPayload: number;
  /** Frames above the path MTU are left to the kernel's fragmentation, because smaller packets do not get through whole. */
  readonly StackFragments: boolean;
  /** What both routers can do beyond Weave Net 2.8. */
  readonly Extensions: readonly string[];
  readonly TxPackets: number;
  readonly TxOctets: number;
  readonly RxPackets: number;
  readonly RxOctets: number;
}

export interface MacReport {
  readonly Mac: string;
  readonly Name: string;
  readonly NickName: string;
  readonly LastSeen: string;
}

/** `Info` of a connection whose TCP is up. `encrypted` is undefined where there is no password. */
export function liveInfo(
  o: {
    readonly encrypted: boolean | undefined;
    readonly overlay: string;
    readonly peer: string;
    readonly nickName: string;
  },
): string {
  const mode = o.encrypted === undefined ? "" : `${o.encrypted ? "encrypted" : "unencrypted"}`.padEnd(11) + " ";
  return `${mode}${o.overlay.padEnd(6)} ${o.peer}(${o.nickName})`;
}

/** `Info` of a target that waits for its next attempt; undefined: there will be none. */
export function failedInfo(error: string, retryAtMs: number | undefined): string {
  return `${error}, retry: ${retryAtMs === undefined ? "never" : goTime(retryAtMs)}`;
}

/** Unix time as Weave Net prints it: `2015-08-06 18:55:38.246 +0000 UTC`. */
function goTime(unixMs: number): string {
  const [date, time] = new Date(unixMs).toISOString().slice(0, -1).split("T");
  return `${date} ${time} +0000 UTC`;
}

/** Lists that the JSON shows as lists also when they are empty; all others are null then, as in Weave Net 2.8. */
const ALWAYS_LISTS: ReadonlySet<string> = new Set([
  "TrustedSubnets",
  "Unresolved",
  "TurnedAway",
  "Warnings",
  "Extensions",
  "Networks",
  "Interfaces",
  "Holding",
  "Rejections",
]);

/** Everything the API says of a report. */
export const REPORT_VIEWS: ReportViews = {
  report: (report) => `${writeJson(withNulls(report), 4)}\n`,
  text: formatStatus,
  json: (view, report) => `${writeJson(statusValue(view, report), 4)}\n`,
  metrics: (report) => formatMetrics(report, readProcessStats()),
  template: (template, report) => renderTemplate(template, report, templateRules(report)),
};

function templateRules({ Router: router }: Report): TemplateRules {
  return {
    json: (value) => writeJson(withNulls(value, value === router.TrustedSubnets ? "TrustedSubnets" : "")),
    maps: new Set(["OverlayDiagnostics", "CaptureStats", "Attrs", "Drops", "Totals", "Counters"]),
    optional: new Set(["IPAM", "DNS", "Services", "Proxy", "Plugin"]),
  };
}

function withNulls(value: unknown, key = ""): unknown {
  if (Array.isArray(value)) {
    return value.length === 0 && !ALWAYS_LISTS.has(key) ? null : value.map((item) => withNulls(item));
  }
  if (typeof value !== "object" || value === null) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, withNulls(item, key)]));
}
