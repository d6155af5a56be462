/** How the vectors about names say things, and the same as our values. */
import { formatIpv4, parseIpv4 } from "../src/lib/ip.ts";
import { formatMac, parsePeerName } from "../src/lib/mac.ts";
import type { NameEntry } from "../src/wire/nameserver.ts";

export interface VectorEntry {
  addr: string;
  containerID: string;
  hostname: string;
  origin: string;
  tombstone: string;
  version: number;
}

export function fromVector({ addr, containerID, hostname, origin, tombstone, version }: VectorEntry): NameEntry {
  return {
    hostname,
    origin: parsePeerName(origin)!,
    containerId: containerID,
    data: parseIpv4(addr)!,
    version,
    tombstone: Number(tombstone),
  };
}

export function asVector({ hostname, origin, containerId, data, version, tombstone }: NameEntry): VectorEntry {
  return {
    addr: formatIpv4(data as number),
    containerID: containerId,
    hostname,
    origin: formatMac(origin),
    tombstone: String(tombstone),
    version,
  };
}
