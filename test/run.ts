/**
 * `deno task test [LAYER…]`: every layer of the tests, from the fast ones below to the real ones above; `--long` makes the soaks long.
 * It installs what is missing, compiles the executable, and ends with one line that sums all layers.
 */

import { dirname, join } from "node:path";
import { compile, NoRuntimeBaseError } from "../dist/compile.ts";
import { ARCHITECTURES } from "../dist/runtime_base.ts";
import { dockerTree, ensureTools, PIP, TEST_TOOLS } from "./packages.ts";
import { skipReason } from "./skip.ts";

const PROJECT = dirname(import.meta.dirname!);

interface Layer {
  readonly name: string;
  readonly what: string;
  /** Files and folders for `deno test`; those that are not there are left out. */
  readonly paths?: readonly string[];
  /** Anything else: it counts as one test. */
  readonly action?: () => Promise<void>;
}

const LAYERS: readonly Layer[] = [
  { name: "check", what: "format, lint, types, import directions", action: () => task("check") },
  { name: "unit", what: "one file or a few, no privileges", paths: ["src", "ffi", "dist"] },
  { name: "fuzz", what: "random and mutated octets into every decoder", paths: ["test/fuzz"] },
  { name: "sim", what: "whole meshes on a virtual clock", paths: ["test/sim"] },
  { name: "compile", what: "the executables", action: compileAll },
  { name: "executable", what: "built the same twice, starts on both machines", paths: ["test/executable"] },
  { name: "netns", what: "emulated hosts with the executable", paths: ["test/netns"] },
  { name: "docker", what: "a real Docker engine on an emulated host", paths: ["test/docker"] },
  { name: "soak", what: "full speed with changes going on; ten minutes of it with --long", paths: ["test/soak"] },
];

interface Counts {
  passed: number;
  failed: number;
  skipped: number;
}

async function main(args: readonly string[]): Promise<number> {
  if (args.includes("--long")) Deno.env.set("WEAVE_SOAK_SECONDS", "600");
  const names = args.filter((arg) => !arg.startsWith("-"));
  const unknown = names.filter((name) => !LAYERS.some((layer) => layer.name === name));
  if (unknown.length > 0) {
    throw new Error(`Unknown layer ${unknown.join(", ")}: ${LAYERS.map((l) => l.name).join(", ")}`);
  }
  const layers = LAYERS.filter((layer) => names.length === 0 || names.includes(layer.name));

  await ensureTools(TEST_TOOLS);
  if (layers.some((layer) => layer.name === "docker")) await dockerTree();

  const total: Counts = { passed: 0, failed: 0, skipped: 0 };
  const skips: string[] = [];
  const failures: string[] = [];
  for (const layer of layers) {
    console.log(`\n=== ${layer.name}: ${layer.what}`);
    const started = performance.now();
    const counts = layer.paths
      ? await runTests(layer.name, layer.paths, skips, failures)
      : await runAction(layer, failures);
    const seconds = Math.round((performance.now() - started) / 1000);
    console.log(`=== ${layer.name}: ${summary(counts)} in ${seconds} s`);
    for (const key of ["passed", "failed", "skipped"] as const) total[key] += counts[key];
  }

  for (const skip of skips) console.log(`skipped: ${skip}`);
  for (const failure of failures) console.log(`failed: ${failure}`);
  console.log(`\n${summary(total)}`);
  return total.failed === 0 && total.passed > 0 ? 0 : 1;
}

function summary(counts: Counts): string {
  return `${counts.passed} passed, ${counts.failed} failed, ${counts.skipped} skipped`;
}

async function runAction(layer: Layer, failures: string[]): Promise<Counts> {
  try {
    await layer.action!();
    return { passed: 1, failed: 0, skipped: 0 };
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    failures.push(layer.name);
    return { passed: 0, failed: 1, skipped: 0 };
  }
}

async function runTests(layer: string, paths: readonly string[], skips: string[], failures: string[]): Promise<Counts> {
  const present = paths.filter((path) => exists(join(PROJECT, path)));
  const report = await Deno.makeTempFile({ prefix: "weave-test-", suffix: ".xml" });
  try {
    const success = await deno(["test", "--quiet", "--allow-all", "--no-prompt", `--junit-path=${report}`, ...present]);
    const cases = readReport(await Deno.readTextFile(report));
    const failed = cases.filter((test) => test.outcome === "failed");
    const skipped = cases.filter((test) => test.outcome === "skipped").map((test) => skipReason(test.name));
    failures.push(...failed.map((test) => `${layer}: ${test.name}`));
    skips.push(...skipped.map(({ name, reason }) => `${layer}: ${name}: ${reason}`));
    const counts = {
      passed: cases.length - failed.length - skipped.length,
      failed: failed.length,
      skipped: skipped.length,
    };
    if (!success && failed.length === 0) { // a file that does not load is in no report
      failures.push(`${layer}: deno test ended with an error`);
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

async function task(name: string): Promise<void> {
  if (!await deno(["task", "--quiet", name])) throw new Error(`deno task ${name} failed`);
}

async function deno(args: readonly string[]): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), { args: [...args], cwd: PROJECT, stdin: "null" });
  return (await command.spawn().status).success;
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
