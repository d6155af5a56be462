/** Which `weave` the emulated hosts run: the compiled executable, or for the demonstration the sources. */

import { join } from "node:path";
import { RUN_ARGUMENTS } from "../../dist/compile.ts";

const PROJECT = join(import.meta.dirname!, "../..");

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

/** The command line that runs the program from its sources. */
export function weaveFromSources(): string[] {
  return [Deno.execPath(), "run", "--quiet", ...RUN_ARGUMENTS, join(PROJECT, "main.ts")];
}
