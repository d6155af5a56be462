/**
 * What the operations on this host share: where things are, the lock under which they are changed, and what is remembered about
 * them until the next boot. `attach`, `detach`, `ps`, `expose`, `hide` and `reset` run in the calling process, as root; the router
 * uses the same functions for its own start and its checks.
 */
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr, parseCidr } from "../lib/ip.ts";
import { canaryIntact, ensureFirewall, type Exposure, type FirewallOptions } from "../host/firewall.ts";
import { Links } from "../host/links.ts";
import { withLock } from "../host/lock.ts";
import { StoreFile } from "../host/store.ts";
import type { Progress } from "./address_book.ts";
import { HOST, type HostPaths } from "./host_paths.ts";

export { HOST, type HostPaths };

/** A container that Docker does not know: where only its namespace names it nobody tells us when it is gone, so we look. */
export interface Attachment {
  /** `netns-<device>-<inode>`, or what a container runtime calls it. */
  readonly id: string;
  readonly device: number;
  readonly inode: number;
  /** Where the namespace was to be entered. */
  readonly path: string;
  /** Host end of its link; the kernel removes it together with the namespace. */
  readonly link: { readonly name: string; readonly index: number };
  /** What `--hostname` said. */
  readonly hostname?: string;
  /** Everything that was attached and not detached. */
  readonly addresses: readonly Cidr[];
  /** A container runtime says when it is over: until then its addresses are its own, whatever became of its namespace. */
  readonly untilTold?: true;
}

/** One host's memory of its plumbing. Kernel state is the truth; these files only say what the kernel cannot. */
export class Plumbing {
  readonly #attachments: StoreFile<readonly Attachment[]>;
  readonly #exposures: StoreFile<readonly Exposure[]>;

  constructor(readonly host: HostPaths, readonly progress: Progress = QUIET) {
    this.#attachments = new StoreFile(`${host.runDir}/attachments.json`, ATTACHMENTS);
    this.#exposures = new StoreFile(`${host.runDir}/exposures.json`, EXPOSURES);
  }

  /** Runs `work` while no other operation on this host does. */
  locked<T>(work: () => Promise<T>): Promise<T> {
    return withLock(`${this.host.runDir}/lock`, work, {
      onWait: () => this.progress.warn("Waiting for another weave command on this host to end"),
    });
  }

  async attachments(): Promise<readonly Attachment[]> {
    return await this.#read(this.#attachments) ?? [];
  }

  /** Replaces what is known of `id`; undefined forgets it. The caller holds the lock. */
  async setAttachment(id: string, attachment: Attachment | undefined): Promise<void> {
    const before = await this.attachments();
    const others = before.filter((a) => a.id !== id);
    if (attachment === undefined && others.length === before.length) return;
    await this.#attachments.write(attachment === undefined ? others : [...others, attachment]);
  }

  /** Addresses of the host on the overlay: those of the bridge, with what was asked for when they were exposed. */
  async exposures(links: Links): Promise<readonly Exposure[]> {
    const bridge = links.find(this.host.bridge);
    if (bridge === undefined) return [];
    const remembered = new Map((await this.rememberedExposures()).map((e) => [formatCidr(e.cidr), e.masquerade]));
    return links.addresses(bridge.index).map((cidr) => ({
      cidr,
      masquerade: remembered.get(formatCidr(cidr)) ?? true,
    }));
  }

  async rememberedExposures(): Promise<readonly Exposure[]> {
    return await this.#read(this.#exposures) ?? [];
  }

  /** The caller holds the lock. */
  async rememberExposures(exposures: readonly Exposure[]): Promise<void> {
    await this.#exposures.write(exposures);
  }

  /** Makes the packet filter fit the exposures. The caller holds the lock. @returns whether anything was changed */
  async refreshFirewall(links: Links, options?: FirewallOptions): Promise<boolean> {
    return await ensureFirewall(await this.#firewallState(links, options));
  }

  /** Whether the packet filter is as `refreshFirewall` left it; for the router's check every 10 s, without the lock. */
  async firewallIntact(links: Links, options?: FirewallOptions): Promise<boolean> {
    return await canaryIntact(await this.#firewallState(links, options));
  }

  async #firewallState(links: Links, options: FirewallOptions | undefined) {
    const exposures = await this.exposures(links);
    return { runDir: this.host.runDir, exposures, ...(options === undefined ? {} : { options }) };
  }

  /** A file of ours that cannot be understood costs its content, not the operation; one of a newer version refuses it. */
  async #read<T>(file: StoreFile<T>): Promise<T | undefined> {
    try {
      return await file.read();
    } catch (error) {
      if (!(error instanceof OperationError) || error.constructor !== OperationError) throw error;
      this.progress.warn(error.message);
      return undefined;
    }
  }
}

/**
 * Attachments whose namespace is gone, forgotten by this call: the router gives their addresses and names back. Called every 30 s.
 */
export async function takeGoneAttachments(plumbing: Plumbing): Promise<readonly Attachment[]> {
  if ((await plumbing.attachments()).length === 0) return [];
  return await plumbing.locked(async () => {
    using links = new Links();
    const gone = (await plumbing.attachments()).filter((a) => a.untilTold !== true && !isAlive(links, a));
    for (const { id } of gone) await plumbing.setAttachment(id, undefined);
    return gone;
  });
}

/** Numbers of interfaces are not given again soon, names and inodes are. */
export function isAlive(links: Links, attachment: Attachment): boolean {
  return links.byIndex(attachment.link.index)?.name === attachment.link.name;
}

const QUIET: Progress = { warn() {} };

const ATTACHMENTS = {
  what: "attachments",
  major: 1,
  minor: 0,
  check: (data: unknown) => checkList(data).map(checkAttachment),
  encode: (list: readonly Attachment[]) => list.map((a) => ({ ...a, addresses: a.addresses.map(formatCidr) })),
};

const EXPOSURES = {
  what: "exposures",
  major: 1,
  minor: 0,
  check: (data: unknown) =>
    checkList(data).map(({ cidr, masquerade }): Exposure => ({
      cidr: checkCidr(cidr),
      masquerade: masquerade !== false,
    })),
  encode: (list: readonly Exposure[]) => list.map((e) => ({ cidr: formatCidr(e.cidr), masquerade: e.masquerade })),
};

type Fields = { readonly [name: string]: unknown };

function checkList(data: unknown): Fields[] {
  if (!Array.isArray(data) || !data.every((item) => typeof item === "object" && item !== null)) {
    throw new Error("a list is missing");
  }
  return data;
}

function checkAttachment(fields: Fields): Attachment {
  const { id, device, inode, path, link, hostname, addresses, untilTold } = fields;
  const { name, index } = (link ?? {}) as Fields;
  if (
    typeof id !== "string" || typeof device !== "number" || typeof inode !== "number" || typeof path !== "string" ||
    typeof name !== "string" || typeof index !== "number" || !Array.isArray(addresses)
  ) throw new Error("an attachment lacks something");
  return {
    id,
    device,
    inode,
    path,
    link: { name, index },
    addresses: addresses.map(checkCidr),
    ...typeof hostname === "string" ? { hostname } : {},
    ...untilTold === true ? { untilTold } : {},
  };
}

function checkCidr(text: unknown): Cidr {
  const cidr = typeof text === "string" ? parseCidr(text) : undefined;
  if (cidr === undefined) throw new Error(`"${text}" is no address`);
  return cidr;
}
