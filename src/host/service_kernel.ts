/**
 * Services in the kernel: makes it do what a `ServicePlan` says, and nothing of it after `reset`. What is to be is computed whole
 * (`service_rules.ts`, `service_routes.ts`), compared with what is, and only the difference is changed: rules in one transaction.
 * Flows that are under way never notice, whether plans change, or another process of ours takes over.
 */
import { OperationError } from "../lib/errors.ts";
import type { NetworkPlan, ServicePlan } from "../service/plan.ts";
import type { AnnouncedAddress } from "./announce.ts";
import { KernelSettings, serviceSettingsFile } from "./kernel_settings.ts";
import { IsolatedNetworks, removeIsolatedNetworks } from "./isolated_networks.ts";
import { Links } from "./links.ts";
import { networkNamespace } from "./network_namespace.ts";
import { statNetns } from "./netns.ts";
import { nftMissing } from "./nft.ts";
import { splitPlan } from "./service_isolated.ts";
import { removeMeshLeg } from "./service_leg.ts";
import { ServicePlace } from "./service_place.ts";
import { applyRouting, NO_ROUTING } from "./service_routes.ts";
import { MESH } from "./service_rules.ts";

export interface ServiceKernelOptions {
  /** Where is kept what we changed of the host's settings. */
  readonly runDir: string;
  /** Name of the overlay's bridge. */
  readonly bridge: string;
  /** Told of addresses that we answer for from now on, and no more: for gratuitous ARP. */
  readonly onAnswered?: (added: readonly AnnouncedAddress[], removed: readonly AnnouncedAddress[]) => void;
  /** Called when there is something of ours in the kernel for the first time, before `apply` resolves: `servicesInKernel()` says so from then on. */
  readonly onBegin?: () => Promise<void>;
}

export class ServiceKernel implements Disposable {
  readonly #options: ServiceKernelOptions;
  readonly #here: ServicePlace;
  readonly #isolated: IsolatedNetworks;
  /** Namespace of an isolated network, by its path → what we do there. */
  readonly #inside = new Map<string, ServicePlace>();
  #plan: ServicePlan | undefined;
  #answered: readonly AnnouncedAddress[] = [];
  #running: Promise<unknown> = Promise.resolve();

  private constructor(options: ServiceKernelOptions, here: ServicePlace) {
    this.#options = options;
    this.#here = here;
    this.#isolated = new IsolatedNetworks(options.runDir);
  }

  /** Reads what an earlier process left; changes nothing. @throws OperationError where `nft` is missing */
  static async open(options: ServiceKernelOptions): Promise<ServiceKernel> {
    const missing = nftMissing();
    if (missing !== undefined) throw new OperationError(`Cannot offer services: ${missing}`);
    const settings = await KernelSettings.open(serviceSettingsFile(options.runDir));
    return new ServiceKernel(options, await ServicePlace.open({ bridge: options.bridge, settings }));
  }

