/** A report as Prometheus text exposition 0.0.4: Weave Net 2.8's metrics, those of a process, and ours. */
import { DROP_REASONS, type DropReason, dropText } from "../datapath/counters.ts";
import type { ProcessStats } from "../host/process_stats.ts";
import type { ConnectionReport, IpamReport, Report } from "./status.ts";
import { relayedPeers } from "./status_texts.ts";

interface Family {
  readonly name: string;
  readonly type: "gauge" | "counter";
  readonly help: string;
  readonly samples: readonly Sample[];
}

/** Labels are written in the order they stand here: alphabetical. */
type Sample = readonly [labels: Readonly<Record<string, string>>, value: number];

export function formatMetrics(report: Report, process: ProcessStats): string {
  return [...weaveFamilies(report), ...ourFamilies(report), ...processFamilies(process)].map(formatFamily).join("");
}

function weaveFamilies({ Router: router, IPAM: ipam, DNS: dns }: Report): Family[] {
  const own = dns?.Entries.filter(({ Origin, Tombstone }) => Origin === router.Name && Tombstone === 0);
  return [
    {
      name: "weave_connections",
      type: "gauge",
      help: "Number of peer-to-peer connections.",
      samples: connectionSamples(router.Connections),
    },
    counter(
      "weave_connection_terminations_total",
      "Number of peer-to-peer connections terminated.",
      router.TerminationCount,
    ),
    ...ipam === undefined ? [] : ipamFamilies(ipam),
    ...own === undefined ? [] : [gauge("weave_dns_entries", "Number of DNS entries.", own.length)],
  ];
}

/** Their names are Weave Net's, all but the last. */
function ipamFamilies(ipam: IpamReport): Family[] {
  const gone = ipam.Owners.filter(({ Reachable }) => !Reachable);
  const stranded = gone.reduce((sum, { Size }) => sum + Size, 0);
  const twice = ipam.Contested.filter(({ HeldTwice }) => HeldTwice).length;
  return [
    {
      name: "weave_ips",
      type: "gauge",
      help: "Number of IP addresses.",
      samples: [[{ state: "local-used" }, ipam.ActiveIPs]],
    },
    gauge("weave_max_ips", "Size of IP address space used by allocator.", ipam.RangeNumIPs),
    gauge("weave_ipam_unreachable_count", "Number of unreachable peers.", gone.length),
    gauge(
      "weave_ipam_unreachable_percentage",
      "Percentage of IP addresses owned by unreachable peers.",
      stranded * 100 / ipam.RangeNumIPs,
    ),
    gauge("weave_ipam_pending_allocates", "Number of pending allocates.", ipam.PendingAllocates.length),
    gauge("weave_ipam_pending_claims", "Number of pending claims.", ipam.PendingClaims.length),
    gauge("weave_ipam_held_twice", "Number of IP addresses in use here that another peer has given out.", twice),
  ];
}

/** What there is right now, among what only grows. */
const DNS_GAUGES: ReadonlySet<string> = new Set(["pending"]);

function dnsFamilies({ DNS: dns }: Report): Family[] {
  if (dns === undefined) return [];
  const counts = Object.entries(dns.Counters);
  const suspended = dns.Suspended.reduce((sum, { Entries }) => sum + Entries, 0);
  return [
    {
      name: "weave_dns_events_total",
      type: "counter",
      help: "What came to the DNS server, and what became of it.",
      samples: counts.filter(([event]) => !DNS_GAUGES.has(event)).map(([event, count]): Sample => [{ event }, count]),
    },
    ...counts.filter(([event]) => DNS_GAUGES.has(event)).map(([event, count]) =>
      gauge(`weave_dns_${event}`, "Number of DNS questions that wait for other servers.", count)
    ),
    gauge("weave_dns_suspended_entries", "Number of DNS entries of peers that are out of reach.", suspended),
  ];
}

function serviceFamilies({ Services: services }: Report): Family[] {
  if (services === undefined) return [];
  const { Backends: backends, Rejections: rejections } = services;
  return [
    gauge("weave_services_imported", "Number of services that this host imports.", services.Imports),
    gauge("weave_services_exported", "Number of exports of this host.", services.Exports),
    gauge("weave_services_known", "Number of imports and exports of all peers.", services.Known),
    {
      name: "weave_service_backends",
      type: "gauge",
      help: "Number of backends of this host's services, by health.",
      samples: [
        [{ health: "down" }, backends.Down],
        [{ health: "unknown" }, backends.Unknown],
        [{ health: "up" }, backends.Up],
      ],
    },
    gauge("weave_service_addresses_held", "Number of addresses that this host answers for.", services.Holding.length),
    counter(
      "weave_service_rejections_total",
      "Count of what other peers said of services and was not taken.",
      rejections.reduce((sum, { Count }) => sum + Count, 0),
    ),
  ];
}

/**
 * For each state and type there is, and always for established sleeve, both values of encryption: a rule that watches for zero
 * established connections needs the zero.
 */
