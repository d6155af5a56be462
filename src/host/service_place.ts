/** One network namespace in which there are services: this one, or that of an isolated network. */
import { withNetns } from "../../ffi/netns.ts";
import { OperationError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import type { NetworkId, ServicePlan } from "../service/plan.ts";
import type { Link } from "../wire/rtnetlink.ts";
import { differ, type KernelSettings, pushDown, setAll } from "./kernel_settings.ts";
import { Links, readSysctl } from "./links.ts";
import type { Netns } from "./netns.ts";
import { NftGeneration, type NftPlace, readNftTable, runNft } from "./nft.ts";
import { ensureMeshLeg, MESH_LEG, meshLegIntact, removeMeshLeg } from "./service_leg.ts";
import { applyRouting, NO_ROUTING, planRouting, presentRouting, type Routing, sameRouting } from "./service_routes.ts";
import {
  HOST,
  MESH,
  parsePresent,
  planScript,
  presentAfter,
  type PresentRules,
  REMOVE_TABLE,
  renderRules,
  type Rules,
  SERVICE_TABLE,
} from "./service_rules.ts";

const FORWARDING = "net/ipv4/ip_forward";

export type PlaceOptions =
  | { readonly bridge: string; readonly settings: KernelSettings; readonly netns?: undefined }
  /** It has no bridge, forwards only what is ours, and what we set goes away with it. */
  | { readonly netns: Netns };

interface Wanted {
  readonly rules: Rules;
  readonly routing: Routing;
  readonly settings: ReadonlyMap<string, number>;
}

export class ServicePlace implements Disposable {
  readonly #links: Links;
  readonly #nft: NftPlace;
  /** What we believe to be there; read anew where that proves wrong. */
  #present: PresentRules | undefined;
  /** Of the kernel's rules when `#present` was right; undefined where that is not sure. */
  #sureAt: number | undefined;
  readonly #generation: NftGeneration;
  /** By the last `apply`, or mended. */
  #madeLeg = false;
  /** undefined where it is not known, as of an earlier process. */
  #applied: Wanted | undefined;

  private constructor(readonly options: PlaceOptions) {
    const { netns } = options;
    this.#links = this.#run(() => new Links());
    this.#generation = this.#run(() => new NftGeneration());
    this.#nft = netns === undefined ? {} : { within: (start) => withNetns(netns.path, start) };
  }

  static async open(options: PlaceOptions): Promise<ServicePlace> {
    const place = new ServicePlace(options);
    await place.#read();
    return place;
  }

  /** Of its namespace. */
  get inode(): number | undefined {
    return this.options.netns?.inode;
  }

  /** There is something of ours. */
  get begun(): boolean {
    return this.#present !== undefined;
  }

  get #bridge(): string | undefined {
    return this.options.netns === undefined ? this.options.bridge : undefined;
  }

  /** @returns whether anything was changed */
  async apply(plan: ServicePlan): Promise<boolean> {
    this.#madeLeg = false;
    const wanted = this.#plan(plan, { make: true });
    if (wanted === undefined) return false;
    const before = this.#applied ?? (this.#present === undefined ? "nothing" : undefined);
    let changed = await this.#applyRules(wanted.rules);
    try {
      // Rules come first, which keep out what settings let in.
      changed = await this.#applySettings(wanted.settings) || changed;
      changed = applyRouting(this.#links, wanted.routing) || changed;
    } catch (error) {
      await this.#goBack(before, error as Error);
      throw error;
    }
    this.#applied = wanted;
    return changed || this.#madeLeg;
  }

  async isIntact(plan: ServicePlan): Promise<boolean> {
    if (this.#sureAt === undefined || this.#generation.read() !== this.#sureAt) await this.#read();
    const wanted = this.#plan(plan);
    if (wanted === undefined) return true;
    const bridge = this.#bridge === undefined ? undefined : this.#links.find(this.#bridge);
    if (bridge !== undefined && !meshLegIntact(this.#links, bridge)) return false;
    return planScript(this.#present, wanted.rules) === "" && !this.#run(() => differ(wanted.settings)) &&
      sameRouting(presentRouting(this.#links), wanted.routing);
  }

  async reset(): Promise<void> {
    if (this.options.netns === undefined) await this.options.settings.restore();
    applyRouting(this.#links, NO_ROUTING);
    removeMeshLeg(this.#links, this.#bridge);
    await this.#read();
    if (this.#present !== undefined) await runNft(REMOVE_TABLE, this.#nft);
    this.#present = this.#applied = undefined;
  }

  [Symbol.dispose](): void {
    this.#links[Symbol.dispose]();
    this.#generation[Symbol.dispose]();
  }

  /** What there is to be; undefined where there never was anything, and is not to be. @param make links that it takes */
  #plan(plan: ServicePlan, { make = false } = {}): Wanted | undefined {
    if (this.#present === undefined && isEmpty(plan)) return undefined;
    const bridge = this.#bridge;
    const leg = this.#meshLeg(make);
    const links = this.#links.list();
    const forwards = plan.listeners.some(({ targets }) => targets.length > 0);
    const forwardOnlyOurs = this.#forwardsNothing(forwards);
    const bridges = links.filter(({ kind, name }) => kind === "bridge" || name === bridge).map(({ name }) => name);
    return {
      rules: renderRules(plan, {
        bridge,
        ...(leg?.mac === undefined ? {} : { meshLeg: { name: leg.name, mac: leg.mac } }),
        ownAddresses: this.#ownAddresses(plan, links),
        forwardOnlyOurs: forwardOnlyOurs && { bridges },
      }),
      routing: planRouting(plan, {
        bridge,
        ...(leg && { meshLeg: leg.name }),
        links,
        routes: this.#links.routes(),
        forwardOnlyOurs,
      }),
      settings: this.#run(() => wantedSettings(plan, { bridge, links: links.map(({ name }) => name), forwards })),
    };
  }

  /** Whether nothing was forwarded here before us. */
  #forwardsNothing(forwards: boolean): boolean {
    if (this.options.netns !== undefined) return true;
    return (this.options.settings.before(FORWARDING) ?? (forwards ? readSysctl(FORWARDING) : undefined)) === 0;
  }

  async #applyRules(rules: Rules): Promise<boolean> {
    const script = planScript(this.#present, rules);
    if (script === "") return false;
    const before = this.#generation.read();
    try {
      await runNft(script, this.#nft);
    } catch (error) {
      // Somebody else may have changed our table: another look tells.
      await this.#read();
      const again = planScript(this.#present, rules);
      if (again === script) throw error;
      if (again !== "") await runNft(again, this.#nft);
    }
    this.#present = presentAfter(rules);
    // With a change of somebody else in between, nobody knows what it was.
    const after = this.#generation.read();
    this.#sureAt = before !== undefined && before === this.#sureAt && after === before + 1 ? after : undefined;
    return true;
  }

  async #applySettings(wanted: ReadonlyMap<string, number>): Promise<boolean> {
    if (this.options.netns === undefined) return await this.options.settings.set(wanted);
    return this.#run(() => setAll(wanted));
  }

  async #goBack(before: Wanted | "nothing" | undefined, error: Error): Promise<void> {
    if (before === undefined) return;
    try {
      if (before === "nothing") return await this.reset();
      await this.#applyRules(before.rules);
      applyRouting(this.#links, before.routing);
    } catch (second) {
      const message = `${error.message}; going back failed: ${(second as Error).message}`;
      throw new OperationError(message, 1, { cause: error });
    }
  }

  /** The other link into the mesh. */
  #meshLeg(make: boolean): Link | undefined {
    const bridge = this.#bridge === undefined ? undefined : this.#links.find(this.#bridge);
    if (bridge === undefined) return undefined;
    if (make) this.#madeLeg = ensureMeshLeg(this.#links, bridge);
    return this.#links.find(MESH_LEG);
  }

  #ownAddresses(plan: ServicePlan, links: readonly Link[]): Map<NetworkId, readonly Cidr[]> {
    const networks = [...plan.networks, { id: MESH, interfaces: this.#bridge === undefined ? [] : [this.#bridge] }];
    return new Map(networks.map(({ id, interfaces }) => {
      const present = interfaces.flatMap((name) => links.find((link) => link.name === name) ?? []);
      return [id, present.flatMap(({ index }) => this.#links.addresses(index))];
    }));
  }

  async #read(): Promise<void> {
    const before = this.#generation.read();
    const objects = await readNftTable(SERVICE_TABLE, this.#nft);
    this.#present = objects === undefined ? undefined : parsePresent(objects);
    this.#sureAt = this.#generation.read() === before ? before : undefined;
  }

  /** Does something synchronous in the namespace. */
  #run<T>(work: () => T): T {
    const { netns } = this.options;
    return netns === undefined ? work() : withNetns(netns.path, work);
  }
}

function isEmpty({ subnets, answered, listeners, networks, backends }: ServicePlan): boolean {
  return [subnets, answered, listeners, networks, backends].every(({ length }) => length === 0);
}

/** In the order in which they are to be set. */
function wantedSettings(
  plan: ServicePlan,
  { bridge, links, forwards }: {
    readonly bridge: string | undefined;
    readonly links: readonly string[];
    readonly forwards: boolean;
  },
): Map<string, number> {
  const answering = [
    ...(bridge === undefined ? [] : [bridge]),
    ...plan.networks.flatMap(({ interfaces }) => interfaces),
  ];
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
