/**
 * Where the operations of this folder find things, and the lock under which they change them.
 * `attach`, `detach`, `ps`, `expose`, `hide` and `reset` run in the calling process, as root.
 */

/** The places and names all operations share; every field has its everyday value in `HOST`. */
export interface HostPaths {
  /** Linux bridge of the overlay. */
  readonly bridge: string;
  /** Volatile directory of this host's plumbing: lock, attachments, exposures, what the firewall holds. Lost at reboot. */
  readonly runDir: string;
}

export const HOST: HostPaths = { bridge: "weave", runDir: "/run/weave" };
