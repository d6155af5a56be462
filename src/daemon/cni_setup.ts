/** Puts this program where container runtimes look for plugins, and tells them of the network. */
import { dirname, join } from "node:path";
import { VERSION } from "../config/version.ts";
import { removeIfThere } from "../host/store.ts";
import { OperationError } from "../lib/errors.ts";

export interface CniSetupOptions {
  /** This executable. */
  readonly executable: string;
  /** `WEAVE_CNI_PLUGIN_DIR`. */
  readonly binDir?: string | undefined;
  readonly configDir?: string | undefined;
  /** Written into the configuration. */
  readonly hairpin: boolean;
}

const BIN_DIR = "/opt/cni/bin";
const CONFIG_DIR = "/etc/cni/net.d";
const CONFIG = "10-weave.conflist";
/** Of Weave Net before 2.5. */
const OLD_CONFIG = "10-weave.conf";
/** By these names it is the plugin. */
const NAMES = ["weave-net", "weave-ipam"];
const PROGRAM_PREFIX = "weave-plugin-";

/** Doing it twice is doing it once; a configuration that is there is left as it is. */
export async function setupCni(options: CniSetupOptions): Promise<void> {
  const { executable, binDir = BIN_DIR, configDir = CONFIG_DIR, hairpin } = options;
  try {
    await Deno.mkdir(binDir, { recursive: true });
    await installProgram(executable, binDir);
  } catch (error) {
    throw new OperationError(`Cannot install the CNI plugin in "${binDir}": ${(error as Error).message}`, 1, {
      cause: error,
    });
  }
  await writeConfig(configDir, hairpin);
}

/** Brings what was installed once to this version; nothing where nothing was. */
export async function refreshCni(options: Pick<CniSetupOptions, "executable" | "binDir">): Promise<void> {
  const { executable, binDir = BIN_DIR } = options;
  const installed = await linkTarget(join(binDir, NAMES[0]!));
  if (installed?.startsWith(PROGRAM_PREFIX)) await installProgram(executable, binDir);
}

async function installProgram(executable: string, binDir: string): Promise<void> {
  const name = `${PROGRAM_PREFIX}${VERSION}`;
  const target = join(binDir, name);
  if (!await isSame(executable, target)) await replace(target, (beside) => linkOrCopy(executable, beside));
  for (const link of NAMES) {
    const path = join(binDir, link);
    if (await linkTarget(path) !== name) await replace(path, (beside) => Deno.symlink(name, beside));
  }
  for await (const entry of Deno.readDir(binDir)) {
    if (entry.name.startsWith(PROGRAM_PREFIX) && entry.name !== name) await removeIfThere(join(binDir, entry.name));
  }
}

/** Whoever runs the old one keeps it, and nobody ever finds half of the new one. */
async function replace(path: string, make: (beside: string) => Promise<void>): Promise<void> {
  const beside = join(dirname(path), `.${crypto.randomUUID()}`);
  try {
    await make(beside);
    await Deno.rename(beside, path);
  } catch (error) {
    await removeIfThere(beside);
    throw error;
  }
}

/** It is large: one file where both are on one file system. */
async function linkOrCopy(from: string, to: string): Promise<void> {
  try {
    await Deno.link(from, to);
  } catch {
    await Deno.copyFile(from, to);
    await Deno.chmod(to, 0o755);
  }
}

async function isSame(a: string, b: string): Promise<boolean> {
  const [infoA, infoB] = await Promise.all([a, b].map((path) => Deno.stat(path).catch(() => undefined)));
  if (infoA === undefined || infoB === undefined || infoA.size !== infoB.size) return false;
  return infoA.dev === infoB.dev && infoA.ino === infoB.ino || await haveSameOctets(a, b);
}

const PIECE_OCTETS = 1 << 20;

async function haveSameOctets(a: string, b: string): Promise<boolean> {
  using fileA = await Deno.open(a);
  using fileB = await Deno.open(b);
  const [pieceA, pieceB] = [new Uint8Array(PIECE_OCTETS), new Uint8Array(PIECE_OCTETS)];
  for (;;) {
    const count = await fill(fileA, pieceA);
    if (count !== await fill(fileB, pieceB)) return false;
    if (count === 0) return true;
    for (let at = 0; at < count; at++) if (pieceA[at] !== pieceB[at]) return false;
  }
}

async function fill(file: Deno.FsFile, piece: Uint8Array): Promise<number> {
  let length = 0;
  while (length < piece.length) {
    const count = await file.read(piece.subarray(length));
    if (count === null) break;
    length += count;
  }
  return length;
}

async function linkTarget(path: string): Promise<string | undefined> {
  try {
    return await Deno.readLink(path);
  } catch {
    return undefined;
  }
}

/** Only where a runtime has its configurations already. */
async function writeConfig(folder: string, hairpin: boolean): Promise<void> {
  const path = join(folder, CONFIG);
  try {
    if (!(await Deno.stat(folder)).isDirectory) return;
    await removeIfThere(join(folder, OLD_CONFIG));
    await Deno.writeTextFile(path, `${JSON.stringify(configOf(hairpin), null, 4)}\n`, { createNew: true });
  } catch (error) {
    if (error instanceof Deno.errors.NotFound || error instanceof Deno.errors.AlreadyExists) return;
    throw new OperationError(`Cannot write "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

/** Ports that a container publishes are another plugin's business. */
function configOf(hairpin: boolean) {
  return {
    cniVersion: "0.3.0",
    name: "weave",
    plugins: [
      { name: "weave", type: "weave-net", hairpinMode: hairpin },
      { type: "portmap", capabilities: { portMappings: true }, snat: true },
    ],
  };
}
