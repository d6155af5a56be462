/** Settings of the kernel that we change: what was there is remembered until it is put back, in a file that is lost at reboot like they are. */
import { OperationError } from "../lib/errors.ts";
import { readSysctl, setSysctl } from "./links.ts";
import { StoreFile, type StoreFormat } from "./store.ts";

/** Path under /proc/sys → number before us, and what we made of it. */
type Changes = Readonly<Record<string, { readonly before: number; readonly ours: number }>>;

export class KernelSettings {
  #changes: Changes = {};
  /** Something was set, or found to be as wanted. */
  #begun = false;
  readonly #file: StoreFile<Changes>;

  private constructor(path: string) {
    this.#file = new StoreFile(path, FORMAT);
  }

  /** @param path of the file; one that cannot be understood counts as none */
  static async open(path: string): Promise<KernelSettings> {
    const settings = new KernelSettings(path);
    try {
      const changes = await settings.#file.read();
      settings.#begun = changes !== undefined;
      settings.#changes = changes ?? {};
    } catch (error) {
      if (!(error instanceof OperationError)) throw error;
    }
    return settings;
  }

  /** What there was before us; undefined where we have changed nothing. */
  before(path: string): number | undefined {
    return this.#changes[path]?.before;
  }

  /**
   * Sets what differs; what this kernel does not have is passed over. Remembered before it is done, also that there was nothing to do.
   * @returns whether anything differed
   */
  async set(wanted: ReadonlyMap<string, number>): Promise<boolean> {
    const differs = [...wanted].filter(isOtherwise);
    if (differs.length === 0 && this.#begun) return false;
    const changes: Record<string, { before: number; ours: number }> = { ...this.#changes };
    for (const [path, ours] of differs) changes[path] = { before: changes[path]?.before ?? readSysctl(path)!, ours };
    this.#changes = changes;
    this.#begun = true;
    await this.#file.write(changes);
    setAll(wanted);
    return differs.length > 0;
  }

  /** Puts all back that nobody else has changed since. */
  async restore(): Promise<void> {
    for (const [path, { before, ours }] of Object.entries(this.#changes).reverse()) {
      if (readSysctl(path) === ours) setSysctl(path, before);
    }
    this.#changes = {};
    this.#begun = false;
    await this.#file.remove();
  }
}

/** Without remembering anything: where it goes away with its namespace. */
export function setAll(wanted: ReadonlyMap<string, number>): boolean {
  const differs = [...wanted].some(isOtherwise);
  // All of them, and looked at again: a new default changes every link for which nobody has set anything.
  if (differs) { for (const [path, value] of wanted) setSysctl(path, value); }
  return differs;
}

export function differ(wanted: ReadonlyMap<string, number>): boolean {
  return [...wanted].some(isOtherwise);
}

function isOtherwise([path, value]: readonly [string, number]): boolean {
  const now = readSysctl(path);
  return now !== undefined && now !== value;
}

/** Where `ServiceKernel` remembers what it changed. */
export function serviceSettingsFile(runDir: string): string {
  return `${runDir}/service-settings.json`;
}

/** Whether a `ServiceKernel` has something in the kernel: from its `onBegin` to its `reset`. */
export function servicesInKernel(runDir: string): boolean {
  try {
    return Deno.statSync(serviceSettingsFile(runDir)).isFile;
  } catch {
    return false;
  }
}

/**
 * Of `conf/all/NAME` and `conf/LINK/NAME` the larger one counts. Where `all` is above 0, these are the settings that say the same without
 * it, so that a link can have 0.
 */
export function pushDown(name: string, links: readonly string[], zero: ReadonlySet<string>): Map<string, number> {
  const path = (link: string) => `net/ipv4/conf/${link}/${name}`;
  const all = readSysctl(path("all")) ?? 0;
  const wanted = new Map<string, number>();
  // Links first: in between there is more of it than wanted rather than less.
  if (all > 0) {
    for (const link of ["default", ...links]) {
      const own = readSysctl(path(link));
      if (own !== undefined && own < all && !zero.has(link)) wanted.set(path(link), all);
    }
  }
  for (const link of zero) if (links.includes(link)) wanted.set(path(link), 0);
  wanted.set(path("all"), 0);
  return wanted;
}

const FORMAT: StoreFormat<Changes> = {
  what: "kernel settings",
  major: 1,
  minor: 0,
  check(data) {
    const changes: Record<string, { before: number; ours: number }> = {};
    if (typeof data !== "object" || data === null || Array.isArray(data)) throw new Error("an object expected");
    for (const [path, change] of Object.entries(data)) {
      const { before, ours } = (change ?? {}) as { before?: unknown; ours?: unknown };
      if (!/^net\/[\w./-]+$/.test(path) || path.includes("..")) throw new Error(`not a setting of ours: ${path}`);
      if (typeof before !== "number" || typeof ours !== "number") throw new Error(`two numbers expected for ${path}`);
      changes[path] = { before, ours };
    }
    return changes;
  },
};
