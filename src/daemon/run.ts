/** `run`: starts a container of Docker, then attaches it (parity 1.8). */
import type { AttachOptions, AttachResult } from "./attach.ts";

export interface RunOptions extends Omit<AttachOptions, "container" | "hostname"> {
  /** Arguments for `docker run`, image and command included, without `-d`. */
  readonly dockerArguments: readonly string[];
  /** What DNS adds, once there is one: arguments such as `--dns=…`, and the domain that makes a name an FQDN. */
  readonly dns?: { readonly dockerArguments: readonly string[]; readonly domain: string };
}

/** `id` of the result is the full container id, all that the command prints. */
export function run(_options: RunOptions): Promise<AttachResult> {
  throw new Error("Not built yet");
}
