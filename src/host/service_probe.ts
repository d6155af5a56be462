/** Asks backends whether they are up. */
import type { Fd } from "../../ffi/fd.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { NetworkId } from "../service/plan.ts";

export type ProbeKind =
  | { readonly kind: "tcp" }
  /** @property path begins with "/" and has no white space */
  | { readonly kind: "http"; readonly path: string }
  | { readonly kind: "udp"; readonly payload: Uint8Array };

export interface ProbeTarget {
  readonly network: NetworkId;
  /** Path of the network's namespace, where it is isolated. */
  readonly namespace?: string | undefined;
  readonly address: Ipv4;
  readonly port: number;
}

/** `unknown`: it could not be asked, for a reason of this host. Reasons begin small, as in `connection refused`. */
export type ProbeResult =
  | { readonly outcome: "up" }
  | { readonly outcome: "down" | "unknown"; readonly reason: string };

export interface ProbeOptions {
  readonly target: ProbeTarget;
  readonly check: ProbeKind;
  readonly timeoutMs: number;
}

/** Tells when a descriptor is ready: `ControlSockets`. */
export interface ReadyWatcher {
  watch(fd: Fd, onReady: () => void, interest?: "readable" | "writable"): () => void;
}

export class ServiceProbes implements Disposable {
  constructor(_watcher: ReadyWatcher, _options: { readonly limit?: number } = {}) {}

  /** Asks once; the result comes later, never before this has returned, unless the function it returns is called. */
  probe(_options: ProbeOptions, _onResult: (result: ProbeResult) => void): () => void {
    throw new Error("to come");
  }

  /** Ends all that are under way, with no word to anybody. */
  [Symbol.dispose](): void {}
}
