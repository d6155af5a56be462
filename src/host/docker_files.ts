/**
 * What the Docker engine has on disk of its containers. It tells the same when it is asked, but not of a container that it is starting:
 * a question about that one waits until it has started. Nothing depends on it, as the engine may keep it in another way one day.
 */
import { join } from "node:path";
import { askEngineFor } from "./docker_api.ts";
import { hostRoot } from "./command.ts";

let folder: string | undefined;

/** What a container was made with, in words of the engine's own; undefined where it is not found. */
export async function keptConfig(id: string, limitMs: number): Promise<unknown> {
  try {
    folder ??= await rootFolder(limitMs);
    return folder && JSON.parse(await Deno.readTextFile(join(folder, "containers", id, "config.v2.json")));
  } catch {
    folder = undefined; // the engine may be another one by now
    return undefined;
  }
}

async function rootFolder(limitMs: number): Promise<string | undefined> {
  const { DockerRootDir: root } = (await askEngineFor("/info", limitMs) ?? {}) as { DockerRootDir?: unknown };
  return typeof root === "string" && root.startsWith("/") ? join(hostRoot() ?? "/", root) : undefined;
}
