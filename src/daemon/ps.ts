/** `ps`: who is plugged into the bridge (parity 1.5). */
import type { Mac } from "../lib/mac.ts";
import type { Cidr } from "../lib/ip.ts";
import type { HostPaths } from "./plumbing.ts";

export interface PsOptions {
  /** Containers as typed; none means the host and everything attached. */
  readonly containers: readonly string[];
  readonly host?: HostPaths;
}

export interface PsEntry {
  /** What to print first: `weave:expose`, 12 characters of what was asked for or of the id, or a whole `netns-` id. */
  readonly label: string;
  /** Full id. */
  readonly id: string;
  readonly mac: Mac;
  readonly addresses: readonly Cidr[];
}

/** Rejects with `Link not found` where there is no bridge. */
export function ps(_options: PsOptions): Promise<readonly PsEntry[]> {
  throw new Error("Not built yet");
}

/** The line `weave ps` prints for an entry: `<label> <mac> <cidr> …`. */
export function formatPsEntry(_entry: PsEntry): string {
  throw new Error("Not built yet");
}
