/** Who answers for an address, and where its flows go: pure choices that all gateways make alike, of the same records. */
import type { Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import type { PortRange } from "../lib/ports.ts";
import type { ExportRecord, ImportRecord, Known } from "./records.ts";

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
export declare function electHolder(name: string, candidates: readonly Candidate[]): PeerName | undefined;

/** Candidates for a virtual address of a service: reachable importers that offer it in that address's subnet. */
export declare function importCandidates(imports: readonly Known<ImportRecord>[], address: Ipv4): readonly Candidate[];

/** Candidates for an address of a network that no gateway owns: reachable exporters that listen there, each once. */
export declare function exportCandidates(
  exports: readonly Known<ExportRecord>[],
  network: string,
  address: Ipv4,
): readonly Candidate[];

/**
 * Who gets new flows to a service's ports: of active records within reach the best gateway and backend priority with a backend that is
 * healthy, and of those all, by weight (1 to 256). Where none is healthy, those of which nobody knows. Ascending by owner.
 * @param ports one of the service's ranges, or a part of one
 */
export declare function sharesOf(imports: readonly Known<ImportRecord>[], ports: PortRange): readonly Share[];
