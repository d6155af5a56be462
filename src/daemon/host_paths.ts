/** Where things are on this host; apart from what works there, as it costs nothing to import. */

/** The places and names all operations share; every field has its everyday value in `HOST`. */
export interface HostPaths {
  /** Linux bridge of the overlay. */
  readonly bridge: string;
  /** Volatile directory of this host's plumbing: lock, attachments, exposures, what the firewall holds. Lost at reboot. */
  readonly runDir: string;
}

export const HOST: HostPaths = { bridge: "weave", runDir: "/run/weave" };
