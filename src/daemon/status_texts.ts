/**
 * The texts of `weave status …`, with Weave Net 2.8's columns. What `status connections` says beyond it follows the connections on
 * lines of three spaces and a word; they hold no arrow, no address with a port and none of the words a state or carrier has, so
 * that who filters the output for these finds connections only.
 */
import { type DropReason, dropText } from "../datapath/counters.ts";
import type { StatusView } from "../api/types.ts";
import type {
  ConnectionReport,
  ConnectionState,
  DnsEntryReport,
  DnsReport,
  IpamReport,
  OwnerReport,
  PeerReport,
  PluginReport,
  Report,
  RouterReport,
  ServicesReport,
} from "./status.ts";

/** In the order in which they are counted. */
const STATES: readonly ConnectionState[] = ["established", "pending", "retrying", "failed", "connecting"];
const NOBODY = "00:00:00:00:00:00";
/** Width of a label with the colon in column 16. */
const LABEL_WIDTH = 15;
/** From this size on the bridge's MTU stands for "no limit": the path's is meant to be smaller. */
const UNLIMITED_MTU = 65_521;
/** Lines on relayed peers; in a large and sparse network nearly all are. */
const MAX_RELAYED_LINES = 100;

/** Reasons of which some drops are no news: they are how learning, routing, path MTU search and reconnecting work. */
const EXPECTED_DROPS: ReadonlySet<string> = new Set<DropReason>([
  "unknownSender",
  "unknownSourcePeer",
  "unknownDestinationPeer",
  "ownFrame",
  "noRoute",
  "noAddress",
  "broadcastTooBig",
  "tooBig",
  "macElsewhere",
  "macHere",
  "spanningTree",
  "txTooBig",
]);

export interface RelayedPeer {
  readonly Name: string;
  readonly NickName: string;
  readonly Via: { readonly Name: string; readonly NickName: string };
}

/** Peers that are reached over another one, and the first of those on the way. */
export function relayedPeers({ Router: router }: Report): RelayedPeer[] {
  const nickNames = new Map(router.Peers.map((peer) => [peer.Name, peer.NickName]));
  const named = (name: string) => ({ Name: name, NickName: nickNames.get(name) ?? "" });
  return router.UnicastRoutes
    .filter(({ Dest, Via }) => Dest !== router.Name && Via !== NOBODY && Via !== Dest)
    .map(({ Dest, Via }) => ({ ...named(Dest), Via: named(Via) }));
}

/** Whole lines, or nothing. */
export function formatStatus(view: StatusView, report: Report): string {
  return linesOf(view, report).map((line) => `${printable(line)}\n`).join("");
}

/** The same, for programs. */
export function statusValue(view: StatusView, report: Report): unknown {
  switch (view) {
    case "main":
      return mainValue(report);
    case "targets":
      return report.Router.Targets;
    case "connections":
      return {
        Connections: report.Router.Connections,
        Relayed: relayedPeers(report),
        Notes: connectionNotes(report).map(({ kind, text }) => `${kind}: ${text}`),
      };
    case "peers":
      return report.Router.Peers;
    case "dns":
      return report.DNS === undefined ? null : dnsValue(report.DNS);
    case "ipam":
      return report.IPAM ?? null;
    default:
      return view satisfies never;
  }
}

function linesOf(view: StatusView, report: Report): string[] {
  switch (view) {
    case "main":
      return mainLines(report);
    case "targets":
      return [...report.Router.Targets];
    case "connections":
      return connectionLines(report);
    case "peers":
      return report.Router.Peers.flatMap(peerLines);
    case "dns":
      return dnsLines(report);
    case "ipam":
      return report.IPAM === undefined ? [] : ipamLines(report, report.IPAM);
    default:
      return view satisfies never;
  }
}

