/**
 * `deno task test [LAYER…]`: every layer of the tests, from the fast ones below to the real ones above; `--long` makes the soaks long.
 * It installs what is missing, compiles the executable, and ends with one line that sums all layers.
 */

import { dirname, join } from "node:path";
import { compile, NoRuntimeBaseError } from "../dist/compile.ts";
import { ARCHITECTURES } from "../dist/runtime_base.ts";
import { COMPILERS, dockerTree, ensureTools, NETWORK_TOOLS, PIP, type Tool } from "./packages.ts";
import { skipReason } from "./skip.ts";

const PROJECT = dirname(import.meta.dirname!);

/** The versions that are tested are those of the lock file, which must be complete. */
const LOCKED = ["--lock=deno.lock", "--frozen"];

interface Layer {
  readonly name: string;
  readonly what: string;
  /** What it needs of Debian; without root it makes do, and tests say what they lack. */
  readonly tools?: readonly Tool[];
  /** Arguments for `deno`; each run counts as one test. */
  readonly commands?: readonly (readonly string[])[];
  /** Anything else; it counts as one test too. */
  readonly action?: () => Promise<void>;
  /** Files and folders for `deno test`; those that are not there are left out. */
  readonly paths?: readonly string[];
  /** The layer that it runs beside: both wait more than they work. */
  readonly beside?: string;
}

const LAYERS: readonly Layer[] = [
  {
    name: "check",
    what: "format, lint, types, import directions, layouts of C structs",
    tools: COMPILERS,
    commands: [["fmt", "--check"], ["lint", "--quiet"], ["check", "--quiet", ...LOCKED]],
    paths: ["test/arch_test.ts", "ffi/layout_test.ts"],
  },
  {
    name: "unit",
    what: "one file or a few, in namespaces of their own where they touch the machine",
    tools: [...COMPILERS, ...NETWORK_TOOLS],
    paths: ["src", "ffi", "dist"],
  },
  { name: "fuzz", what: "random and mutated octets into every decoder", paths: ["test/fuzz"] },
  { name: "sim", what: "whole meshes on a virtual clock", paths: ["test/sim"] },
  { name: "compile", what: "the executables", action: compileAll },
  {
    name: "executable",
    what: "built the same twice, starts on both machines",
    tools: COMPILERS,
    paths: ["test/executable"],
  },
  { name: "netns", what: "emulated hosts with the executable", tools: NETWORK_TOOLS, paths: ["test/netns"] },
  {
    name: "docker",
    what: "a real Docker engine on an emulated host",
    tools: NETWORK_TOOLS,
    paths: ["test/docker"],
    beside: "netns",
  },
  { name: "soak", what: "full speed with changes going on", tools: NETWORK_TOOLS, paths: ["test/soak"] },
];

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

interface Result {
  readonly counts: Counts;
  readonly seconds: number;
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--long")) Deno.env.set("WEAVE_SOAK_SECONDS", "600");
  const names = args.filter((arg) => !arg.startsWith("-"));
  const unknown = names.filter((name) => !LAYERS.some((layer) => layer.name === name));
  if (unknown.length > 0) {
    throw new Error(`Unknown layer ${unknown.join(", ")}: ${LAYERS.map((l) => l.name).join(", ")}`);
  }
  const layers = LAYERS.filter((layer) => names.length === 0 || names.includes(layer.name));

  const tools = new Set(layers.flatMap((layer) => layer.tools ?? []));
  if (Deno.uid() === 0) await ensureTools([...tools]);
  if (Deno.uid() === 0 && layers.some((layer) => layer.name === "docker")) await dockerTree();

  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  const remarks: string[] = [];
  const show = (layer: Layer, { counts, seconds }: Result) => {
    console.log(`=== ${layer.name}: ${summary(counts)} in ${seconds} s`);
    add(total, counts);
  };
  const isSecond = (layer: Layer) => layers.some(({ name }) => name === layer.beside);
  for (const layer of layers.filter((layer) => !isSecond(layer))) {
    const second = layers.find(({ beside }) => beside === layer.name);
    const file = second && await Deno.makeTempFile({ prefix: "weave-test-", suffix: ".log" });
    const both = second && file ? runLayer(second, remarks, file) : undefined;
    show(layer, await runLayer(layer, remarks));
    if (!second || !file) continue;
    const result = await both!;
    console.log(await Deno.readTextFile(file));
    await Deno.remove(file);
    show(second, result);
  }

