/**
 * The image of a router that runs as a container, made on the spot of what this very program consists of: its executable, the loader and
 * the libraries that are mapped into it, and `chroot`, which runs programs of the host where the host's `/` is mounted.
 *
 *     /weave   /bin/chroot   /lib/…   /lib64, /usr/lib, /lib/x86_64-linux-gnu, … → /lib   /var/run → /run
 */
import { basename, dirname, join } from "node:path";
import { openSodium } from "../../ffi/sodium.ts";
import { VERSION } from "../config/version.ts";
import { findProgram } from "../host/command.ts";
import { isFile } from "../host/files.ts";
import { dockerCommand } from "../host/docker.ts";
import { OperationError } from "../lib/errors.ts";
import { TAR_END_OCTETS, type TarEntry, tarHeader, tarPadding } from "../lib/tar.ts";

/** Where in the image what is; the host's `/` is mounted at the last. */
export const IN_IMAGE = { executable: "/weave", chroot: "/bin/chroot", hostRoot: "/host" } as const;

/** Says of an image or container that it is a router of ours, and of which files it was made. */
export const BUILD_LABEL = "works.weave.build";

export const IMAGE = `weave:${VERSION}`;

/** One thing in the image. */
export type ImageEntry =
  | { readonly type: "file"; readonly name: string; readonly source: string }
  | Exclude<TarEntry, { type: "file" }>;

/** Makes the image unless it is there, of these very files. */
export async function ensureImage(): Promise<void> {
  const entries = planImage();
  const build = await fingerprint(entries);
  if (await imageBuild() === build) return;
  const changes = [
    "ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    `LABEL ${BUILD_LABEL}=${build}`,
    `ENTRYPOINT ["${IN_IMAGE.executable}"]`,
  ];
  await dockerCommand(["import", ...changes.flatMap((change) => ["-c", change]), "-", IMAGE], {
    input: archive(entries),
  });
}

/** For `reset`; an image that is in use or not there stays. */
export async function removeImage(): Promise<void> {
  if (await imageBuild() !== undefined) await dockerCommand(["rmi", IMAGE]).catch(() => {});
}

async function imageBuild(): Promise<string | undefined> {
  try {
    const format = `{{index .Config.Labels "${BUILD_LABEL}"}}`;
    const label = (await dockerCommand(["image", "inspect", "-f", format, IMAGE])).trim();
    return isBuild(label) ? label : undefined;
  } catch {
    return undefined;
  }
}

/** Where there is no label, Docker has words for that. */
export function isBuild(label: string): boolean {
  return /^[0-9a-f]{32}$/.test(label);
}

/** What goes in. @throws OperationError where this program cannot be packed up */
export function planImage(): ImageEntry[] {
  if (!Deno.build.standalone) {
    throw new OperationError(
      "Cannot make an image of weave: it runs from its sources; deno task compile makes the executable",
    );
  }
  const chroot = findProgram("chroot");
  if (chroot === undefined) throw new OperationError('Cannot make an image of weave: there is no program "chroot"');
  const directory = (name: string): ImageEntry => ({ type: "directory", name, mode: 0o755 });
  const symlink = (name: string, target: string): ImageEntry => ({ type: "symlink", name, target });
  return [
    ...["bin", "lib", "usr", "var", "etc", "run", "host", "var/lib"].map(directory),
    { type: "directory", name: "tmp", mode: 0o1777 },
    symlink("lib64", "lib"),
    symlink("usr/lib", "../lib"),
    symlink("usr/lib64", "../lib"),
    symlink("var/run", "../run"),
    // Where the loader of some distributions looks first.
    symlink(`lib/${Deno.build.arch}-linux-gnu`, "."),
    { type: "file", name: IN_IMAGE.executable.slice(1), source: Deno.execPath() },
    { type: "file", name: IN_IMAGE.chroot.slice(1), source: Deno.realPathSync(chroot) },
    ...libraries().map((source): ImageEntry => ({ type: "file", name: `lib/${basename(source)}`, source })),
  ];
}

/** Loaded by name while the program runs: whoever looks up a name of a host needs them, where they are files of their own. */
const LOOKED_UP = ["libnss_files.so.2", "libnss_dns.so.2", "libresolv.so.2"];

/** The loader and every library that is mapped, each under all names by which it may be asked for. */
function libraries(): string[] {
  // Used only once there are connections; whether it is there shows when it is loaded.
  openSodium({});
  const mapped = new Set<string>();
  for (const line of Deno.readTextFileSync("/proc/self/maps").split("\n")) {
    const path = /\s(\/\S*\.so[.\d]*)$/.exec(line)?.[1];
    if (path !== undefined) mapped.add(path);
  }
  const names = [...mapped].flatMap(namesOf);
  for (const folder of new Set([...mapped].map(dirname))) {
    names.push(...LOOKED_UP.map((name) => join(folder, name)).filter(isFile));
  }
  // One of a name is enough: the loader takes the first, too.
  return [...new Map(names.map((path) => [basename(path), path])).values()].sort();
}

/** The file and what points to it in its folder: a library is asked for by a shorter name than its file may have. */
function namesOf(path: string): string[] {
  const folder = dirname(path);
  const stem = basename(path).replace(/[-.].*$/, "");
  return [...Deno.readDirSync(folder)]
    .filter(({ name }) => name.startsWith(stem) && name.includes(".so"))
    .map(({ name }) => join(folder, name))
    .filter((other) => other === path || realPath(other) === path);
}

function realPath(path: string): string | undefined {
  try {
    return Deno.realPathSync(path);
  } catch {
    return undefined;
  }
}

/** Changes with the plan, and with any file of it. */
async function fingerprint(entries: readonly ImageEntry[]): Promise<string> {
  const words = entries.map((entry) => {
    if (entry.type !== "file") return JSON.stringify(entry);
    const { size, mtime, ino } = Deno.statSync(entry.source);
    return JSON.stringify([entry.name, entry.source, size, mtime?.getTime(), ino]);
  });
  const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(words.join("\n")));
  return new Uint8Array(digest).toHex().slice(0, 32);
}

/** The archive, file by file: it is never in memory as a whole. */
function archive(entries: readonly ImageEntry[]): ReadableStream<Uint8Array<ArrayBuffer>> {
  return ReadableStream.from(pieces(entries));
}

async function* pieces(entries: readonly ImageEntry[]): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (const entry of entries) {
    if (entry.type !== "file") {
      yield tarHeader(entry);
      continue;
    }
    using file = await Deno.open(entry.source);
    const { size } = await file.stat();
    yield tarHeader({ type: "file", name: entry.name, mode: 0o755, octets: size });
    yield* exactly(file, size, entry.source);
    yield new Uint8Array(tarPadding(size));
  }
  yield new Uint8Array(TAR_END_OCTETS);
}

/** As many octets as its header says, whatever becomes of the file meanwhile. */
async function* exactly(file: Deno.FsFile, size: number, path: string): AsyncGenerator<Uint8Array<ArrayBuffer>> {
  for (let left = size; left > 0;) {
    const buffer = new Uint8Array(Math.min(left, 1 << 20));
    const count = await file.read(buffer);
    if (count === null) throw new OperationError(`Cannot read "${path}": it became shorter meanwhile`);
    left -= count;
    yield buffer.subarray(0, count);
  }
}
