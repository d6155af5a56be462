/**
 * `deno task compile [--native]`: makes the self-contained executables dist/weave-x86_64 and dist/weave-aarch64, and dist/weave for
 * this machine (with `--native` only that). Two builds of one commit are equal octet for octet, wherever they are made.
 *
 * What would make them differ, and what is done about it. `deno compile` takes in every npm package of the lock file and whatever
 * lies beside the entry point: it works in a folder that holds the program's own files, with a configuration that names only
 * the packages they import. It embeds each file's time of last change: set to a constant. Of every file of a package that is no
 * code it embeds why not, naming its path, and it marks packages with the folder it worked in: those files stay out.
 */

import { homedir } from "node:os";
import { basename, dirname, join } from "node:path";
import { type Architecture, ARCHITECTURES, findRuntimeBase, type RuntimeBase } from "./runtime_base.ts";

const PROJECT = dirname(import.meta.dirname!);

/**
 * How the program runs, compiled or from its sources: all permissions, because FFI alone gives a program everything already.
 */
export const RUN_ARGUMENTS: readonly string[] = ["--allow-all", "--no-prompt"];

/** Files that no import reaches: the worker is started by its URL. */
const WORKERS = ["src/daemon/packet_thread.ts"];

/** What the program consists of; tests beside the sources stay out. */
const SOURCES = ["main.ts", "src", "ffi"];

/** The program that waits in containers, from this source to that file of the executable. */
export const HELPER = { source: "helper/w.c", output: "helper/w" };

/** Without any library, and the same wherever the same compiler makes it. */
const HELPER_FLAGS = [
  "-std=gnu11",
  "-Os",
  "-static",
  "-nostdlib",
  "-ffreestanding",
  "-fno-stack-protector",
  "-fno-asynchronous-unwind-tables",
  "-fno-tree-loop-distribute-patterns",
  "-fno-pie",
  "-no-pie",
  "-Wl,--build-id=none",
  "-Wl,-z,noexecstack",
  "-s",
];

/** What of an npm package can run. */
const PACKAGE_CODE = /\.(js|cjs|mjs|json|wasm)$/;

/** Deno's note that it has told somebody working in some folder about install scripts that did not run; one a folder. */
const STAGE_MARKER = /\/\.scripts-warned-\d+$/;

/** The time of last change of every file that goes in. */
const FILE_TIME = new Date(Date.UTC(2000, 0, 1));

/** No runtime base can be had here: the program can still be run from its sources. */
export class NoRuntimeBaseError extends Error {
  override readonly name = "NoRuntimeBaseError";
}

export interface CompileOptions {
  readonly architectures: readonly Architecture[];
  /** The folder for the executables `weave-<architecture>` and, for this machine, `weave`. */
  readonly output: string;
  readonly project?: string;
  /** Gets one line for each executable: which base it stands on; another for one that has to do without something. */
  readonly say: (line: string) => void;
}