function mainLines(report: Report): string[] {
  const { Version: version, Router: router, IPAM: ipam, DNS: dns, Services: services, Proxy: proxy, Plugin: plugin } =
    report;
  const drops = unexpectedDrops(router);
  return [
    label("Version", `${version} (version check update disabled)`),
    "",
    label("Service", "router"),
    label("Protocol", protocolText(router)),
    label("Name", named(router)),
    label("Encryption", enabled(router.Encryption)),
    ...router.SecretBox === null ? [] : [label("SecretBox", router.SecretBox)],
    label("PeerDiscovery", enabled(router.PeerDiscovery)),
    label("Targets", String(router.Targets.length)),
    label("Connections", connectionsText(router)),
    label("Peers", peersText(router)),
    label("TrustedSubnets", router.TrustedSubnets.join(", ") || "none"),
    ...drops.length === 0 ? [] : [label("Drops", dropsText(drops))],
    ...router.Warnings.map((warning) => label("Warning", warning)),
    ...ipam === undefined ? [] : ["", ...ipamBlock(ipam)],
    ...dns === undefined ? [] : ["", ...dnsBlock(dns)],
    ...services === undefined || !inUse(services) ? [] : ["", ...servicesBlock(services)],
    ...proxy === undefined ? [] : ["", label("Service", "proxy"), label("Address", proxy.Addresses.join(", "))],
    ...plugin === undefined ? [] : ["", ...pluginBlock(plugin)],
  ];
}

/** Who has no services, and knows of none, reads what Weave Net would say. */
function inUse({ Networks: networks, Imports: imports, Exports: exports, Known: known }: ServicesReport): boolean {
  return networks.length + imports + exports + known > 0;
}

function servicesBlock(services: ServicesReport): string[] {
  const { Backends: backends, Rejections: rejections } = services;
  const refused = rejections.reduce((sum, { Count }) => sum + Count, 0);
  return [
    label("Service", "services"),
    label("Status", services.Unable === "" ? "ready" : services.Unable),
    label("Networks", ["host", ...services.Networks.map(({ Name }) => Name)].join(", ")),
    label("Imports", `${services.Imports} (backends: ${backends.Up} up, ${backends.Down + backends.Unknown} not)`),
    label("Exports", String(services.Exports)),
    label("Holding", `${services.Holding.length} ${services.Holding.length === 1 ? "address" : "addresses"}`),
    label("Known", `${services.Known} of all peers`),
    ...refused === 0 ? [] : [label("Rejected", `${refused} records; 'weave report' says why`)],
    ...services.Warnings.map((warning) => label("Warning", warning)),
  ];
}

function ipamBlock(ipam: IpamReport): string[] {
  return [
    label("Service", "ipam"),
    label("Status", ipamStatus(ipam)),
    label("Range", ipam.Range),
    label("DefaultSubnet", ipam.DefaultSubnet),
    ...ipam.Warnings.map((warning) => label("Warning", warning)),
  ];
}

function pluginBlock({ Config: { EnableV2: v2 }, DriverName: name, MeshDriverName: meshName }: PluginReport): string[] {
  if (v2) return [label("Service", "plugin (v2)")];
  return [label("Service", "plugin (legacy)"), label("DriverName", name || meshName)];
}

/** In one line, in Weave Net's words. */
function ipamStatus({ Owners: owners, Paxos: paxos, PendingAllocates: pending }: IpamReport): string {
  if (owners.length > 0) {
    if (owners.every(({ Reachable }) => !Reachable)) {
      return "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead";
    }
    return pending.length > 0 ? "waiting for IP(s) to become available" : "ready";
  }
  if (paxos === null) return "idle";
  return paxos.Elector ? `awaiting consensus (quorum: ${paxos.Quorum}, known: ${paxos.KnownNodes})` : "priming";
}

/** Who owns how much. What Weave Net does not have follows on lines of three spaces and a word. */
function ipamLines({ Router: router }: Report, ipam: IpamReport): string[] {
  const { Owners: owners, RangeNumIPs: size } = ipam;
  const owned = ({ Size }: OwnerReport) =>
    `${String(Size).padStart(8)} IPs (${(Size * 100 / size).toFixed(1).padStart(4, "0")}% of total)`;
  const info = ({ Peer, Reachable }: OwnerReport) =>
    Peer === router.Name ? `(${ipam.ActiveIPs} active)` : Reachable ? "" : "- unreachable!";
  const nickNames = new Map(owners.map(({ Peer, NickName }) => [Peer, NickName]));
  const namedOwner = (Name: string) => named({ Name, NickName: nickNames.get(Name) ?? "" });
  return [
    ...owners.map((owner) => `${namedOwner(owner.Peer).padEnd(37)} ${owned(owner)} ${info(owner)}`),
    ...owners.filter(({ Reachable }) => !Reachable).map((owner) =>
      note(
        "stranded",
        `${owned(owner).trim()} of ${namedOwner(owner.Peer)}; if it is dead, 'weave rmpeer ${owner.Peer}' frees them` +
          reclaimText(ipam, owner.Peer),
      )
    ),
    ...ipam.Contested.map(({ ContainerID, Address, Owner, HeldTwice }) =>
      note(
        HeldTwice ? "twice" : "contested",
        `${Address} of ${ContainerID}: ${namedOwner(Owner)} owns it${
          HeldTwice ? ", and has given it to another one" : ""
        }`,
      )
    ),
    ...ipam.Conflicts.map(({ Peer, Reason }) => note("warning", Peer === "" ? Reason : `${Peer}: ${Reason}`)),
  ];
}

