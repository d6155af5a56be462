/** `reset`: leaves no link, chain, rule or file of ours on this host. The router is stopped by the caller, before. */
import type { Progress } from "./address_book.ts";
import type { HostPaths } from "./plumbing.ts";

export interface ResetOptions {
  /** P of the state files `P-*`: `/var/lib/weave/weave`, or what `--db-prefix` said. */
  readonly statePrefix: string;
  /** Further files to remove, such as the log. */
  readonly files: readonly string[];
  readonly progress?: Progress;
  readonly host?: HostPaths;
}

/** Goes on past what fails, then rejects naming all of it; nothing to remove is no error. */
export function reset(_options: ResetOptions): Promise<void> {
  throw new Error("Not built yet");
}
