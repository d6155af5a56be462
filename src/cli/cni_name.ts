/** Whether this program was called as a container runtime's plugin; apart from the plugin, as every command asks. */
import { basename } from "node:path";

const CNI_PROGRAMS = ["weave-net", "weave-ipam"] as const;
export type CniProgram = typeof CNI_PROGRAMS[number];

/** By which of these names; undefined: by another. A link to the executable keeps its name here alone. */
export function cniProgram(): CniProgram | undefined {
  let command: string;
  try {
    command = Deno.readTextFileSync("/proc/self/cmdline").split("\0", 1)[0]!;
  } catch {
    return undefined;
  }
  return CNI_PROGRAMS.find((name) => name === basename(command));
}
