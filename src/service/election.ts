/** Who answers for an address, and where its flows go: pure choices that all gateways make alike, of the same records. */
import { cidrContains, type Ipv4 } from "../lib/ip.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import type { PortRange } from "../lib/ports.ts";
import { MAX_WEIGHT } from "../wire/service.ts";
import type { BackendHealth, ExportRecord, Held, ImportRecord, Known } from "./records.ts";

export interface Candidate {
  readonly owner: PeerName;
  /** Lower is better. */
  readonly priority: number;
  /** 2: healthy; 1: nobody knows yet, which is better than nothing; 0: not at all. */
  readonly standing: 0 | 1 | 2;
  /** It answers now, and has flows. */
  readonly incumbent: boolean;
}

/** Backends of one gateway that new flows go to. */
export interface Share {
  readonly owner: PeerName;
  /** Of all of `backends` together. */
  readonly weight: number;
  /** Places in `spec.backends`, and what each one's weight is beside those of all owners. */
  readonly backends: readonly { readonly index: number; readonly weight: number }[];
}

/**
 * The holder: of those with the best standing, an incumbent; else the best priority; then the one whose hash with the name is greatest.
 * @param name what it is about; different names spread over gateways
 */
export function electHolder(name: string, candidates: readonly Candidate[]): PeerName | undefined {
  const standing = Math.max(0, ...candidates.map((candidate) => candidate.standing));
  if (standing === 0) return undefined;
  let able = candidates.filter((candidate) => candidate.standing === standing);
  const incumbents = able.filter(({ incumbent }) => incumbent);
  if (incumbents.length > 0) able = incumbents;
  const priority = Math.min(...able.map((candidate) => candidate.priority));
  let [holder, greatest] = [undefined as PeerName | undefined, -1];
  for (const candidate of able) {
    if (candidate.priority !== priority) continue;
    const hash = rendezvous(name, candidate.owner);
    if (hash > greatest || hash === greatest && candidate.owner < holder!) {
      [holder, greatest] = [candidate.owner, hash];
    }
  }
  return holder;
}

/** Candidates for a virtual address of a service: reachable importers that offer it in that address's subnet. */
export function importCandidates(imports: readonly Known<ImportRecord>[], address: Ipv4): readonly Candidate[] {
  return imports
    .filter(({ reachable, record }) => reachable && record.offers.some(({ subnet }) => cidrContains(subnet, address)))
    .map(({ owner, record: { spec, status } }) => {
      const incumbent = holds(status.holding, address);
      // One that takes no new flows keeps what it has.
      const able = spec.state === "active" || spec.state === "draining" && incumbent;
      return { owner, priority: spec.priority, standing: able ? standingOf(status.health) : 0, incumbent };
    });
}

/** Candidates for an address of a network that no gateway owns: reachable exporters that listen there, each once. */
export function exportCandidates(
  exports: readonly Known<ExportRecord>[],
  network: string,
  address: Ipv4,
): readonly Candidate[] {
  const candidates = new Map<PeerName, Candidate>();
  for (const { owner, reachable, record: { spec, status } } of exports) {
    if (!reachable || spec.network !== network || spec.listen.address !== address) continue;
    const before = candidates.get(owner);
    candidates.set(owner, {
      owner,
      priority: 0,
      standing: status.ready || before?.standing === 2 ? 2 : 0,
      incumbent: before?.incumbent === true || status.holding !== undefined && holds([status.holding], address),
    });
  }
  return [...candidates.values()];
}

/**
 * Who gets new flows to a service's ports: of active records within reach the best gateway and backend priority with a backend that is
 * healthy, and of those all, by weight (1 to 256). Where none is healthy, those of which nobody knows. Ascending by owner.
 * @param ports one of the service's ranges, or a part of one
 */
export function sharesOf(imports: readonly Known<ImportRecord>[], ports: PortRange): readonly Share[] {
  const able = imports.filter(({ reachable, record }) => reachable && record.spec.state === "active");
  const found = able.flatMap(({ owner, record: { spec, status } }) =>
    spec.backends.map((backend, index) => ({
      owner,
      index,
      serves: covers(backend.serves, ports),
      health: status.health[index],
      rank: spec.priority * RANKS + backend.priority,
      weight: spec.weight * backend.weight,
    })).filter(({ serves, health }) => serves && health !== "down")
  );
  const healthy = found.some(({ health }) => health === "up") ? found.filter(({ health }) => health === "up") : found;
  const rank = Math.min(...healthy.map((each) => each.rank));
  const chosen = healthy.filter((each) => each.rank === rank);
  const shares = Map.groupBy(chosen, ({ owner }) => owner);
  const sumOf = (backends: readonly { readonly weight: number }[]) =>
    backends.reduce((sum, { weight }) => sum + weight, 0);
  const scale = Math.min(1, MAX_WEIGHT / Math.max(...[...shares.values()].map(sumOf)));
  const scaled = (weight: number) => Math.max(1, Math.round(weight * scale));
  return [...shares].sort(([a], [b]) => a - b).map(([owner, backends]) => ({
    owner,
    weight: scaled(sumOf(backends)),
    backends: backends.map(({ index, weight }) => ({ index, weight: scaled(weight) })),
  }));
}

/** More than there are priorities. */
const RANKS = 256;

function covers(range: PortRange, ports: PortRange): boolean {
  return range.protocol === ports.protocol && range.first <= ports.first && ports.last <= range.last;
}

function holds(holding: readonly Held[], address: Ipv4): boolean {
  return holding.some((held) => held.address === address && held.flows);
}

function standingOf(health: readonly BackendHealth[]): 0 | 1 | 2 {
  return health.includes("up") ? 2 : health.includes("unknown") ? 1 : 0;
}

/** The same everywhere and at any time: it is part of what gateways have agreed on. */
function rendezvous(name: string, peer: PeerName): number {
  const text = `${name} ${formatMac(peer)}`;
  let hash = 0x811c9dc5;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  // Peers' names differ in few places: let each bit count everywhere.
  hash = Math.imul(hash ^ hash >>> 16, 0x85ebca6b);
  hash = Math.imul(hash ^ hash >>> 13, 0xc2b2ae35);
  return (hash ^ hash >>> 16) >>> 0;
}
