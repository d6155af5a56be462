/** Puts the snapshot together that status, report and metrics are made of. Cheap: it copies what the cores have at hand. */
import { formatCidr, formatEndpoint, formatIpv4 } from "../lib/ip.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import type { ConnectionId, ConnectionStatus, Mesh } from "../mesh/mesh.ts";
import type { PeerRecord } from "../wire/topology.ts";
import type { RouterOptions } from "../config/options.ts";
import { TAP_PORT } from "../host/bridge.ts";
import type { Clock } from "../host/clock.ts";
import type { Carriers } from "./carriers.ts";
import type { Datapath } from "./datapath.ts";
import {
  type ConnectionReport,
  type DnsReport,
  failedInfo,
  type IpamReport,
  liveInfo,
  NO_VERSION_CHECK,
  type PeerReport,
  type PluginReport,
  type ProxyReport,
  type Report,
  type RouterReport,
  type ServicesReport,
  type TurnedAwayReport,
} from "./status.ts";

export interface ReportSources {
  readonly options: RouterOptions;
  readonly version: string;
  readonly name: PeerName;
  readonly bridgeMtu: number;
  readonly mesh: Mesh;
  readonly carriers: Carriers;
  readonly datapath: Datapath;
  readonly clock: Clock;
  /** How far the wall clock of a connection's peer is ahead of ours, as far as it is known. */
  readonly clockAheadMs: (id: ConnectionId) => number | undefined;
  /** All parts serve. */
  readonly ready: boolean;
  /** Targets whose names are not known yet, besides those of the mesh. */
  readonly unresolved: readonly string[];
  readonly warnings: readonly string[];
  /** undefined: addresses are not allocated. */
  readonly ipam: IpamReport | undefined;
  /** undefined: there is no DNS. */
  readonly dns: DnsReport | undefined;
  readonly services: ServicesReport;
  /** undefined: `--proxy=false`. */
  readonly proxy: ProxyReport | undefined;
  /** undefined: `--plugin=false`. */
  readonly plugin: PluginReport | undefined;
}

export function makeReport(sources: ReportSources): Report {
  return {
    Ready: sources.ready,
    Version: sources.version,
    VersionCheck: NO_VERSION_CHECK,
    Router: routerReport(sources),
    ...sources.ipam === undefined ? {} : { IPAM: sources.ipam },
    ...sources.dns === undefined ? {} : { DNS: sources.dns },
    Services: sources.services,
    ...sources.proxy === undefined ? {} : { Proxy: sources.proxy },
    ...sources.plugin === undefined ? {} : { Plugin: sources.plugin },
  };
}

function routerReport(s: ReportSources): RouterReport {
  const { options, mesh, datapath } = s;
  const { drops, totals } = datapath.counters();
  const nickName = (name: PeerName) => mesh.peer(name)?.nickName ?? "";
  return {
    Protocol: "weave",
    ProtocolMinVersion: options.minProtocolVersion,
    ProtocolMaxVersion: 2,
    Encryption: options.password !== undefined,
    PeerDiscovery: options.discovery,
    Name: formatMac(s.name),
    NickName: options.nickname,
    Port: options.port,
    Peers: mesh.peers().map((peer) => peerReport(peer, nickName)),
    UnicastRoutes: mesh.unicastRoutes().map((r) => ({ Dest: formatMac(r.destination), Via: formatMac(r.via) })),
    BroadcastRoutes: mesh.broadcastRoutes().map((r) => ({ Source: formatMac(r.source), Via: r.via.map(formatMac) })),
    Connections: mesh.connections().map((connection) => connectionReport(connection, s)),
    TerminationCount: mesh.terminationCount,
    Targets: [...mesh.targets(), ...s.unresolved],
    OverlayDiagnostics: { sleeve: null },
    TrustedSubnets: options.trustedSubnets.map(formatCidr),
    Interface: `${TAP_PORT} (via TAP)`,
    CaptureStats: { PacketsReceived: totals.capturedFrames },
    MACs: datapath.fdb().map(({ mac, peer, lastSeenMs }) => ({
      Mac: formatMac(mac),
      Name: formatMac(peer),
      NickName: nickName(peer),
      LastSeen: new Date(lastSeenMs).toISOString(),
    })),
    SecretBox: options.password === undefined ? null : datapath.secretBox,
    BridgeMTU: s.bridgeMtu,
    Drops: drops,
    Totals: totals,
    Unresolved: s.unresolved,
    TurnedAway: turnedAwayReport(s),
    Warnings: s.warnings,
  };
}

