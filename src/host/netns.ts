/** References to network namespaces: how a user names one, what identifies it, and where to find it again. */
import { resolve } from "node:path";
import { OperationError } from "../lib/errors.ts";
import { CONTAINER_PORT_PREFIX } from "./bridge.ts";

/** What the user wrote for a container. */
export type ContainerReference =
  | { readonly kind: "docker"; readonly name: string }
  | { readonly kind: "pid"; readonly pid: number }
  | { readonly kind: "netns"; readonly path: string };

/** `pid:N` and `netns:PATH` are themselves, everything else is a name for Docker, also behind `docker:`. */
export function parseContainerReference(given: string): ContainerReference {
  const text = given.replace(/^docker:/, "");
  const pid = /^pid:([1-9]\d{0,9})$/.exec(text);
  if (pid !== null) return { kind: "pid", pid: Number(pid[1]) };
  if (/^netns:./.test(text)) return { kind: "netns", path: resolve(text.slice("netns:".length)) };
  if (/^(pid|netns):/.test(text)) {
    throw new OperationError(`Cannot use "${text}" as container: pid:N or netns:PATH expected`);
  }
  if (!/^[0-9A-Za-z][\w.-]*$/.test(text)) {
    throw new OperationError(`unable to inspect container ${text}: No such container: ${text}`);
  }
  return { kind: "docker", name: text };
}

/** A network namespace: the file it can be entered by, and the two numbers that tell it from every other that lives. */
export interface Netns {
  readonly path: string;
  readonly device: number;
  readonly inode: number;
}

export const OWN_NETNS = "/proc/self/ns/net";

/** undefined where there is no such file, or no namespace in it. */
export function statNetns(path: string): Netns | undefined {
  try {
    const own = Deno.statSync(OWN_NETNS);
    const { dev, ino } = Deno.statSync(path);
    // All namespaces lie on one file system without a device, and nothing else does.
    return ino === null || dev !== own.dev ? undefined : { path, device: dev, inode: ino };
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.NotADirectory) return undefined;
    throw new OperationError(`Cannot look at network namespace "${path}": ${(error as Error).message}`, 1, {
      cause: error,
    });
  }
}

export function sameNetns(a: Netns, b: Netns): boolean {
  return a.device === b.device && a.inode === b.inode;
}

/** Whether it is the one this process is in. */
export function isOwnNetns(netns: Netns): boolean {
  const own = statNetns(OWN_NETNS);
  return own !== undefined && sameNetns(own, netns);
}

/** Id of a container that only its namespace names. */
export function netnsId(netns: Netns): string {
  return `netns-${netns.device}-${netns.inode}`;
}

/**
 * Interface names for the two ends of a container's link. A namespace has its inode in base 62 behind an `n`, at most 7
 * characters for the 32 bits that the kernel gives; no PID looks like that.
 */
export function vethNames(owner: { pid: number } | Netns): { host: string; peer: string } {
  const id = "pid" in owner ? String(owner.pid) : `n${base62(owner.inode)}`;
  return { host: `${CONTAINER_PORT_PREFIX}${id}`, peer: `vethwepg${id}` };
}

const DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/** 15 characters for an interface, less "vethwepl" and the `n`. */
const INODE_DIGITS = 6;

function base62(value: number): string {
  let text = "";
  for (let rest = value; rest > 0 && text.length < INODE_DIGITS; rest = Math.floor(rest / 62)) {
    text = DIGITS[rest % 62]! + text;
  }
  return text;
}

/** Directories that keep namespaces by name. */
const NAMED = ["/run/netns", "/run/docker/netns", "/var/run/netns"];

/** A path by which a namespace that still lives can be entered, `first` if it still leads there; undefined where none is found. */
export function findNetns(device: number, inode: number, first: string): Netns | undefined {
  const matches = (path: string): Netns | undefined => {
    try {
      const netns = statNetns(path);
      return netns?.device === device && netns.inode === inode ? netns : undefined;
    } catch {
      return undefined; // not ours to look at
    }
  };
  const known = matches(first);
  if (known !== undefined) return known;
  for (const path of candidatePaths()) {
    const netns = matches(path);
    if (netns !== undefined) return netns;
  }
  return undefined;
}

function* candidatePaths(): Generator<string> {
  for (const directory of NAMED) for (const name of namesIn(directory)) yield `${directory}/${name}`;
  for (const name of namesIn("/proc")) if (/^\d+$/.test(name)) yield `/proc/${name}/ns/net`;
}

function namesIn(directory: string): string[] {
  try {
    return [...Deno.readDirSync(directory)].map((entry) => entry.name);
  } catch {
    return [];
  }
}