function connectionSamples(connections: readonly ConnectionReport[]): Sample[] {
  const counts = new Map<string, number>();
  const key = (encryption: string, state: string, type: string) => JSON.stringify({ encryption, state, type });
  const seen = (state: string, type: string) => {
    for (const encryption of ["", "yes"]) {
      const at = key(encryption, state, type);
      counts.set(at, counts.get(at) ?? 0);
    }
  };
  seen("established", "sleeve");
  for (const { State: state, Attrs: attributes } of connections) {
    const type = attributes?.name ?? "unknown";
    seen(state, type);
    const at = key(attributes?.encrypted ? "yes" : "", state, type);
    counts.set(at, counts.get(at)! + 1);
  }
  return [...counts].sort(([a], [b]) => a < b ? -1 : 1).map(([labels, count]) => [JSON.parse(labels), count]);
}

function ourFamilies(report: Report): Family[] {
  const { Router: router, Version: version } = report;
  const totals = Object.entries(router.Totals).map(([name, value]) => {
    const words = name.replace(/[A-Z]/g, (letter) => ` ${letter.toLowerCase()}`);
    return counter(`weave_${words.replaceAll(" ", "_")}_total`, `Count of ${words} on the packet path.`, value);
  });
  return [
    {
      name: "weave_build_info",
      type: "gauge",
      help: "Always 1; the label says what runs.",
      samples: [[{ version }, 1]],
    },
    gauge("weave_peers", "Number of known peers, this one included.", router.Peers.length),
    gauge("weave_relayed_peers", "Number of peers reached over another peer only.", relayedPeers(report).length),
    gauge("weave_targets", "Number of addresses this router was told to connect to.", router.Targets.length),
    gauge("weave_bridge_mtu_octets", "MTU of the bridge that containers are plugged into.", router.BridgeMTU),
    gauge("weave_learned_macs", "Number of learned MAC addresses.", router.MACs.length),
    {
      name: "weave_drops_total",
      type: "counter",
      help: `Frames and packets that went no further. ${
        DROP_REASONS.map((reason: DropReason) => `${reason}: ${dropText(reason)}`).join("; ")
      }.`,
      samples: Object.entries(router.Drops).map(([reason, count]) => [{ reason }, count]),
    },
    ...totals,
    trafficFamily("packets", "Packets of the overlay, by peer and direction.", router.Connections),
    ...dnsFamilies(report),
    ...serviceFamilies(report),
    trafficFamily("octets", "UDP payload of the overlay, by peer and direction.", router.Connections),
  ];
}

/** While one connection takes the place of another there are two to a peer: a sample twice would make all of it unreadable. */
function trafficFamily(unit: "packets" | "octets", help: string, connections: readonly ConnectionReport[]): Family {
  const sums = new Map<string, { received: number; sent: number }>();
  for (const { Carrier: carrier } of connections) {
    if (carrier === null) continue;
    const sum = sums.get(carrier.Peer) ?? { received: 0, sent: 0 };
    sum.received += unit === "packets" ? carrier.RxPackets : carrier.RxOctets;
    sum.sent += unit === "packets" ? carrier.TxPackets : carrier.TxOctets;
    sums.set(carrier.Peer, sum);
  }
  const samples = [...sums].flatMap(([peer, { received, sent }]): Sample[] => [
    [{ direction: "received", peer }, received],
    [{ direction: "sent", peer }, sent],
  ]);
  return { name: `weave_peer_${unit}_total`, type: "counter", help, samples };
}

/** Names and units are those of every Prometheus client. */
function processFamilies(p: ProcessStats): Family[] {
  return [
    counter("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.", p.cpuSeconds),
    gauge("process_max_fds", "Maximum number of open file descriptors.", p.maxFds),
    gauge("process_open_fds", "Number of open file descriptors.", p.openFds),
    gauge("process_resident_memory_bytes", "Resident memory size in bytes.", p.residentOctets),
    gauge("process_start_time_seconds", "Start time of the process since unix epoch in seconds.", p.startSeconds),
    gauge("process_threads", "Number of OS threads in the process.", p.threads),
    gauge("process_virtual_memory_bytes", "Virtual memory size in bytes.", p.virtualOctets),
  ];
}

function gauge(name: string, help: string, value: number): Family {
  return { name, type: "gauge", help, samples: [[{}, value]] };
}

function counter(name: string, help: string, value: number): Family {
  return { name, type: "counter", help, samples: [[{}, value]] };
}

function formatFamily({ name, type, help, samples }: Family): string {
  const lines = samples.map(([labels, value]) => `${name}${formatLabels(labels)} ${formatValue(value)}\n`);
  return `# HELP ${name} ${escapeHelp(help)}\n# TYPE ${name} ${type}\n${lines.join("")}`;
}

function formatLabels(labels: Readonly<Record<string, string>>): string {
  const pairs = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`);
  return pairs.length === 0 ? "" : `{${pairs.join(",")}}`;
}

function formatValue(value: number): string {
  return value === Infinity ? "+Inf" : String(value);
}

function escapeHelp(text: string): string {
  return text.replaceAll("\\", "\\\\").replaceAll("\n", "\\n");
}

function escapeLabel(text: string): string {
  return escapeHelp(text).replaceAll('"', '\\"');
}
