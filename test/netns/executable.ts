/** Which `weave` the emulated hosts run: the compiled executable, or for the demonstration the sources. */

import { join } from "node:path";
import { RUN_ARGUMENTS } from "../../dist/compile.ts";
import { run } from "./command.ts";

const PROJECT = join(import.meta.dirname!, "../..");

/** What goes before a program of ours that is run from its source, with the locked packages: hosts can fetch nothing. */
export const DENO_RUN: readonly string[] = [
  Deno.execPath(),
  "run",
  "--quiet",
  "--allow-all",
  "--no-prompt",
  "--no-check",
  `--lock=${join(PROJECT, "deno.lock")}`,
  "--frozen",
];

/** The command line of the compiled executable for this machine. */
export function compiledWeave(): string[] {
  const path = join(PROJECT, "dist/weave");
  try {
    Deno.statSync(path);
  } catch {
    throw new Error(`Cannot run ${path}: it is not there; deno task compile --native makes it`);
  }
  return [path];
}

/** The command line that runs the program from its sources, whose packages it fetches first: hosts cannot. */
export async function weaveFromSources(): Promise<string[]> {
  const main = join(PROJECT, "main.ts");
  await run([Deno.execPath(), "install", "--quiet", "--entrypoint", main], {
    env: { DENO_TLS_CA_STORE: "system,mozilla" },
    timeoutMs: 120_000,
  });
  return [Deno.execPath(), "run", "--quiet", ...RUN_ARGUMENTS, main];
}
