/** The executable of this very program, with another version. */

import { join } from "node:path";
import { compile } from "../../dist/compile.ts";
import { ARCHITECTURES } from "../../dist/runtime_base.ts";
import { run } from "./command.ts";

const PROJECT = join(import.meta.dirname!, "../..");

/** Compiles it into a folder. @returns its path */
export async function compileVersion(folder: string, version: string): Promise<string> {
  const project = join(folder, "project");
  await Deno.mkdir(project);
  const sources = ["deno.json", "deno.lock", "main.ts", "src", "ffi"].map((name) => join(PROJECT, name));
  await run(["cp", "-r", ...sources, project]);
  const config = JSON.parse(await Deno.readTextFile(join(project, "deno.json")));
  await Deno.writeTextFile(join(project, "deno.json"), JSON.stringify({ ...config, version }));
  const architectures = ARCHITECTURES.filter((architecture) => architecture.name === Deno.build.arch);
  const [executable] = await compile({ architectures, project, output: join(folder, "out"), say: () => {} });
  return executable!;
}