  /**
   * Makes the kernel do what the plan says, after those that are being applied. Call it again with the same plan when links, addresses
   * or routes of the host have changed. Rejects saying what failed; rules are then as they were.
   * @returns whether anything was changed
   */
  apply(plan: ServicePlan): Promise<boolean> {
    return this.#serially(async () => {
      const { here, inside } = splitPlan(plan);
      const begun = this.#here.begun;
      let changed = await this.#isolated.ensure(plan.networks);
      changed = await this.#applyInside(inside) || changed;
      changed = await this.#here.apply(here) || changed;
      changed = await this.#isolated.retain(plan.networks) || changed;
      this.#plan = plan;
      if (!begun && this.#here.begun) await this.#options.onBegin?.();
      this.#tellAnswered(this.#announced(plan));
      return changed;
    });
  }

  /**
   * Whether all is as `apply` left it, and would leave it now; false where somebody flushed rules or changed settings, addresses or
   * routes, and `apply` will mend it. For a check every 10 s.
   */
  isIntact(): Promise<boolean> {
    return this.#serially(async () => {
      if (this.#plan === undefined) return true;
      const { here, inside } = splitPlan(this.#plan);
      if (!await this.#here.isIntact(here)) return false;
      for (const { network, plan } of inside) {
        const place = await this.#place(network);
        if (place !== undefined && !await place.isIntact(plan)) return false;
      }
      return true;
    });
  }

  /** Takes everything away; what is in the namespaces of isolated networks goes with these. */
  reset(): Promise<void> {
    return this.#serially(async () => {
      this.#plan = undefined;
      await this.#here.reset();
      this.#closeInside([]);
      this.#tellAnswered([]);
      await removeIsolatedNetworks(this.#options.runDir);
    });
  }

  /** Why an isolated network could not be made as the plan last had it. */
  networkFailure(name: string): string | undefined {
    return this.#isolated.failure(name);
  }

  /** What is left of isolated networks that are no more. */
  get networksLeft(): readonly string[] {
    return this.#isolated.left;
  }

  /** What is wrong with an isolated network. */
  networkWarnings(name: string): readonly string[] {
    return this.#isolated.warnings(name);
  }

  /** Leaves everything in place. */
  [Symbol.dispose](): void {
    this.#here[Symbol.dispose]();
    this.#closeInside([]);
  }

  async #applyInside(parts: ReturnType<typeof splitPlan>["inside"]): Promise<boolean> {
    let changed = false;
    const used: ServicePlace[] = [];
    for (const { network, plan } of parts) {
      const place = await this.#place(network);
      // Without its namespace a network is away, like a link that is not there.
      if (place === undefined) continue;
      used.push(place);
      changed = await place.apply(plan) || changed;
    }
    this.#closeInside(used);
    return changed;
  }

  async #place({ name }: NetworkPlan): Promise<ServicePlace | undefined> {
    const namespace = networkNamespace(name);
    const netns = statNetns(namespace);
    const known = this.#inside.get(namespace);
    if (known !== undefined && known.inode === netns?.inode) return known;
    known?.[Symbol.dispose]();
    this.#inside.delete(namespace);
    if (netns === undefined) return undefined;
    const place = await ServicePlace.open({ netns });
    this.#inside.set(namespace, place);
    return place;
  }

  #closeInside(keep: readonly ServicePlace[]): void {
    for (const [namespace, place] of this.#inside) {
      if (keep.includes(place)) continue;
      place[Symbol.dispose]();
      this.#inside.delete(namespace);
    }
  }

  #announced(plan: ServicePlan): AnnouncedAddress[] {
    return plan.answered.flatMap(({ network, address }): AnnouncedAddress[] => {
      if (network === MESH) return [{ address, link: this.#options.bridge }];
      const { name, interfaces: [link], isolated } = plan.networks.find(({ id }) => id === network) ?? NOWHERE;
      if (link === undefined) return [];
      return [{ address, link, ...(isolated ? { namespace: networkNamespace(name) } : {}) }];
    });
  }

  #tellAnswered(answered: readonly AnnouncedAddress[]): void {
    const key = ({ address, link, namespace }: AnnouncedAddress) => `${address} ${link} ${namespace ?? ""}`;
    const before = new Set(this.#answered.map(key));
    const after = new Set(answered.map(key));
    const added = answered.filter((one) => !before.has(key(one)));
    const removed = this.#answered.filter((one) => !after.has(key(one)));
    this.#answered = answered;
    if (added.length + removed.length > 0) this.#options.onAnswered?.(added, removed);
  }

  #serially<T>(work: () => Promise<T>): Promise<T> {
    const result = this.#running.then(work);
    this.#running = result.catch(() => {});
    return result;
  }
}

const NOWHERE: Pick<NetworkPlan, "name" | "interfaces" | "isolated"> = { name: "", interfaces: [], isolated: false };

/** What `reset` of the command line does: as `ServiceKernel.reset()`, also where `nft` is missing. Nothing there is no error. */
export async function resetServiceKernel(options: ServiceKernelOptions): Promise<void> {
  if (nftMissing() === undefined) {
    using kernel = await ServiceKernel.open(options);
    return await kernel.reset();
  }
  await (await KernelSettings.open(serviceSettingsFile(options.runDir))).restore();
  using links = new Links();
  applyRouting(links, NO_ROUTING);
  removeMeshLeg(links, options.bridge);
  await removeIsolatedNetworks(options.runDir);
}
