/** What rules of others do to the flows of one service through this host, in words. */
import { describeBlocker, type FilterTable, findBlocker, type Flow, readFilters } from "../host/blockers.ts";
import { type Links, readSysctl } from "../host/links.ts";
import { splitPlan } from "../host/service_isolated.ts";
import { MESH_LEG } from "../host/service_leg.ts";
import { OURS } from "../host/service_marks.ts";
import { cidrContains, formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { formatPortRange } from "../lib/ports.ts";
import { HOST_NETWORK, type NetworkId, type ServicePlan, WEAVE_NETWORK } from "../service/plan.ts";
import { hostAddresses } from "./network_addresses.ts";
import type { Services } from "./services.ts";

/** Flows of one service that are looked at: others of it go the same ways. */
const MAX_FLOWS = 64;
const ADVICE = `let pass there what has ct mark & 0x${OURS.toString(16).padStart(8, "0")} != 0`;

/** Reads the host's packet filter. Never rejects: whoever asks wants to see the service. */
export async function blockersOf({ planned, o }: Services, name: string): Promise<readonly string[]> {
  if (planned === undefined) return [];
  const flows = flowsOf(planned.plan, name, { bridge: o.plumbing.host.bridge, links: o.links });
  if (flows.length === 0) return [];
  try {
    const filters = await readFilters();
    const stopped = new Map<string, Set<string>>();
    for (const flow of flows) {
      const blocker = findBlocker(filters, flow);
      if (blocker === undefined) continue;
      const line = await describeBlocker(blocker);
      const ports = formatPortRange({ protocol: flow.protocol, first: flow.port, last: flow.port });
      stopped.set(line, (stopped.get(line) ?? new Set()).add(`${formatIpv4(flow.address)}:${ports}`));
    }
    const lines = [...stopped].map(([line, to]) => `${line} drops what goes to ${[...to].join(", ")}: ${ADVICE}`);
    return [...lines, ...await bridgeBlocked(filters, flows, o.plumbing.host.bridge)];
  } catch (error) {
    return [`Rules of others cannot be read: ${(error as Error).message}`];
  }
}

/** Frames of the mesh that somebody drops between ports of the bridge; containers suffer alike. */
async function bridgeBlocked(
  filters: readonly FilterTable[],
  flows: readonly Flow[],
  bridge: string,
): Promise<string[]> {
  // Else they do not pass there.
  if (readSysctl("net/bridge/bridge-nf-call-iptables") !== 1) return [];
  const flow = flows.find(({ from, to }) => from === bridge || to === bridge || to === MESH_LEG);
  if (flow === undefined) return [];
  const blocker = findBlocker(filters, { ...flow, hook: "forward", from: bridge, to: bridge, bridged: true });
  if (blocker === undefined) return [];
  const line = await describeBlocker(blocker);
  return [
    `${line} drops frames on the bridge ${bridge}: let pass there what comes in by ${bridge} and goes out by ${bridge}`,
  ];
}

function flowsOf(
  plan: ServicePlan,
  name: string,
  { bridge, links }: { readonly bridge: string; readonly links: Links },
): Flow[] {
  const { listeners, backends, networks } = splitPlan(plan).here;
  const byId = new Map(backends.map((backend) => [backend.id, backend]));
  const local = new Set(hostAddresses(links));
  const linkOf = (network: NetworkId, mesh: string) =>
    network === WEAVE_NETWORK ? mesh : networks.find(({ id }) => id === network)?.interfaces[0];
  const out = links.find(MESH_LEG) === undefined ? bridge : MESH_LEG;
  const found = new Map<string, Flow>();
  for (const { service, network, protocol, targets } of listeners) {
    if (service !== name) continue;
    for (const { backend: id, firstPort: port } of targets) {
      const backend = byId.get(id);
      if (backend === undefined || found.size >= MAX_FLOWS) continue;
      const { address } = backend;
      const isLocal = local.has(address) || address >>> 24 === 127;
      const flow: Flow = {
        hook: isLocal ? "input" : "forward",
        from: linkOf(network, bridge),
        to: backend.network === HOST_NETWORK ? routeTo(links, address) : linkOf(backend.network, out),
        protocol,
        address,
        port,
      };
      found.set(JSON.stringify(flow), flow);
    }
  }
  return [...found.values()];
}

/** The link by which the host itself goes there. */
function routeTo(links: Links, address: Ipv4): string | undefined {
  const ways = links.routes().filter(({ destination }) => cidrContains(destination, address));
  ways.sort((a, b) => b.destination.prefixLength - a.destination.prefixLength || (a.metric ?? 0) - (b.metric ?? 0));
  const link = ways[0]?.link;
  return links.list().find(({ index }) => index === link)?.name;
}