function peerReport(peer: PeerRecord, nickName: (name: PeerName) => string): PeerReport {
  return {
    Name: formatMac(peer.name),
    NickName: peer.nickName,
    UID: peer.uid,
    ShortID: peer.shortId ?? 0,
    Version: peer.version,
    Connections: peer.connections.map((c) => ({
      Name: formatMac(c.peer),
      NickName: nickName(c.peer),
      Address: c.address,
      Outbound: c.outbound,
      Established: c.established,
    })),
  };
}

function turnedAwayReport({ mesh, clock }: ReportSources): TurnedAwayReport[] {
  const now = clock.monotonicMs();
  return mesh.turnedAway(now).map(({ address, reason, at }) => ({
    Address: formatIpv4(address),
    Reason: reason,
    SecondsAgo: Math.round((now - at) / 1000),
  }));
}

function connectionReport(connection: ConnectionStatus, s: ReportSources): ConnectionReport {
  const Address = formatEndpoint(connection.address);
  const none = { Address, Outbound: true, State: connection.state, Attrs: null, Carrier: null, Clocks: null };
  switch (connection.state) {
    case "connecting":
      return { ...none, Info: "" };
    case "retrying":
      return { ...none, Info: connection.error };
    case "failed": {
      const { retryAt } = connection;
      const at = retryAt === undefined ? undefined : s.clock.wallMs() + retryAt - s.clock.monotonicMs();
      return { ...none, Info: failedInfo(connection.error, at) };
    }
    case "pending":
    case "established":
      return { ...none, ...liveReport(connection, s) };
    default:
      return connection satisfies never;
  }
}

function liveReport(
  connection: ConnectionStatus & { readonly state: "pending" | "established" },
  { options, carriers, clock, clockAheadMs }: ReportSources,
): Omit<ConnectionReport, "Address" | "State"> {
  const { id, outbound, nickName, encrypted, extensions } = connection;
  const Clocks = clocksOf(clock.wallMs(), clockAheadMs(id));
  const peer = formatMac(connection.peer);
  const carrier = carriers.status(id);
  const mode = options.password === undefined ? undefined : encrypted;
  const Info = liveInfo({ encrypted: mode, overlay: carrier?.carrier ?? "", peer, nickName });
  if (carrier === undefined) return { Outbound: outbound, Info, Attrs: null, Carrier: null, Clocks };
  return {
    Outbound: outbound,
    Info,
    Clocks,
    Attrs: {
      ...(encrypted ? { encrypted } : {}),
      ...(carrier.established ? { mtu: carrier.mtu } : {}),
      name: carrier.carrier,
    },
    Carrier: {
      Peer: peer,
      NickName: nickName,
      Remote: carrier.remote === undefined ? null : formatEndpoint(carrier.remote),
      MaxPayload: carrier.maxPayload,
      StackFragments: carrier.stackFragments,
      Extensions: extensions,
      TxPackets: carrier.txPackets,
      TxOctets: carrier.txOctets,
      RxPackets: carrier.rxPackets,
      RxOctets: carrier.rxOctets,
    },
  };
}

/** Clocks further apart than this are worth a word; at 15 minutes, Weave Net's name service parts company. */
const CLOCKS_APART_MS = 60_000;

/** What to say of two clocks; null where they agree well enough, or nothing is known. @param aheadMs theirs before ours */
export function clocksOf(wallMs: number, aheadMs: number | undefined): ConnectionReport["Clocks"] {
  if (aheadMs === undefined || Math.abs(aheadMs) < CLOCKS_APART_MS) return null;
  const text = (ms: number) => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z");
  return { Ours: text(wallMs), Theirs: text(wallMs + aheadMs) };
}
