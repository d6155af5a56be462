/**
 * Desired state: what a service file says this gateway should have, and what has to change. Values in, values and text out: the file
 * itself is read by the command line.
 *
 *     networks:
 *       site: eth1                                     # or { interfaces: [eth1, eth2], isolated: true }
 *     services:
 *       - name: db
 *         import:
 *           to: ["192.168.1.5:5432", "192.168.1.6:5432,priority=1"]
 *           network: site                              # port, priority, weight, check, subnets, allow-local, state
 *         export:
 *           - listen: "5432"                           # port, network, allow, dns, force
 *
 * A part that is not there is left alone; of one that is there, what it does not name is removed.
 */
import { OptionError } from "../lib/errors.ts";
import type { Json } from "../lib/json.ts";
import type { ExportSpec, ImportSpec } from "./records.ts";
import type { NetworkSpec, SpecContext } from "./spec.ts";

/** What a gateway has, or should have, of its own. */
export interface GatewayState {
  readonly networks: readonly NetworkSpec[];
  readonly imports: readonly ImportSpec[];
  readonly exports: readonly ExportSpec[];
}

/** Undefined: left alone. */
export interface DesiredState {
  readonly networks: readonly NetworkSpec[] | undefined;
  readonly services: Pick<GatewayState, "imports" | "exports"> | undefined;
}

/** In the order in which they are to be done: what is no more first, then networks before what needs them. */
export type Change =
  | { readonly type: "removeExport"; readonly before: ExportSpec }
  | { readonly type: "removeImport"; readonly before: ImportSpec }
  | { readonly type: "removeNetwork"; readonly before: NetworkSpec }
  | { readonly type: "setNetwork"; readonly before: NetworkSpec | undefined; readonly after: NetworkSpec }
  | { readonly type: "setImport"; readonly before: ImportSpec | undefined; readonly after: ImportSpec }
  | { readonly type: "setExport"; readonly before: ExportSpec | undefined; readonly after: ExportSpec };

/** What is wrong with a desired state, and where. */
export class DesiredError extends OptionError {
  /** @param path keys and places from the top */
  constructor(readonly path: readonly (string | number)[], message: string) {
    super(message);
  }
}

/** @param value as parsed from a file @throws DesiredError */
export declare function checkDesired(value: unknown, context: SpecContext): DesiredState;

export declare function differenceOf(actual: GatewayState, desired: DesiredState): readonly Change[];

/** For people: a line for each change, and under it what is different; "Nothing to change" where there is none. Ends in a line end. */
export declare function renderChanges(changes: readonly Change[]): string;

/** The value of a file that applies as no change. */
export declare function configOf(state: GatewayState): Json;
