/**
 * What gateways tell each other about services, on the channel `weave-services`: JSON, checked field by field, of which nothing is
 * believed that is not checked. A message has 256 KiB at most.
 *
 *     heads    { type, heads: [[owner, life, floor, seq, check], …] }       how far the teller knows each owner's records
 *     want     { type, owner, life, since }                                 tell me what changed after that
 *     records  { type, owner, life, floor, since, seq, check, full, last, records: [{ seq, gone?: key } | { seq, … }, …] }
 *
 * Peers are written as `aa:bb:cc:dd:ee:ff`, addresses, subnets and ports as people write them.
 */
import type { Cidr, Ipv4 } from "../lib/ip.ts";
import { formatIpv4 } from "../lib/ip.ts";
import { formatPortRange, type PortRange } from "../lib/ports.ts";

/** A backend: where a service really is, and which of the service's ports it serves. */
export interface Backend {
  /** An address of `network`, or a DNS name: of a container where it lies in the DNS domain, else as the gateway's host resolves it. */
  readonly host: Ipv4 | string;
  /** `host`, `weave`, or a named one of the owner. */
  readonly network: string;
  /** One of the service's port ranges. */
  readonly serves: PortRange;
  /** What its first port is here; the others keep their distance to it. */
  readonly firstPort: number;
  /** Lower is better, 0 to 255. */
  readonly priority: number;
  /** 1 to 256. */
  readonly weight: number;
}

/** How a backend is found to be healthy. */
export interface CheckSpec {
  readonly kind: "tcp" | "udp" | "http" | "none";
  /** Of `http`: the path; of `udp`: what is sent. Empty for others. */
  readonly payload: string;
  readonly intervalMs: number;
  readonly timeoutMs: number;
  /** How many successes in a row make it healthy, how many failures ill. */
  readonly rise: number;
  readonly fall: number;
}

/** `draining`: no new flows; `revoked`: no flows at all, those there were are reset. */
export type ImportState = "active" | "draining" | "revoked";

/** What the user asked for. */
export interface ImportSpec {
  /** One DNS label in lower case. */
  readonly name: string;
  /** Of backends for which nothing else is said. */
  readonly network: string;
  /** Not empty, none overlaps another. */
  readonly ports: readonly PortRange[];
  /** Not empty. */
  readonly backends: readonly Backend[];
  readonly check: CheckSpec;
  /** Of this gateway: lower is better, 0 to 255. */
  readonly priority: number;
  /** Of this gateway, 1 to 256. */
  readonly weight: number;
  /** Where it is offered; empty: in the default subnet of the gateway. */
  readonly subnets: readonly Cidr[];
  readonly allowLocal: boolean;
  readonly state: ImportState;
}

/** Where a service can be seen in a subnet. */
export interface Offer {
  readonly subnet: Cidr;
  /** The virtual address that the owner proposes; see `virtualAddresses()`. */
  readonly address: Ipv4;
  /** Unix milliseconds: when this address was first proposed, by whomever. */
  readonly since: number;
  /** Where other gateways reach the owner's backends, with the service's own ports; undefined while nobody needs it. */
  readonly relay: Ipv4 | undefined;
}

export type BackendHealth = "up" | "down" | "unknown";

/** An address that a gateway answers for. */
export interface Held {
  readonly address: Ipv4;
  /** There are flows through it: whoever holds it keeps it. */
  readonly flows: boolean;
}

export interface ImportStatus {
  /** Of each backend, in the order of `spec.backends`. */
  readonly health: readonly BackendHealth[];
  /** Virtual addresses that the owner answers for. */
  readonly holding: readonly Held[];
}

export interface ImportRecord {
  readonly kind: "import";
  readonly spec: ImportSpec;
  readonly offers: readonly Offer[];
  readonly status: ImportStatus;
}

/** Where clients of a network find a service. */
export interface Listen {
  /** `own`: every address of the gateway in that network. */
  readonly address: Ipv4 | "own";
  readonly ports: PortRange;
}

/** What the user asked for. */
export interface ExportSpec {
  /** A service's name, or the DNS name of a container in the domain, with dots, without a dot at its end. */
  readonly name: string;
  /** The service's first port, of the protocol that `listen` has; undefined: its only range of that protocol. */
  readonly port: number | undefined;
  /** `host`, or a named one. */
  readonly network: string;
  readonly listen: Listen;
  /** Sources that may use it; undefined: all. */
  readonly allow: readonly Cidr[] | undefined;
  /** The name is answered with the address on that network. */
  readonly dns: boolean;
  /** Also where the host itself listens. */
  readonly force: boolean;
}

export interface ExportStatus {
  /** Some target is healthy: the owner can answer. */
  readonly ready: boolean;
  /** Where `listen.address` is nobody's own: the owner answers for it. */
  readonly holding: Held | undefined;
}

export interface ExportRecord {
  readonly kind: "export";
  readonly spec: ExportSpec;
  readonly status: ExportStatus;
}

export type ServiceRecord = ImportRecord | ExportRecord;

/** Which of an owner's records: `import NAME`, or `export NAME NETWORK LISTEN`. */
export type RecordKey = string;

export function keyOf(record: ServiceRecord): RecordKey {
  const { kind, spec } = record;
  if (kind === "import") return `import ${spec.name}`;
  return `export ${spec.name} ${spec.network} ${formatListen(spec.listen)}`;
}

/** `[ADDRESS:]PORT[-PORT][/udp]`, as `--listen` takes it. */
export function formatListen({ address, ports }: Listen): string {
  return `${address === "own" ? "" : `${formatIpv4(address)}:`}${formatPortRange(ports)}`;
}
