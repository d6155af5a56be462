/** What Docker's API says of a container, as far as it decides whether and how the container is in our network. */
import { get, getObject, getText, getTexts, isObject, type Json, type JsonObject } from "./json.ts";

/** Where a container has the program that holds it. */
export const HELPER_MOUNT = "/w";
export const HELPER_ENTRYPOINT = "/w/w";

/** Marks a container that is not held, where there is nothing to hold it with. */
export const ATTACH_LABEL = "works.weave.attach";

/** What `weave run` was told, for every later start: its switches, in words. Where it is there, the router's own do not count. */
export const RUN_LABEL = "works.weave.run";

/** Variable of a container: its addresses, or "none". */
const CIDR_VARIABLE = "WEAVE_CIDR";

/** Whether a container shall be in the network, and with which addresses. */
export type Wish =
  | { readonly attach: false }
  /** As written; none: one of the default subnet. */
  | { readonly attach: true; readonly addresses: readonly string[] };

/** What a container is asked for, or what an engine says of it. */
export interface NetworkWords {
  /** `HostConfig.NetworkMode` */
  readonly networkMode: string;
  /** `NAME=value`; of several of one name the last one counts. */
  readonly env: readonly string[];
}

export function wishOf({ networkMode, env }: NetworkWords, o: { readonly noDefaultIpalloc: boolean }): Wish {
  if (!["", "default", "bridge", "none"].includes(networkMode)) return { attach: false };
  const said = env.findLast((line) => line === CIDR_VARIABLE || line.startsWith(`${CIDR_VARIABLE}=`));
  // Without an equals sign it takes away what the image says.
  if (said === undefined || said === CIDR_VARIABLE) {
    return o.noDefaultIpalloc ? { attach: false } : { attach: true, addresses: [] };
  }
  const addresses = said.slice(CIDR_VARIABLE.length + 1).split(/\s+/).filter((word) => word !== "");
  return addresses.length === 1 && addresses[0] === "none" ? { attach: false } : { attach: true, addresses };
}

/** A container as the engine shows it. */
export interface Inspected extends NetworkWords {
  readonly id: string;
  readonly pid: number;
  readonly running: boolean;
  /** We made it, and hold it or would. */
  readonly ours: boolean;
  /** The program that holds it is there. */
  readonly hasHelper: boolean;
  /** `without-dns`, `no-rewrite-hosts`, `no-multicast-route`; undefined: `weave run` did not make it. */
  readonly switches: readonly string[] | undefined;
  /** `name:address`, each. */
  readonly extraHosts: readonly string[];
}

/** @param answer to `GET /containers/{id}/json`, parsed; undefined for what is no such answer */
export function readInspected(answer: unknown): Inspected | undefined {
  if (!isObject(answer as Json)) return undefined;
  return inspected(answer as JsonObject);
}

function inspected(answer: JsonObject): Inspected | undefined {
  const config = getObject(answer, "Config") ?? {};
  const hostConfig = getObject(answer, "HostConfig") ?? {};
  const state = getObject(answer, "State") ?? {};
  const id = getText(answer, "Id");
  if (!/^[0-9a-f]{64}$/.test(id)) return undefined;
  const pid: unknown = get(state, "Pid");
  return {
    id,
    pid: typeof pid === "number" ? pid : 0,
    running: get(state, "Running") === true,
    networkMode: getText(hostConfig, "NetworkMode"),
    env: getTexts(config, "Env") ?? [],
    ours: getTexts(config, "Entrypoint")?.[0] === HELPER_ENTRYPOINT ||
      getText(getObject(config, "Labels") ?? {}, ATTACH_LABEL) !== "",
    switches: switchesOf(getObject(config, "Labels") ?? {}),
    hasHelper: mountsOf(answer).includes(HELPER_MOUNT),
    extraHosts: getTexts(hostConfig, "ExtraHosts") ?? [],
  };
}

function switchesOf(labels: JsonObject): string[] | undefined {
  const value = labels[RUN_LABEL];
  return typeof value === "string" ? value.split(" ").filter(Boolean) : undefined;
}

/** Where something is mounted in it: a list since API 1.20, before that the keys of an object. */
function mountsOf(answer: JsonObject): string[] {
  const mounts = get(answer, "Mounts");
  if (Array.isArray(mounts)) return mounts.map((mount) => isObject(mount) ? getText(mount, "Destination") : "");
  return Object.keys(getObject(answer, "Volumes") ?? {});
}