  console.log();
  for (const remark of remarks) console.log(remark);
  console.log(summary(total));
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

/** @param log a file for what it prints, if not here */
async function runLayer(layer: Layer, remarks: string[], log?: string): Promise<Result> {
  const title = `\n=== ${layer.name}: ${layer.what}`;
  if (log === undefined) console.log(title);
  else await Deno.writeTextFile(log, `${title}\n`);
  const started = performance.now();
  const counts: Counts = { passed: 0, failed: 0, skipped: 0 };
  for (const args of layer.commands ?? []) {
    const succeeded = await deno(args, log);
    if (!succeeded) remarks.push(`failed: ${layer.name}: deno ${args.join(" ")}`);
    add(counts, { passed: Number(succeeded), failed: Number(!succeeded), skipped: 0 });
  }
  if (layer.action) {
    try {
      await layer.action();
      counts.passed++;
    } catch (error) {
      console.error(error instanceof Error ? error.message : error);
      remarks.push(`failed: ${layer.name}`);
      counts.failed++;
    }
  }
  const paths = (layer.paths ?? []).filter((path) => exists(join(PROJECT, path)));
  if (paths.length > 0) add(counts, await runTests(layer.name, paths, remarks, log));
  return { counts, seconds: Math.round((performance.now() - started) / 1000) };
}

function add(total: Counts, counts: Counts): void {
  for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[key];
}

function summary(counts: Counts): string {
  return `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}

async function runTests(
  layer: string,
  paths: readonly string[],
  remarks: string[],
  log: string | undefined,
): Promise<Counts> {
  const report = await Deno.makeTempFile({ prefix: "weave-test-", suffix: ".xml" });
  try {
    // Not `--quiet`: that would keep back what tests measured.
    const flags = ["--allow-all", "--no-prompt", "--no-check", ...LOCKED, `--junit-path=${report}`];
    const succeeded = await deno(["test", ...flags, ...paths], log);
    const cases = readReport(await Deno.readTextFile(report));
    const failed = cases.filter((test) => test.outcome === "failed");
    const skipped = cases.filter((test) => test.outcome === "skipped").map((test) => skipReason(test.name));
    remarks.push(...failed.map((test) => `failed: ${layer}: ${test.name}`));
    remarks.push(...skipped.map(({ name, reason }) => `skipped: ${layer}: ${name}: ${reason}`));
    const counts = {
      passed: cases.length - failed.length - skipped.length,
      failed: failed.length,
      skipped: skipped.length,
    };
    if (!succeeded && failed.length === 0) { // a file that does not load is in no report
      remarks.push(`failed: ${layer}: deno test ended with an error`);
      counts.failed++;
    }
    return counts;
  } finally {
    await Deno.remove(report);
  }
}

interface TestCase {
  readonly name: string;
  readonly outcome: "passed" | "failed" | "skipped";
}

/** Reads what `deno test` writes: one `testcase` element for each test or step, with what became of it inside. */
function readReport(xml: string): TestCase[] {
  const entities: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return [...xml.matchAll(/<testcase name="([^"]*)"[^>]*?(?:\/>|>(.*?)<\/testcase>)/gs)].map((
    [, name, inside = ""],
  ) => ({
    name: name!.replace(/&(\w+);/g, (entity, word: string) => entities[word] ?? entity),
    outcome: inside.includes("<failure") ? "failed" : inside.includes("<skipped") ? "skipped" : "passed",
  }));
}

/** Without a runtime base this fails: what is not tested as the executable that people run is not tested. */
async function compileAll(): Promise<void> {
  const options = { architectures: ARCHITECTURES, output: join(PROJECT, "dist"), say: console.log };
  try {
    await compile(options);
  } catch (error) {
    if (!(error instanceof NoRuntimeBaseError)) throw error;
    console.error(error.message);
    await ensureTools([PIP]);
    await compile(options);
  }
}

async function deno(args: readonly string[], log?: string): Promise<boolean> {
  const output = log === undefined ? "inherit" : "piped";
  const command = new Deno.Command(Deno.execPath(), {
    args: [...args],
    cwd: PROJECT,
    stdin: "null",
    stdout: output,
    stderr: output,
    // A registry may be reached through a proxy with a certificate that only the system knows.
    env: { DENO_TLS_CA_STORE: "system,mozilla" },
  });
  const child = command.spawn();
  if (log !== undefined) await Promise.all([child.stdout, child.stderr].map((stream) => keep(stream, log)));
  return (await child.status).success;
}

async function keep(stream: ReadableStream<Uint8Array>, log: string): Promise<void> {
  for await (const octets of stream) await Deno.writeFile(log, octets, { append: true });
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

if (import.meta.main) {
  try {
    Deno.exit(await main(Deno.args));
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