/** Whether and when the addresses of a peer that is gone come back by themselves. */
function reclaimText({ Reclaim: reclaim }: IpamReport, peer: string): string {
  const absent = reclaim?.Absent.find(({ Peer }) => Peer === peer);
  if (reclaim == null || absent === undefined) return "";
  if (!absent.Reclaimable) return "; it has no --ipalloc-reclaim, and is not taken over";
  if (!reclaim.Majority) return "; not taken over, as no majority of the owners is reachable";
  return `; missed for ${duration(absent.ForSeconds)}, taken over after ${duration(reclaim.AfterSeconds)}`;
}

/** As Go writes it, without seconds: `25h0m`. */
function duration(seconds: number): string {
  const minutes = Math.floor(seconds / 60);
  return minutes < 60 ? `${minutes}m` : `${Math.floor(minutes / 60)}h${minutes % 60}m`;
}

function dnsBlock(dns: DnsReport): string[] {
  const hidden = dns.Suspended.filter(({ Hidden }) => Hidden);
  const count = hidden.reduce((sum, { Entries }) => sum + Entries, 0);
  return [
    label("Service", "dns"),
    label("Domain", dns.Domain),
    label("Upstream", dns.Upstream.join(", ") || "none"),
    label("TTL", String(dns.TTL)),
    label("Entries", String(liveEntries(dns).length)),
    ...count === 0 ? [] : [label("Hidden", `${count} of ${hidden.length} unreachable peers`)],
    ...dns.Warnings.map((warning) => label("Warning", warning)),
  ];
}

function liveEntries(dns: DnsReport): readonly DnsEntryReport[] {
  return dns.Entries.filter(({ Tombstone }) => Tombstone === 0);
}

function dnsValue(dns: DnsReport): unknown {
  const { Domain, Upstream, Address, TTL, Listening, Suspended, Counters, Warnings } = dns;
  const Records = dns.Records.filter(({ Tombstone }) => Tombstone === 0);
  return {
    Domain,
    Upstream,
    Address,
    TTL,
    Listening,
    Entries: liveEntries(dns),
    Records,
    Suspended,
    Counters,
    Warnings,
  };
}

/** Names of our domain without it. What Weave Net does not have follows on lines of three spaces and a word. */
function dnsLines({ DNS: dns }: Report): string[] {
  if (dns === undefined) return [];
  const short = (hostname: string) =>
    hostname.toLowerCase().endsWith(`.${dns.Domain.toLowerCase()}`)
      ? hostname.slice(0, -dns.Domain.length - 1)
      : hostname;
  const line = ({ Hostname, Origin, ContainerID }: Omit<DnsEntryReport, "Address">, what: string) =>
    `${short(Hostname).padEnd(12)} ${what.padEnd(15)} ${ContainerID.slice(0, 12).padStart(12)} ${Origin}`;
  return [
    ...liveEntries(dns).map((entry) => line(entry, entry.Address)),
    ...dns.Records.filter(({ Tombstone }) => Tombstone === 0).map((entry) => line(entry, entry.Record)),
    ...dns.Suspended.map(({ Peer: Name, NickName, Entries, Since, Hidden }) => {
      const state = Hidden ? "hidden" : "suspended";
      const peer = named({ Name, NickName });
      return `   ${
        state.padEnd(9)
      } ${Entries} names of ${peer}, out of reach since ${Since}; weave rmpeer if it is gone`;
    }),
  ];
}

