/**
 * Services in the kernel: makes it do what a `ServicePlan` says, and nothing of it after `reset`. What is to be is computed whole
 * (`service_rules.ts`, `service_routes.ts`), compared with what is, and only the difference is changed: rules in one transaction.
 * Flows that are under way never notice, whether plans change, or another process of ours takes over.
 */
import { OperationError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import type { AnsweredAddress, NetworkId, ServicePlan } from "../service/plan.ts";
import type { Link } from "../wire/rtnetlink.ts";
import type { AnnouncedAddress } from "./announce.ts";
import { KernelSettings, pushDown } from "./kernel_settings.ts";
import { Links, readSysctl } from "./links.ts";
import { nftMissing, readNftTable, runNft } from "./nft.ts";
import {
  applyRouting,
  NO_ROUTING,
  planRouting,
  presentRouting,
  type Routing,
  type RoutingFacts,
  sameRouting,
} from "./service_routes.ts";
import { ensureMeshLeg, MESH_LEG, meshLegNeeded, removeMeshLeg } from "./service_leg.ts";
import {
  HOST,
  MESH,
  parsePresent,
  planScript,
  presentAfter,
  type PresentRules,
  REMOVE_TABLE,
  renderRules,
  type RuleFacts,
  type Rules,
  SERVICE_TABLE,
} from "./service_rules.ts";

export interface ServiceKernelOptions {
  /** Where is kept what we changed of the host's settings. */
  readonly runDir: string;
  /** Name of the overlay's bridge. */
  readonly bridge: string;
  /** Told of addresses that we answer for from now on, and no more: for gratuitous ARP. */
  readonly onAnswered?: (added: readonly AnnouncedAddress[], removed: readonly AnnouncedAddress[]) => void;
}

const FORWARDING = "net/ipv4/ip_forward";

export class ServiceKernel implements Disposable {
  readonly #options: ServiceKernelOptions;
  readonly #settings: KernelSettings;
  readonly #links = new Links();
  /** What we believe to be there; read anew where that proves wrong. */
  #present: PresentRules | undefined;
  #applied: { readonly plan: ServicePlan; readonly wanted: Wanted } | undefined;
  #answered: readonly AnnouncedAddress[] = [];
  #running: Promise<unknown> = Promise.resolve();

  private constructor(options: ServiceKernelOptions, settings: KernelSettings, present: PresentRules | undefined) {
    this.#options = options;
    this.#settings = settings;
    this.#present = present;
  }

  /** Reads what an earlier process left; changes nothing. @throws OperationError where `nft` is missing */
  static async open(options: ServiceKernelOptions): Promise<ServiceKernel> {
    const missing = nftMissing();
    if (missing !== undefined) throw new OperationError(`Cannot offer services: ${missing}`);
    return new ServiceKernel(options, await openSettings(options), await readPresent());
  }

  /**
   * Makes the kernel do what the plan says, after those that are being applied. Call it again with the same plan when links, addresses
   * or routes of the host have changed. Rejects saying what failed; rules are then as they were.
   * @returns whether anything was changed
   */
  apply(plan: ServicePlan): Promise<boolean> {
    return this.#serially(() => this.#apply(plan));
  }

  /**
   * Whether all is as `apply` left it; false where somebody flushed rules or changed settings, and `apply` will mend it. For a check
   * every 10 s.
   */
  isIntact(): Promise<boolean> {
    return this.#serially(async () => {
      this.#present = await readPresent();
      if (this.#applied === undefined) return true;
      const wanted = this.#plan(this.#applied.plan);
      if (wanted === undefined) return true;
      return planScript(this.#present, wanted.rules) === "" && !this.#settings.differ(wanted.settings) &&
        sameRouting(presentRouting(this.#links), wanted.routing);
    });
  }

  /** Takes everything away. */
  reset(): Promise<void> {
    return this.#serially(async () => {
      await this.#settings.restore();
      applyRouting(this.#links, NO_ROUTING);
      removeMeshLeg(this.#links);
      this.#present = await readPresent();
      if (this.#present !== undefined) await runNft(REMOVE_TABLE);
      this.#present = this.#applied = undefined;
      this.#tellAnswered([]);
    });
  }

  /** Leaves everything in place. */
  [Symbol.dispose](): void {
    this.#links[Symbol.dispose]();
  }

  async #apply(plan: ServicePlan): Promise<boolean> {
    const wanted = this.#plan(plan, { make: true });
    if (wanted === undefined) return false;
    const before = this.#applied?.wanted;
    const changedRules = await this.#applyRules(wanted.rules);
    let changedRest: boolean;
    try {
      const changedSettings = await this.#settings.set(wanted.settings);
      changedRest = applyRouting(this.#links, wanted.routing) || changedSettings;
    } catch (error) {
      await this.#goBack(before, error);
      throw error;
    }
    this.#applied = { plan, wanted };
    this.#tellAnswered(this.#announced(plan));
    return changedRules || changedRest;
  }

  /** What there is to be; undefined where there never was anything, and is not to be. @param make links that it takes */
  #plan(plan: ServicePlan, { make = false } = {}): Wanted | undefined {
    if (this.#present === undefined && isEmpty(plan)) return undefined;
    const { bridge } = this.#options;
    const leg = this.#meshLeg(make);
    const links = this.#links.list();
    const forwards = plan.listeners.some(({ targets }) => targets.length > 0);
    const forwardOnlyOurs =
      (this.#settings.before(FORWARDING) ?? (forwards ? readSysctl(FORWARDING) : undefined)) === 0;
    const rules: RuleFacts = {
      bridge,
      ...(leg?.mac === undefined ? {} : { meshLeg: { name: leg.name, mac: leg.mac } }),
      ownAddresses: this.#ownAddresses(plan),
      forwardOnlyOurs: forwardOnlyOurs &&
        {
          bridges: links.filter(({ kind, name }) => kind === "bridge" && name !== bridge).map(({ name }) => name)
            .concat(bridge),
        },
    };
    const routing: RoutingFacts = {
      bridge,
      ...(leg && { meshLeg: leg.name }),
      links,
      routes: this.#links.routes(),
      forwardOnlyOurs,
    };
    return {
      rules: renderRules(plan, rules),
      routing: planRouting(plan, routing),
      settings: wantedSettings(plan, { bridge, links: links.map(({ name }) => name), forwards }),
    };
  }

  /** The other link into the mesh, where it is needed. */
  #meshLeg(make: boolean): Link | undefined {
    const bridge = this.#links.find(this.#options.bridge);
    if (bridge === undefined || !meshLegNeeded()) return undefined;
    if (make) ensureMeshLeg(this.#links, bridge);
    return this.#links.find(MESH_LEG);
  }

  async #applyRules(rules: Rules): Promise<boolean> {
    let script = planScript(this.#present, rules);
    if (script === "") return false;
    try {
      await runNft(script);
    } catch (error) {
      // Somebody else may have changed our table: another look tells.
      const present = await readPresent();
      const again = planScript(present, rules);
      if (again === script) throw error;
      this.#present = present;
      script = again;
      if (script !== "") await runNft(script);
    }
    this.#present = presentAfter(rules);
    return true;
  }

  async #goBack(before: Wanted | undefined, error: unknown): Promise<void> {
    if (before === undefined) return;
    try {
      await this.#applyRules(before.rules);
      applyRouting(this.#links, before.routing);
    } catch (second) {
      throw new OperationError(`${(error as Error).message}; going back failed: ${(second as Error).message}`, 1, {
        cause: error,
      });
    }
  }

  #ownAddresses(plan: ServicePlan): Map<NetworkId, readonly Cidr[]> {
    const networks = [...plan.networks, { id: MESH, interfaces: [this.#options.bridge] }];
    return new Map(networks.map(({ id, interfaces }) => {
      const links = interfaces.map((name) => this.#links.find(name)).filter((link) => link !== undefined);
      return [id, links.flatMap(({ index }) => this.#links.addresses(index))];
    }));
  }

  #announced(plan: ServicePlan): AnnouncedAddress[] {
    return plan.answered.flatMap(({ network, address }) => {
      const link = linkOf(plan, network, this.#options.bridge);
      return link === undefined ? [] : [{ address, link }];
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

interface Wanted {
  readonly rules: Rules;
  readonly routing: Routing;
  readonly settings: ReadonlyMap<string, number>;
}

/** What `reset` of the command line does: as `ServiceKernel.reset()`, also where `nft` is missing. Nothing there is no error. */
export async function resetServiceKernel(options: ServiceKernelOptions): Promise<void> {
  if (nftMissing() === undefined) {
    using kernel = await ServiceKernel.open(options);
    return await kernel.reset();
  }
  await (await openSettings(options)).restore();
  using links = new Links();
  applyRouting(links, NO_ROUTING);
  removeMeshLeg(links);
}

function openSettings({ runDir }: ServiceKernelOptions): Promise<KernelSettings> {
  return KernelSettings.open(`${runDir}/service-settings.json`);
}

async function readPresent(): Promise<PresentRules | undefined> {
  const objects = await readNftTable(SERVICE_TABLE);
  return objects === undefined ? undefined : parsePresent(objects);
}

function isEmpty({ subnets, answered, listeners, networks, backends }: ServicePlan): boolean {
  return [subnets, answered, listeners, networks, backends].every(({ length }) => length === 0);
}

function linkOf(plan: ServicePlan, network: AnsweredAddress["network"], bridge: string): string | undefined {
  return network === 1 ? bridge : plan.networks.find(({ id }) => id === network)?.interfaces[0];
}

/** In the order in which they are to be set. */
function wantedSettings(
  plan: ServicePlan,
  { bridge, links, forwards }: {
    readonly bridge: string;
    readonly links: readonly string[];
    readonly forwards: boolean;
  },
): Map<string, number> {
  const answering = [bridge, ...plan.networks.flatMap(({ interfaces }) => interfaces)];
  const loopback =
    plan.listeners.some(({ network, address, targets }) =>
      network === HOST && address === "own" && targets.length > 0
    ) || plan.backends.some(({ address }) => address >>> 24 === 127);
  return new Map([
    // Answers come by a link that has no route back in the main table, and ARP is for addresses that the link does not have.
    ...pushDown("rp_filter", links, new Set([...answering, MESH_LEG])),
    ...pushDown("arp_ignore", links.filter((link) => link !== MESH_LEG), new Set(answering)),
    // What refuses a packet goes where its mark says.
    ["net/ipv4/fwmark_reflect", 1],
    ...(loopback ? [["net/ipv4/conf/all/route_localnet", 1] as const] : []),
    ...(forwards ? [[FORWARDING, 1] as const] : []),
  ]);
}