/** Compiles one executable per architecture and returns their paths, in order. */
export async function compile(options: CompileOptions): Promise<string[]> {
  const cache = join(Deno.env.get("XDG_CACHE_HOME") || join(homedir(), ".cache"), "weave-build");
  const packages = join(cache, "deno");
  await Deno.mkdir(packages, { recursive: true });
  await Deno.mkdir(options.output, { recursive: true });
  using lock = await Deno.open(join(cache, "lock"), { create: true, write: true });
  await lock.lock(true); // one build at a time: the package cache is shared

  const folder = await Deno.makeTempDir({ prefix: "weave-build-" });
  try {
    const stage = join(folder, "weave");
    const project = options.project ?? PROJECT;
    await stageSources(project, stage);
    for (const path of walkFiles(packages)) if (STAGE_MARKER.test(path)) await Deno.remove(path);
    // The system's certificates count too: a registry may be reached through a proxy that has its own.
    const environment = { DENO_DIR: packages, DENO_TLS_CA_STORE: "system,mozilla" };
    await deno(["install", "--quiet", "--entrypoint", "main.ts", ...WORKERS], stage, environment);
    await setFileTimes(packages);
    const excluded = [...walkFiles(join(packages, "npm"))].filter((path) => !PACKAGE_CODE.test(path));

    const executables: string[] = [];
    for (const architecture of options.architectures) {
      const base = await findRuntimeBase(architecture, cache);
      const executable = join(options.output, `weave-${architecture.name}`);
      // The name it is compiled under goes in as well, so it is one name.
      const output = join(folder, "out", "weave");
      const missing = await compileHelper(architecture, join(project, HELPER.source), join(stage, HELPER.output));
      const included = missing === undefined ? [...WORKERS, HELPER.output] : WORKERS;
      await link({ architecture, base, stage, output, included, excluded, environment });
      options.say(`${architecture.name}: runtime base from ${base.source}`);
      if (missing !== undefined) {
        options.say(
          `${architecture.name}: without the program that lets containers wait for their network (${missing}): ` +
            "started through the Docker proxy, they may run before they are in it",
        );
      }
      await replaceFile(output, executable);
      if (architecture.name === Deno.build.arch) await replaceFile(executable, join(options.output, "weave"));
      executables.push(executable);
    }
    return executables;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Copies the program's own files, and a configuration that names the packages they import and no others. */
async function stageSources(project: string, stage: string): Promise<void> {
  await Deno.mkdir(stage);
  for (const source of SOURCES) await copyProgram(join(project, source), join(stage, source));
  const config = JSON.parse(await Deno.readTextFile(join(project, "deno.json")));
  const sources = await Promise.all([...walkFiles(stage)].map((path) => Deno.readTextFile(path)));
  const packages = Object.entries(config.scopes["./"]);
  const imports = Object.fromEntries(packages.filter(([name]) => sources.some((text) => text.includes(`"${name}"`))));
  const staged = { version: config.version, nodeModulesDir: "none", imports, compilerOptions: config.compilerOptions };
  await Deno.writeTextFile(join(stage, "deno.json"), JSON.stringify(staged, null, 2) + "\n");
  await Deno.copyFile(join(project, "deno.lock"), join(stage, "deno.lock"));
  await setFileTimes(stage);
}

async function copyProgram(from: string, to: string): Promise<void> {
  if ((await Deno.stat(from)).isFile) return await Deno.copyFile(from, to);
  await Deno.mkdir(to);
  for await (const entry of Deno.readDir(from)) {
    if (entry.isDirectory || (entry.name.endsWith(".ts") && !/_(test|bench)\.ts$/.test(entry.name))) {
      await copyProgram(join(from, entry.name), join(to, entry.name));
    }
  }
}

/** Why there is no helper in the end; undefined: there is one. */
export async function compileHelper(
  architecture: Architecture,
  source: string,
  output: string,
): Promise<string | undefined> {
  await Deno.remove(output).catch(() => {}); // the other machine's
  await Deno.mkdir(dirname(output), { recursive: true });
  for (const compiler of compilersFor(architecture)) {
    // Under one name, wherever the sources are.
    const args = [...HELPER_FLAGS, "-o", output, basename(source)];
    try {
      const { success, stderr } = await new Deno.Command(compiler, { args, cwd: dirname(source) }).output();
      if (!success) return `${compiler}: ${new TextDecoder().decode(stderr).trim()}`;
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) continue;
      throw error;
    }
    await Deno.utime(output, FILE_TIME, FILE_TIME);
    return undefined;
  }
  return `no ${compilersFor(architecture).join(" or ")} here`;
}

function compilersFor({ name }: Architecture): string[] {
  return [`${name}-linux-gnu-gcc`, ...name === Deno.build.arch ? ["gcc", "cc"] : []];
}

interface LinkOptions {
  readonly architecture: Architecture;
  readonly base: RuntimeBase;
  readonly stage: string;
  readonly output: string;
  readonly included: readonly string[];
  readonly excluded: readonly string[];
  readonly environment: Readonly<Record<string, string>>;
}

async function link(
  { architecture, base, stage, output, included, excluded, environment }: LinkOptions,
): Promise<void> {
  const args = ["compile", "--quiet", "--no-check", "--frozen", ...RUN_ARGUMENTS, "--target", architecture.target];
  for (const path of included) args.push("--include", path);
  for (const path of excluded) args.push("--exclude", path);
  args.push("--output", output, "main.ts");
  try {
    await deno(args, stage, base.path ? { ...environment, DENORT_BIN: base.path } : environment);
  } catch (error) {
    if (base.path || !(error instanceof Error) || !error.message.includes("Setting up base binary")) throw error;
    throw new NoRuntimeBaseError(
      `No runtime base for ${architecture.name}: set DENORT_BIN to a denort of Deno ${Deno.version.deno}, or install pip; ` +
        [...base.missed, "Deno's own download failed"].join("; "),
    );
  }
}

async function deno(args: readonly string[], cwd: string, env: Readonly<Record<string, string>>): Promise<void> {
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd,
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "inherit",
    stderr: "piped",
  });
  const { success, stderr } = await command.output();
  const said = new TextDecoder().decode(stderr).trim();
  if (!success) throw new Error(`Cannot run deno ${args[0]}: ${said}`);
  if (said) console.error(said);
}

function* walkFiles(folder: string): Generator<string> {
  for (const entry of Deno.readDirSync(folder)) {
    const path = join(folder, entry.name);
    if (entry.isDirectory) yield* walkFiles(path);
    else if (entry.isFile) yield path;
  }
}

async function setFileTimes(folder: string): Promise<void> {
  for (const path of walkFiles(folder)) await Deno.utime(path, FILE_TIME, FILE_TIME);
}

/** Puts a file where another one may be running from: by renaming, so that the running one keeps its own. */
async function replaceFile(from: string, to: string): Promise<void> {
  const beside = `${to}.${Deno.pid}`;
  await Deno.copyFile(from, beside);
  await Deno.rename(beside, to);
}

async function main(args: readonly string[]): Promise<void> {
  const native = args.includes("--native");
  const architectures = ARCHITECTURES.filter((architecture) => !native || architecture.name === Deno.build.arch);
  const executables = await compile({ architectures, output: import.meta.dirname!, say: console.log });
  for (const executable of executables) console.log(executable);
}

if (import.meta.main) {
  try {
    await main(Deno.args);
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
