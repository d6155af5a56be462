/** The names of this host on disk: what nobody else could tell a router that starts anew. */
import { StoreFile, type StoreFormat } from "../host/store.ts";
import { formatIpv4, parseIpv4 } from "../lib/ip.ts";
import type { OwnName } from "../dns/entries.ts";

/** @param prefix of the state files */
export function namesFile(prefix: string): StoreFile<readonly OwnName[]> {
  return new StoreFile(`${prefix}-names.json`, NAMES);
}

const NAMES: StoreFormat<readonly OwnName[]> = {
  what: "names",
  major: 1,
  minor: 0,
  check(data) {
    if (!Array.isArray(data)) throw new Error("a list is missing");
    return data.map(checkName);
  },
  encode: (names) =>
    names.map(({ hostname, containerId, data }) => ({
      hostname,
      containerId,
      data: typeof data === "number" ? formatIpv4(data) : data,
    })),
};

function checkName(value: unknown): OwnName {
  const { hostname, containerId, data } = (value ?? {}) as Readonly<Record<string, unknown>>;
  if (typeof hostname !== "string" || typeof containerId !== "string" || typeof data !== "string") {
    throw new Error("a name lacks something");
  }
  return { hostname, containerId, data: parseIpv4(data) ?? data };
}