function mainValue(report: Report): unknown {
  const { Ready, Version, Router: router, IPAM: ipam, DNS: dns, Services: services, Proxy: proxy, Plugin: plugin } =
    report;
  return {
    Ready,
    Version,
    Router: {
      Protocol: protocolText(router),
      Name: router.Name,
      NickName: router.NickName,
      Encryption: router.Encryption,
      SecretBox: router.SecretBox,
      PeerDiscovery: router.PeerDiscovery,
      Targets: router.Targets.length,
      Connections: { Total: router.Connections.length, ...Object.fromEntries(stateCounts(router)) },
      Peers: { Total: router.Peers.length, ...peerConnectionCounts(router) },
      TrustedSubnets: router.TrustedSubnets,
      Drops: Object.fromEntries(unexpectedDrops(router)),
      Warnings: router.Warnings,
    },
    ...ipam === undefined ? {} : {
      IPAM: {
        Status: ipamStatus(ipam),
        Range: ipam.Range,
        DefaultSubnet: ipam.DefaultSubnet,
        Warnings: ipam.Warnings,
      },
    },
    ...dns === undefined ? {} : {
      DNS: {
        Domain: dns.Domain,
        Upstream: dns.Upstream,
        TTL: dns.TTL,
        Entries: liveEntries(dns).length,
        Warnings: dns.Warnings,
      },
    },
    ...services === undefined ? {} : { Services: services },
    ...proxy === undefined ? {} : { Proxy: proxy },
    ...plugin === undefined ? {} : {
      Plugin: { DriverName: plugin.DriverName, MeshDriverName: plugin.MeshDriverName },
    },
  };
}

function label(name: string, value: string): string {
  return `${name.padStart(LABEL_WIDTH)}: ${value}`;
}

function enabled(on: boolean): string {
  return on ? "enabled" : "disabled";
}

function protocolText({ Protocol: protocol, ProtocolMinVersion: min, ProtocolMaxVersion: max }: RouterReport): string {
  return `${protocol} ${min === max ? min : `${min}..${max}`}`;
}

function stateCounts(router: RouterReport): [ConnectionState, number][] {
  return STATES.map((state) => [state, router.Connections.filter(({ State }) => State === state).length]);
}

function connectionsText(router: RouterReport): string {
  const counts = stateCounts(router).filter(([, count]) => count > 0).map(([state, count]) => `${count} ${state}`);
  return counts.length === 0 ? "0" : `${router.Connections.length} (${counts.join(", ")})`;
}

function peerConnectionCounts(router: RouterReport): { established: number; pending: number } {
  const all = router.Peers.flatMap((peer) => peer.Connections);
  const established = all.filter((connection) => connection.Established).length;
  return { established, pending: all.length - established };
}

function peersText(router: RouterReport): string {
  const { established, pending } = peerConnectionCounts(router);
  const counts = [
    ...established > 0 ? [`${established} established`] : [],
    ...pending > 0 ? [`${pending} pending`] : [],
  ];
  return `${router.Peers.length}${counts.length === 0 ? "" : ` (with ${counts.join(", ")} connections)`}`;
}

/** By reason, the most frequent first. */
function unexpectedDrops(router: RouterReport): [string, number][] {
  const drops = Object.entries(router.Drops).filter(([reason, count]) => count > 0 && !EXPECTED_DROPS.has(reason));
  return drops.sort(([, a], [, b]) => b - a);
}

function dropsText(drops: readonly [string, number][]): string {
  const total = drops.reduce((sum, [, count]) => sum + count, 0);
  return `${total} (${drops.map(([reason, count]) => `${dropText(reason as DropReason)}: ${count}`).join("; ")})`;
}

function connectionLines(report: Report): string[] {
  return [
    ...report.Router.Connections.map(connectionLine),
    ...relayedLines(relayedPeers(report)),
    ...connectionNotes(report).map(({ kind, text }) => note(kind, text)),
  ];
}

function connectionLine(connection: ConnectionReport): string {
  const { Address: address, Outbound: outbound, State: state, Info: info, Attrs: attributes } = connection;
  return `${arrow(outbound)} ${address.padEnd(21)} ${state.padEnd(11)} ${info} ${attributesText(attributes ?? {})}`;
}

function attributesText(attributes: object): string {
  const shown = Object.entries(attributes).filter(([key, value]) => key !== "name" && value !== undefined);
  return shown.sort(([a], [b]) => a < b ? -1 : 1).map(([key, value]) => `${key}=${value}`).join(" ");
}

function relayedLines(relayed: readonly RelayedPeer[]): string[] {
  const lines = relayed.slice(0, MAX_RELAYED_LINES).map((peer) =>
    note("relayed", `${named(peer)} via ${named(peer.Via)}`)
  );
  const more = relayed.length - lines.length;
  return more > 0 ? [...lines, note("relayed", `and ${more} more`)] : lines;
}

