/**
 * Who this router is. A name stays the same as long as anything of the host does: the bridge that carries it as its MAC, or the
 * machine's ids. It is derived as Weave Net 2.8 does, so that a router that takes the place of one of those keeps its name.
 */
import { createHash } from "node:crypto";
import { OperationError } from "../lib/errors.ts";
import { formatMac, type PeerName, readMac } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { Links } from "../host/links.ts";
import { StoreFile } from "../host/store.ts";

export interface IdentityOptions {
  /** `--name`. */
  readonly name: PeerName | undefined;
  readonly links: Pick<Links, "find">;
  readonly bridge: string;
  /** P of the state files `P-*`. */
  readonly statePrefix: string;
  readonly random: Random;
  /** Root of the file system with the machine's ids; `/` but in tests. */
  readonly root?: string;
}

/** The name to run under. What was made up because nothing identifies this machine is remembered. */
export async function findPeerName(options: IdentityOptions): Promise<PeerName> {
  if (options.name !== undefined) return options.name;
  const bridge = options.links.find(options.bridge);
  if (bridge?.mac !== undefined && bridge.kind === "bridge") return bridge.mac as number as PeerName;
  const file = new StoreFile(`${options.statePrefix}-identity.json`, IDENTITY);
  const stored = await file.read();
  const ids = systemIds(options.root ?? "");
  // Names of old releases came from the hardware alone.
  if (stored !== undefined && ids.uuid.length > 0 && stored === nameOf(ids.uuid)) return stored;
  if (ids.machine.length + ids.uuid.length > 0) return nameOf(Uint8Array.from([...ids.machine, ...ids.uuid]));
  if (stored !== undefined) return stored;
  const made = randomName(options.random);
  await file.write(made);
  return made;
}

interface SystemIds {
  readonly machine: Uint8Array;
  readonly uuid: Uint8Array;
}

/** As they lie there, line ends included; empty where this machine has none, or where they are not for us to read. */
function systemIds(root: string): SystemIds {
  return {
    machine: firstOf(root, ["/etc/machine-id", "/var/lib/dbus/machine-id"]),
    uuid: firstOf(root, ["/sys/class/dmi/id/product_uuid", "/sys/hypervisor/uuid"]),
  };
}

function firstOf(root: string, paths: readonly string[]): Uint8Array {
  for (const path of paths) {
    try {
      return Deno.readFileSync(root + path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      throw new OperationError(`Cannot read "${path}", which names this machine: ${(error as Error).message}`);
    }
  }
  return new Uint8Array();
}

const SALT = "9oBJ0Jmip-";

/** First octets of a salted SHA-256, made a unicast address that is locally administered. */
function nameOf(id: Uint8Array): PeerName {
  const octets = new Uint8Array(createHash("sha256").update(SALT).update(id).digest());
  return localName(octets);
}

function randomName(random: Random): PeerName {
  const octets = new Uint8Array(8);
  new DataView(octets.buffer).setBigUint64(0, random.u64());
  return localName(octets);
}

function localName(octets: Uint8Array): PeerName {
  octets[0] = (octets[0]! & 0xfe) | 0x02;
  return readMac(octets, 0) as PeerName;
}

const IDENTITY = {
  what: "identity",
  major: 1,
  minor: 0,
  check(data: unknown): PeerName {
    const { name } = (data ?? {}) as { name?: unknown };
    if (typeof name !== "string" || !/^([0-9a-f]{2}:){5}[0-9a-f]{2}$/.test(name)) {
      throw new Error("the name is missing");
    }
    return Number(`0x${name.replaceAll(":", "")}`) as PeerName;
  },
  encode: (name: PeerName) => ({ name: formatMac(name) }),
};
