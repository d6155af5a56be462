/**
 * The program that holds a container's first process until the container is in the network (helper/w.c), as files of this host: each
 * container that is held has one of three folders mounted, read-only, as /w.
 *
 *     /var/lib/weave/helper/w/w            waits; beside it "no-multicast" while no route for multicast is made
 *     /var/lib/weave/helper/w-nomcast/w    waits for the interface alone: for a container that gets no route whatever the router does
 *     /var/lib/weave/helper/w-noop/w       does not: for a container that turned out to have no network of its own
 *
 * Containers see the folder itself, so what is changed in it counts for those that were made before.
 */
import { join } from "node:path";
import { removeIfThere } from "./store.ts";

export const HELPER_FOLDER = "/var/lib/weave/helper";

/** Folders of this host. */
export interface Helper {
  readonly waits: string;
  readonly waitsForLink: string;
  readonly doesNotWait: string;
}

/**
 * @param o whether containers get a route for multicast; a command leaves that as the router has it
 * @returns undefined: this program was built without it
 */
export async function installHelper(o: { readonly multicastRoute?: boolean } = {}): Promise<Helper | undefined> {
  const octets = readHelper();
  if (octets === undefined) return undefined;
  const helper = {
    waits: join(HELPER_FOLDER, "w"),
    waitsForLink: join(HELPER_FOLDER, "w-nomcast"),
    doesNotWait: join(HELPER_FOLDER, "w-noop"),
  };
  for (const folder of Object.values(helper)) {
    await Deno.mkdir(folder, { recursive: true, mode: 0o755 });
    await install(join(folder, "w"), octets, 0o555);
  }
  await install(join(helper.doesNotWait, "no-wait"), new Uint8Array(), 0o444);
  await install(join(helper.waitsForLink, "no-multicast"), new Uint8Array(), 0o444);
  const noRoute = join(helper.waits, "no-multicast");
  if (o.multicastRoute === true) await removeIfThere(noRoute);
  else if (o.multicastRoute === false) await install(noRoute, new Uint8Array(), 0o444);
  return helper;
}

export async function removeHelper(): Promise<void> {
  await Deno.remove(HELPER_FOLDER, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

/** Comes with the executable; there is none beside the sources. */
function readHelper(): Uint8Array<ArrayBuffer> | undefined {
  try {
    return Deno.readFileSync(join(import.meta.dirname!, "../../helper/w"));
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    throw error;
  }
}

/** Whoever runs the former one keeps it. */
async function install(path: string, octets: Uint8Array<ArrayBuffer>, mode: number): Promise<void> {
  const there = await Deno.readFile(path).catch(() => undefined);
  if (there !== undefined && equal(there, octets)) return;
  const beside = `${path}.${Deno.pid}`;
  await removeIfThere(beside);
  await Deno.writeFile(beside, octets);
  await Deno.chmod(beside, mode); // whatever the umask is
  await Deno.rename(beside, path);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && a.every((octet, i) => octet === b[i]);
}