interface Note {
  readonly kind: "hint" | "warning";
  readonly text: string;
}

function note(kind: Note["kind"] | "relayed" | "stranded" | "contested" | "twice", text: string): string {
  return `   ${kind.padEnd(9)} ${text}`;
}

/** What Weave Net 2.8 says of passwords, in plain words. */
const PASSWORDS: Readonly<Record<string, string>> = {
  "Unable to decrypt TCP msg": "its password is another than ours",
  "password specified, but peer requested an unencrypted connection": "it has no password, and we have one",
  "no password specificed, but peer requested an encrypted connection": "it has a password, and we have none",
};

function connectionNotes({ Router: router, IPAM: ipam }: Report): Note[] {
  return [
    ...ipam === undefined ? [] : addressNotes(ipam),
    ...router.Connections.flatMap((connection) => notesOn(connection, router)),
    ...router.Unresolved.map(unresolvedNote),
    ...turnedAwayNotes(router),
  ];
}

/** Why addresses keep peers apart, or wait for them. */
function addressNotes({ Conflicts: conflicts, Owners: owners, Paxos: paxos }: IpamReport): Note[] {
  const notes: Note[] = conflicts.map(({ Peer, Reason }) => ({
    kind: "warning",
    text: Peer === "" ? Reason : `${Peer}: ${Reason}`,
  }));
  if (owners.length === 0 && paxos?.Elector === true) {
    const text = `no agreement on addresses yet: ${paxos.Quorum} peers are needed, ${paxos.KnownNodes} known`;
    notes.push({ kind: "hint", text });
  }
  return notes;
}

function unresolvedNote(name: string): Note {
  return { kind: "hint", text: `no address is known for ${name}; it is looked up again every few seconds` };
}

function turnedAwayNotes(router: RouterReport): Note[] {
  return router.TurnedAway.map(({ Address: address, Reason: reason, SecondsAgo: seconds }) => {
    return { kind: "hint", text: `${address} was turned away ${seconds} s ago: ${PASSWORDS[reason] ?? reason}` };
  });
}

function notesOn(connection: ConnectionReport, router: RouterReport): Note[] {
  const { Carrier: carrier, Attrs: attributes, Clocks: clocks, State: state } = connection;
  const peer = carrier === null
    ? connection.Address.replace(/:\d+$/, "")
    : named({ Name: carrier.Peer, NickName: carrier.NickName });
  const notes: Note[] = [];
  const aboutPasswords = carrier === null ? PASSWORDS[connection.Info.replace(/, retry: .*/, "")] : undefined;
  if (aboutPasswords !== undefined) notes.push({ kind: "hint", text: `${peer} cannot be joined: ${aboutPasswords}` });
  if (clocks !== null) {
    const text = `clocks are too far apart: ${clocks.Ours} here, ${clocks.Theirs} at ${peer}; set the wrong one`;
    notes.push({ kind: "warning", text });
  }
  if (state === "pending") {
    const text = `UDP packets to and from ${peer} do not come through; let UDP port ${router.Port} pass both ways`;
    notes.push({ kind: "hint", text });
  }
  const mtu = attributes?.mtu;
  if (state === "established" && mtu !== undefined && mtu < router.BridgeMTU && router.BridgeMTU < UNLIMITED_MTU) {
    const text = `path MTU to ${peer} is ${mtu}, below the bridge's ${router.BridgeMTU}, so large frames travel in ` +
      `pieces; launch all routers with WEAVE_MTU=${mtu}, or let larger packets pass on the way`;
    notes.push({ kind: "warning", text });
  }
  return notes;
}

function peerLines(peer: PeerReport): string[] {
  const rows = peer.Connections.map((connection) => {
    const { Address: address, Outbound: outbound, Established: established } = connection;
    const state = established ? "established" : "pending";
    return `   ${arrow(outbound)} ${address.padEnd(21)} ${named(connection).padEnd(37)} ${state}`;
  });
  return [named(peer), ...rows];
}

function arrow(outbound: boolean): string {
  return outbound ? "->" : "<-";
}

function named({ Name: name, NickName: nickName }: { readonly Name: string; readonly NickName: string }): string {
  return `${name}(${nickName})`;
}

/** Nicknames and reasons come from peers: what would move the cursor, or begin another line, shows as a question mark. */
function printable(line: string): string {
  return line.replace(/[\p{Cc}\p{Zl}\p{Zp}\p{Bidi_Control}]/gu, "?");
}
