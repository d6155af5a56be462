/** The control API, and the read-only part of it on listeners of its own. */
import type { Logger } from "../lib/log.ts";
import type { ReportViews, RouterControl } from "./types.ts";

export interface ApiOptions {
  readonly control: RouterControl;
  readonly views: ReportViews;
  readonly log: Logger;
  /** Each is `ip:port`, the absolute path of a unix socket, or empty for none. The control API listens on loopback only. */
  readonly httpAddr: string;
  readonly statusAddr: string;
  readonly metricsAddr: string;
  /** `POST /debug/spin?ms=…` keeps the main thread busy, for tests of the packet thread. */
  readonly spin?: boolean;
}

export interface ApiServer {
  /** Where the control API listens: what was asked for, with the port that was given out for port 0. */
  readonly controlAddress: string | undefined;
  readonly statusAddress: string | undefined;
  readonly metricsAddress: string | undefined;
  /** Ends listening at once, and what is being answered within a second. */
  stop(): Promise<void>;
}

/**
 * Starts to listen. Throws OptionError for an address that cannot be used, OperationError with address and errno where listening
 * fails; then nothing is left listening.
 */
export function serveApi(_options: ApiOptions): ApiServer {
  throw new Error("not yet");
}
