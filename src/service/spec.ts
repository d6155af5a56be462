/**
 * What people ask for, from words to values: targets, ports, checks, names, networks, where to listen and for whom. The command line and
 * service files come through here alike. Whatever is wrong ends in one `SpecError` of one line.
 */
import { OptionError } from "../lib/errors.ts";
import type { Cidr, Ipv4 } from "../lib/ip.ts";
import type { PortRange } from "../lib/ports.ts";
import type { Backend, CheckSpec, ExportSpec, ImportSpec, ImportState, Listen } from "./records.ts";

/** What is wrong with what the user asked for. */
export class SpecError extends OptionError {
  /** @param field of `ImportInput`, `ExportInput` or `NetworkInput` */
  constructor(readonly field: string, message: string) {
    super(message);
  }
}

/** What the words are held against. Leave out what cannot be known where they are read; the router looks again. */
export interface SpecContext {
  /** The DNS domain, `weave.local.`. */
  readonly domain: string;
  /** Names of networks there are beside `host` and `weave`; undefined: whatever is well formed. */
  readonly networks?: readonly string[];
  /** The gateway's own addresses in a network, virtual ones it answers for among them. */
  readonly ownAddresses?: (network: string) => readonly Ipv4[];
}

/** As the command line has it; texts as people write them. */
export interface ImportInput {
  readonly name: string;
  /** `HOST:PORT[-PORT][/udp][,priority=N][,weight=N][,network=NAME]` */
  readonly to: readonly string[];
  readonly network?: string | undefined;
  /** `P[-Q][/udp],…`, each item perhaps several; absent: the targets' own. */
  readonly port?: readonly string[] | undefined;
  readonly priority?: string | undefined;
  readonly weight?: string | undefined;
  /** `tcp|none|http:PATH|udp:PAYLOAD[,interval=…][,timeout=…][,rise=N][,fall=N]` */
  readonly check?: string | undefined;
  readonly subnets?: readonly string[] | undefined;
  readonly allowLocal?: boolean | undefined;
  readonly state?: ImportState | undefined;
}

export interface ExportInput {
  /** `NAME[:PORT]` */
  readonly name: string;
  /** `[ADDRESS:]PORT[-PORT][/udp]` */
  readonly listen: string;
  readonly network?: string | undefined;
  /** `CIDR,…`, each item perhaps several; absent: everybody. */
  readonly allow?: readonly string[] | undefined;
  readonly dns?: boolean | undefined;
  readonly force?: boolean | undefined;
}

/** A network of the gateway. */
export interface NetworkSpec {
  readonly name: string;
  readonly interfaces: readonly string[];
  readonly isolated: boolean;
}

/** One of `--to`. */
export interface Target {
  readonly host: Ipv4 | string;
  readonly ports: PortRange;
  readonly priority: number;
  readonly weight: number;
  /** Undefined: that of the import. */
  readonly network: string | undefined;
}

export const DEFAULT_CHECK: CheckSpec = {
  kind: "tcp",
  payload: "",
  intervalMs: 1_000,
  timeoutMs: 800,
  rise: 2,
  fall: 2,
};

/** @throws SpecError */
export declare function parseImport(input: ImportInput, context: SpecContext): ImportSpec;

/** @throws SpecError */
export declare function parseExport(input: ExportInput, context: SpecContext): ExportSpec;

/** The same service somewhere else: `weave service bind`. It is active again. @throws SpecError */
export declare function rebind(spec: ImportSpec, to: readonly string[], context: SpecContext): ImportSpec;

/** `NAME=INTERFACE[,…][:isolated]` @throws SpecError */
export declare function parseNetwork(text: string): NetworkSpec;

/** @throws SpecError */
export declare function parseTarget(text: string): Target;

/** @throws SpecError */
export declare function parseCheck(text: string): CheckSpec;

/** What `parseCheck()` reads. */
export declare function formatCheck(check: CheckSpec): string;

/** @throws SpecError */
export declare function parseListen(text: string): Listen;

/** `HOST:PORT…`, as `parseTarget()` reads it, with what is not the default. */
export declare function formatBackend(backend: Backend, defaultNetwork: string): string;

/** Texts with commas, each perhaps several. @throws SpecError */
export declare function parseCidrs(field: string, texts: readonly string[]): readonly Cidr[];

/** A name as records and DNS have it, in lower case. @throws SpecError */
export declare function checkServiceName(text: string): string;

/**
 * Why an address cannot be a backend unless `--allow-local` says so, to be put behind "Cannot import …: "; undefined: it can. To be asked
 * again for what a DNS name turns out to be.
 */
export declare function refusedBackend(address: Ipv4, own: readonly Ipv4[]): string | undefined;

/**
 * Why an export would cut the administrator off, unless `--force` says so; undefined: it would not.
 * @param listening ports on which the host itself listens at that address
 */
export declare function refusedListen(listen: Listen, listening: readonly PortRange[]): string | undefined;

/** Ranges of an import that an export offers, at the export's ports. Undefined: it has no such port, or not so many. */
export declare function exportedPorts(spec: ExportSpec, ports: readonly PortRange[]): PortRange | undefined;
