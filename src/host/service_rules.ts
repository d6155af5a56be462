/**
 * A plan for services as rules: the whole table `ip weave-services` as it should be (`renderRules`), and what changes the one that is there
 * into it as one transaction (`planScript`). Pure. Nothing of it is made per connection; which listener a packet is for is one lookup in
 * a map, however many there are.
 *
 *     first packet of a flow, in prerouting (or output, from this host):
 *       new ─ by link ▶ from_N ─ address, protocol, port ▶ l_… ─ allowed? which? ▶ to_… ct mark, packet mark, dnat
 *                                                           └▶ refuse_N, and the filter chains refuse it
 *     every packet:      marks: ct mark, direction ▶ packet mark, by which it is routed (service_routes.ts)
 *     leaving, first:    source: into the mesh from our address of the subnet, elsewhere from the link's
 *
 * The ct mark lives as long as its flow and says all that later packets need: changing maps and chains does not touch flows. The first
 * rule of each chain has as its comment a fingerprint of the chain, so that we know our own work again without understanding how `nft`
 * prints it.
 */
import { type Cidr, cidrContains, formatCidr, formatIpv4 } from "../lib/ip.ts";
import { formatMac, type Mac } from "../lib/mac.ts";
import type {
  BackendPlan,
  HOST_NETWORK,
  ListenerPlan,
  NetworkId,
  ServicePlan,
  TargetPlan,
  WEAVE_NETWORK,
} from "../service/plan.ts";
import type { NftObject } from "./nft.ts";
import {
  BACKEND_MASK,
  BACKEND_NETWORK_MASK,
  CLIENT_NETWORK_MASK,
  CLIENT_NETWORK_SHIFT,
  flowMark,
  INJECTED,
  OURS,
  ROUTE_MASK,
  ROUTE_SHIFT,
  routeMark,
} from "./service_marks.ts";

export const SERVICE_TABLE = "weave-services";

/** As in the plan, whose types alone are to be known here. */
export const MESH: typeof WEAVE_NETWORK = 1;
export const HOST: typeof HOST_NETWORK = 2;
/** In a packet's mark: of no network. Greater than any. */
export const NOWHERE = 127;

/** What rules depend on besides the plan. */
export interface RuleFacts {
  /** Name of the overlay's bridge; undefined in the namespace of an isolated network. */
  readonly bridge: string | undefined;
  /** The other link into the mesh (`service_leg.ts`), where there is one. */
  readonly meshLeg?: { readonly name: string; readonly mac: Mac };
  /** Addresses that the links of networks have now, without those of services. */
  readonly ownAddresses: ReadonlyMap<NetworkId, readonly Cidr[]>;
  /** The host forwarded nothing before us: drop what is not ours. Names of bridges, whose frames may pass here, stay exempt. */
  readonly forwardOnlyOurs: false | { readonly bridges: readonly string[] };
}

/** The whole table. */
export interface Rules {
  readonly chains: ReadonlyMap<string, Chain>;
  readonly maps: ReadonlyMap<string, ElementMap>;
}

export interface Chain {
  /** `type … hook … priority …` of one that the kernel calls. */
  readonly hook?: string;
  /** One at least. */
  readonly rules: readonly string[];
}

export interface ElementMap {
  /** `KEY : VALUE`, with flags, as `add map` takes it. */
  readonly declaration: string;
  /** Key → value. */
  readonly elements: ReadonlyMap<string, string>;
}

export function renderRules(plan: ServicePlan, facts: RuleFacts): Rules {
  return new Renderer(plan, facts).render();
}

/** Of chains that the kernel calls: just before those of iptables, as what we are asked for names an address and a port. */
const PRIORITY = { afterMarks: -149, beforeDnat: -101, beforeFilter: -1, beforeSnat: 99 } as const;

const hex = (value: number) => `0x${(value >>> 0).toString(16).padStart(8, "0")}`;

const IS_OURS = `ct mark & ${hex(OURS)} != 0`;
const IS_NOT_OURS = `ct mark & ${hex(OURS)} == 0`;
const IS_REFUSED = `ct mark & ${hex(OURS | BACKEND_MASK)} == ${hex(OURS)}`;
const ROUTE_TO_BACKEND = `meta mark set ct mark & ${hex(BACKEND_NETWORK_MASK)}`;
const ROUTE_TO_CLIENT = `meta mark set (ct mark & ${hex(CLIENT_NETWORK_MASK)}) << ${
  ROUTE_SHIFT - CLIENT_NETWORK_SHIFT
}`;

class Renderer {
  readonly #chains = new Map<string, Chain>();
  readonly #maps = new Map<string, { declaration: string; elements: Map<string, string> }>();
  readonly #backends: ReadonlyMap<number, BackendPlan>;
  /** Addresses in the mesh that this host has for services alone. */
  readonly #gateways: readonly string[];

  constructor(readonly plan: ServicePlan, readonly facts: RuleFacts) {
    this.#backends = new Map(plan.backends.map((backend) => [backend.id, backend]));
    const ours = plan.subnets.filter(({ exposed }) => exposed !== true);
    this.#gateways = [...new Set(ours.map(({ address }) => formatIpv4(address)))].sort();
  }

  render(): Rules {
    this.#tracking();
    this.#marking();
    this.#beginnings();
    this.#sources();
    this.#refusing();
    this.#segmentSize();
    return { chains: this.#chains, maps: this.#maps };
  }

  /** Names of the links by which a named network is reached. */
  get #links(): readonly (readonly [NetworkId, readonly string[]])[] {
    return this.plan.networks.map(({ id, interfaces }) => [id, interfaces] as const);
  }

  get #meshLinks(): string[] {
    return [this.facts.bridge, this.facts.meshLeg?.name].filter((name) => name !== undefined);
  }

  #tracking(): void {
    const zones = this.#links.filter(([, names]) => names.length > 0).map(([id, names]) =>
      // Of the original direction only: answers come back to an address of ours, and are found without.
      `iifname ${anyOf(names.map(quoted))} ct original zone set ${id}`
    );
    this.#chain("tracking", "type filter hook prerouting priority raw", [
      'ip daddr 127.0.0.0/8 iifname != "lo" drop',
      'ip saddr 127.0.0.0/8 iifname != "lo" drop',
      ...this.#onBridge(),
      ...zones,
    ]);
    this.#chain("tracking_local", "type filter hook output priority raw", [
      `meta mark & ${hex(~ROUTE_MASK)} == ${hex(INJECTED)} notrack`,
    ]);
  }

  /** Frames between the other link and the bridge's ports: they are packets of ours on the link, and frames like others on the bridge. */
  #onBridge(): string[] {
    const { bridge, meshLeg } = this.facts;
    if (bridge === undefined || meshLeg === undefined) return [];
    const onBridge = `iifname ${quoted(bridge)} notrack`;
    return [
      // With the mark that it had when it left.
      `meta mark & ${hex(ROUTE_MASK)} == ${hex(routeMark(MESH))} ${onBridge}`,
      `ether daddr ${formatMac(meshLeg.mac)} ${onBridge}`,
    ];
  }

  #marking(): void {
    const rules = [
      `${IS_NOT_OURS} accept`,
      `ct direction original ${ROUTE_TO_BACKEND} accept`,
      ROUTE_TO_CLIENT,
    ];
    this.#chain("marks", "type filter hook prerouting priority mangle", rules);
    this.#chain("marks_local", "type filter hook output priority mangle", rules);
    // What the kernel says about a flow (ICMP errors, resets) goes back to where the packet in question came from. Redirects would tell
    // clients of the backend's address.
    this.#chain("marks_related", "type route hook output priority mangle", [
      `${IS_NOT_OURS} accept`,
      "icmp type redirect drop",
      `ct state != related accept`,
      `ct direction original ${ROUTE_TO_BACKEND} accept`,
      ROUTE_TO_CLIENT,
    ]);
  }

  /** Chains for first packets: by link, by listener, by target. */
  #beginnings(): void {
    const links: [string, NetworkId][] = this.#links.flatMap(([id, names]) =>
      names.map((name): [string, NetworkId] => [name, id])
    );
    links.unshift(...this.#meshLinks.map((name): [string, NetworkId] => [name, MESH]));
    const byLink = links.map(([name, id]) => `${quoted(name)} : goto from_${id}`);
    this.#chain("new", `type nat hook prerouting priority ${PRIORITY.beforeDnat}`, [
      ...(byLink.length === 0 ? [] : [`iifname vmap { ${byLink.join(", ")} }`]),
      `goto from_${HOST}`,
    ]);
    // A socket with a route in its mark is ours, and means the backend itself.
    this.#chain("new_local", `type nat hook output priority ${PRIORITY.beforeDnat}`, [
      `meta mark & ${hex(ROUTE_MASK)} == 0 goto from_local`,
    ]);

    const of = (network: NetworkId) => this.plan.listeners.filter((listener) => listener.network === network);
    const isOwn = ({ address }: ListenerPlan) => address === "own";
    const host = of(HOST);
    for (const [id] of this.#links) {
      this.#view({ name: String(id), client: id, listeners: of(id), own: this.#ofLinks(id) });
    }
    this.#view({ name: String(HOST), client: HOST, listeners: host, own: this.#ofHost });
    if (this.facts.bridge !== undefined) {
      // Who reaches the host by the mesh finds there what the host has, as with any other service on it.
      const fallback = { listeners: host.filter(isOwn), own: this.#ofHost };
      const listeners = [...of(MESH), ...host.filter((listener) => !isOwn(listener))];
      this.#view({ name: String(MESH), client: MESH, listeners, own: this.#ofLinks(MESH), fallback });
    }
    const named = this.#links.flatMap(([id]) =>
      of(id).flatMap((listener) =>
        isOwn(listener)
          ? (this.facts.ownAddresses.get(id) ?? []).map(({ address }) => ({ ...listener, address }))
          : [listener]
      )
    );
    const local = [...host, ...of(MESH).filter((listener) => !isOwn(listener)), ...named];
    this.#view({ name: "local", client: HOST, listeners: local, own: this.#ofHost });
  }

  /** Not by `fib`, which finds one of two links that have the same address. */
  #ofLinks(network: NetworkId): string | undefined {
    const addresses = this.facts.ownAddresses.get(network) ?? [];
    return addresses.length === 0
      ? undefined
      : `ip daddr ${anyOf(addresses.map(({ address }) => formatIpv4(address)))}`;
  }

  /** Our own addresses in the mesh are for what comes back, and nobody is to call them. */
  get #ofHost(): string {
    return `${this.#gateways.length === 0 ? "" : `ip daddr != ${anyOf(this.#gateways)} `}fib daddr type local`;
  }

  /** What a client of one kind finds: of listeners that overlap the earlier counts. */
  #view(view: {
    readonly name: string;
    readonly client: NetworkId;
    readonly listeners: readonly ListenerPlan[];
    /** Which addresses "own" means; undefined: there are none. */
    readonly own: string | undefined;
    readonly fallback?: { readonly listeners: readonly ListenerPlan[]; readonly own: string };
  }): void {
    const rules: string[] = [];
    const lookup = (kind: string, listeners: readonly ListenerPlan[], condition?: string) => {
      const byAddress = condition === undefined;
      const map = `${kind}_${view.name}`;
      const elements = this.#elements(listeners, view.client);
      const key = byAddress ? "ipv4_addr . inet_proto . inet_service" : "inet_proto . inet_service";
      this.#maps.set(map, { declaration: `type ${key} : verdict; flags interval`, elements });
      rules.push(
        byAddress
          ? `ip daddr . meta l4proto . th dport vmap @${map}`
          : `${condition} meta l4proto . th dport vmap @${map}`,
      );
    };
    lookup("at", view.listeners.filter(({ address }) => address !== "own"));
    if (view.own !== undefined) lookup("own", view.listeners.filter(({ address }) => address === "own"), view.own);
    if (view.fallback !== undefined) lookup("host", view.fallback.listeners, view.fallback.own);
    this.#chain(`from_${view.name}`, undefined, [
      ...rules,
      ...view.name === "local" ? this.#unclaimedHere() : this.#unclaimed(view.client),
    ]);
  }

  /**
   * What is for an address that we answer for and that nobody takes is refused; but for TCP at an address that we have, as the kernel
   * sends no ICMP from one that it has not.
   */
  #unclaimed(network: NetworkId): string[] {
    const addresses = this.plan.answered.filter((answered) => answered.network === network).map(({ address }) =>
      address
    );
    const own = network === MESH
      ? this.plan.subnets.map(({ subnet, address }) => ({ address, prefixLength: subnet.prefixLength }))
      : this.facts.ownAddresses.get(network) ?? [];
    if (addresses.length === 0 || own.length === 0) return [];
    const elements = new Map<string, string>();
    for (const address of addresses) {
      const to = formatIpv4((own.find((cidr) => cidrContains(cidr, address)) ?? own[0]!).address);
      const name = `unclaimed_${network}_${to}`;
      elements.set(formatIpv4(address), `goto ${name}`);
      if (this.#chains.has(name)) continue;
      this.#chain(name, undefined, [
        `meta l4proto != icmp ct mark set ${hex(flowMark({ client: network }))}`,
        `meta l4proto != tcp dnat to ${to}`,
      ]);
    }
    this.#maps.set(`answered_${network}`, { declaration: "type ipv4_addr : verdict", elements });
    return [`ip daddr vmap @answered_${network}`];
  }

  /** As `#unclaimed()`, for programs on this host, where it is by the mesh that they mean such an address. */
  #unclaimedHere(): string[] {
    const addresses = this.plan.answered.filter(({ network }) => network === MESH).map(({ address }) => address);
    if (this.facts.bridge === undefined || addresses.length === 0) return [];
    const refused = `goto ${this.#refuse(HOST)}`;
    const elements = new Map(addresses.map((address) => [formatIpv4(address), refused]));
    this.#maps.set("answered_local", { declaration: "type ipv4_addr : verdict", elements });
    return [`oifname ${anyOf(this.#meshLinks.map(quoted))} meta l4proto != icmp ip daddr vmap @answered_local`];
  }

  #elements(listeners: readonly ListenerPlan[], client: NetworkId): Map<string, string> {
    const elements = new Map<string, string>();
    const taken = new Map<string, PortRanges>();
    for (const listener of listeners) {
      const { address, protocol, firstPort, lastPort } = listener;
      const where = address === "own" ? protocol : `${formatIpv4(address)} . ${protocol}`;
      const ports = taken.get(where) ?? new PortRanges();
      taken.set(where, ports);
      for (const [first, last] of ports.add(firstPort, lastPort)) {
        const key = `${where} . ${first === last ? first : `${first}-${last}`}`;
        elements.set(key, `goto ${this.#listener(listener, client)}`);
      }
    }
    return elements;
  }

  /** @returns name of the chain that decides */
  #listener(listener: ListenerPlan, client: NetworkId): string {
    const { network, address, protocol, firstPort, allow, targets } = listener;
    const chosen = targets.filter(({ backend }) => this.#backends.has(backend));
    if (chosen.length === 0) return this.#refuse(client);
    const to = chosen.map((target) => this.#target(listener, target, client));
    if (allow === undefined && to.length === 1) return to[0]!;
    const where = address === "own" ? "own" : formatIpv4(address);
    const name = `l_${client}_${network}_${where}_${protocol}_${firstPort}`;
    this.#chain(name, undefined, [
      ...(allow === undefined
        ? []
        : allow.length === 0
        ? [`goto ${this.#refuse(client)}`]
        : [`ip saddr != ${anyOf(disjoint(allow))} goto ${this.#refuse(client)}`]),
      byWeight(chosen.map(({ weight }, i) => [weight, `goto ${to[i]!}`])),
    ]);
    return name;
  }

  /** @returns name of the chain that translates */
  #target(listener: ListenerPlan, target: TargetPlan, client: NetworkId): string {
    const { protocol, firstPort, lastPort } = listener;
    const backend = this.#backends.get(target.backend)!;
    const name = `to_${client}_${backend.id}_${protocol}_${firstPort}-${lastPort}_${target.firstPort}`;
    if (this.#chains.has(name)) return name;
    const mark = flowMark({ client, backend });
    const to = `dnat to ${formatIpv4(backend.address)}${this.#port(listener, target)}`;
    this.#chain(name, undefined, [
      // From the middle of a flow that is over, or was somebody else's.
      ...(protocol === "tcp" ? [`tcp flags & (fin|syn|rst|ack) != syn goto ${this.#refuse(client)}`] : []),
      `meta l4proto ${protocol} ct mark set ${hex(mark)} meta mark set ${hex(routeMark(backend.network))} ${to}`,
    ]);
    return name;
  }

  #port({ firstPort, lastPort }: ListenerPlan, target: TargetPlan): string {
    if (firstPort === target.firstPort) return "";
    if (firstPort === lastPort) return `:${target.firstPort}`;
    const map = `shift_${firstPort}-${lastPort}_${target.firstPort}`;
    if (!this.#maps.has(map)) {
      const elements = new Map<string, string>();
      for (let port = firstPort; port <= lastPort; port++) {
        elements.set(String(port), String(port - firstPort + target.firstPort));
      }
      this.#maps.set(map, { declaration: "type inet_service : inet_service", elements });
    }
    return ` : th dport map @${map}`;
  }

  #refuse(client: NetworkId): string {
    const name = `refuse_${client}`;
    if (this.#chains.has(name)) return name;
    this.#chain(name, undefined, [`ct mark set ${hex(flowMark({ client }))}`, ...this.#unclaimed(client)]);
    return name;
  }

  #sources(): void {
    const ours = this.plan.subnets.map(({ subnet, address }) => `${subnetText(subnet)} : ${formatIpv4(address)}`)
      .sort();
    const mesh = `ct mark & ${hex(BACKEND_NETWORK_MASK | OURS)} == ${hex(routeMark(MESH) | OURS)}`;
    this.#chain("sources", `type nat hook postrouting priority ${PRIORITY.beforeSnat}`, [
      ...(ours.length === 0 ? [] : [`${mesh} snat to ip daddr map { ${ours.join(", ")} } fully-random`]),
      `${IS_OURS} masquerade fully-random`,
    ]);
    // A backend on this host answers itself, so that the answer passes the rules, whatever route its client has.
    this.#chain("sources_local", `type nat hook input priority ${PRIORITY.beforeSnat}`, [
      `${IS_OURS} snat to ip daddr fully-random`,
    ]);
  }

  #refusing(): void {
    const revoked = this.plan.backends.filter((backend) => backend.revoked).map(({ id }) => id).sort((a, b) => a - b);
    const isRevoked = `${IS_OURS} ct mark & ${hex(BACKEND_MASK)} ${anyOf(revoked.map(hex))}`;
    // "Related" is also what we refuse with.
    const refusing = (which = "") =>
      revoked.length === 0 ? [`${which}ct state established,related accept`, `${IS_REFUSED} goto refusal_to_client`] : [
        `${which}ct state related accept`,
        `${isRevoked} goto refusal`,
        `${which}ct state established accept`,
        `${IS_REFUSED} goto refusal_to_client`,
      ];
    const reject = ["meta l4proto tcp reject with tcp reset", "reject with icmp port-unreachable"];
    // An ICMP error has the mark of what it is about, and is routed again only where that becomes another.
    const rejectOurs = [reject[0]!, `meta mark set ${hex(routeMark(NOWHERE))}`, reject[1]!];
    this.#chain("refusal_to_client", undefined, [ROUTE_TO_CLIENT, ...rejectOurs]);
    this.#chain("refusal", undefined, [
      "ct direction original goto refusal_to_client",
      ROUTE_TO_BACKEND,
      ...rejectOurs,
    ]);
    if (revoked.length > 0) {
      // Before translation: where br_netfilter is on, the kernel does not translate resets to who is on a bridge.
      const rules = ["ct state related accept", `meta l4proto tcp ${isRevoked} goto refusal`];
      this.#chain("revoked", `type filter hook prerouting priority ${PRIORITY.afterMarks}`, rules);
      this.#chain("revoked_local", `type filter hook output priority ${PRIORITY.afterMarks}`, rules);
    }
    const asked = this.facts.bridge === undefined || this.#gateways.length === 0
      ? []
      : [`iifname ${anyOf(this.#meshLinks.map(quoted))} ${IS_NOT_OURS} ip daddr ${anyOf(this.#gateways)} goto asked`];
    this.#chain("asked", undefined, [
      `meta mark set ${hex(routeMark(MESH))}`,
      "ct state established,related accept",
      "meta l4proto icmp accept",
      ...reject,
    ]);
    const others = this.#gateways.length === 0
      ? []
      : [`iifname != "lo" ${IS_NOT_OURS} ct state new ip daddr ${anyOf(this.#gateways)} drop`];
    this.#chain("input", `type filter hook input priority ${PRIORITY.beforeFilter}`, [
      ...asked,
      ...refusing(),
      ...others,
    ]);
    this.#chain("output", `type filter hook output priority ${PRIORITY.beforeFilter}`, refusing());
    this.#chain("forward", `type filter hook forward priority ${PRIORITY.beforeFilter}`, [
      ...refusing(this.facts.forwardOnlyOurs === false ? "" : `${IS_OURS} `),
      ...this.#forwardOnlyOurs(),
    ]);
  }

  #forwardOnlyOurs(): string[] {
    const { forwardOnlyOurs } = this.facts;
    if (forwardOnlyOurs === false) return [];
    const bridged = [...forwardOnlyOurs.bridges].sort().map((name) => `${quoted(name)} . ${quoted(name)}`);
    return [
      ...(bridged.length === 0 ? [] : [`iifname . oifname { ${bridged.join(", ")} } accept`]),
      `${IS_NOT_OURS} drop`,
    ];
  }

  #segmentSize(): void {
    this.#chain("segments", "type filter hook postrouting priority mangle", [
      `tcp flags syn ${IS_OURS} tcp option maxseg size set rt mtu`,
    ]);
  }

  #chain(name: string, hook: string | undefined, rules: readonly string[]): void {
    this.#chains.set(name, { ...(hook === undefined ? {} : { hook }), rules });
  }
}

type PortRange = readonly [first: number, last: number];

/** Ports that are taken. */
class PortRanges {
  /** In order, apart from each other. */
  readonly #ranges: PortRange[] = [];

  /** Takes them. @returns those that were free */
  add(first: number, last: number): PortRange[] {
    const free: PortRange[] = [];
    let at = this.#indexOf(first);
    let next = first;
    while (next <= last) {
      const range = this.#ranges[at];
      const end = range === undefined ? last : Math.min(last, range[0] - 1);
      if (next <= end) {
        free.push([next, end]);
        this.#ranges.splice(at++, 0, [next, end]);
      }
      if (range === undefined) break;
      next = range[1] + 1;
      at++;
    }
    return free;
  }

  /** Of the first range that does not end before `port`. */
  #indexOf(port: number): number {
    let low = 0, high = this.#ranges.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#ranges[middle]![1] < port) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}

function byWeight(choices: readonly (readonly [weight: number, verdict: string])[]): string {
  if (choices.length === 1) return choices[0]![1];
  let sum = 0;
  const parts = choices.map(([weight, verdict]) => {
    const first = sum;
    sum += weight;
    return `${weight === 1 ? first : `${first}-${sum - 1}`} : ${verdict}`;
  });
  return `numgen random mod ${sum} vmap { ${parts.join(", ")} }`;
}

function anyOf(values: readonly (string | number)[]): string {
  return values.length === 1 ? String(values[0]) : `{ ${values.join(", ")} }`;
}

/** Without those that others contain: an anonymous set has no overlaps. */
function disjoint(cidrs: readonly Cidr[]): string[] {
  const sorted = [...cidrs].sort((a, b) => a.prefixLength - b.prefixLength);
  const kept: Cidr[] = [];
  for (const cidr of sorted) {
    const shift = (outer: Cidr) => outer.prefixLength === 0 ? 0 : (0xffffffff << (32 - outer.prefixLength)) >>> 0;
    if (!kept.some((outer) => ((outer.address ^ cidr.address) & shift(outer)) === 0)) kept.push(cidr);
  }
  return kept.map(subnetText).sort();
}

function subnetText({ address, prefixLength }: Cidr): string {
  const mask = prefixLength === 0 ? 0 : (0xffffffff << (32 - prefixLength)) >>> 0;
  return formatCidr({ address: (address & mask) >>> 0, prefixLength });
}

/** Interface names have no quote in them, or the name is not one. */
function quoted(name: string): string {
  if (/["\\\s/]/.test(name)) throw new RangeError(`Not the name of an interface: ${name}`);
  return `"${name}"`;
}

/* What is there, and what changes it. */

/** A table as the kernel has it, as far as we know our work again. */
export interface PresentRules {
  readonly chains: ReadonlyMap<string, PresentChain>;
  /** Name → key → value. */
  readonly maps: ReadonlyMap<string, ReadonlyMap<string, string>>;
}

interface PresentChain {
  /** undefined where it is not as we made it. */
  readonly fingerprint: string | undefined;
}

export function presentAfter(rules: Rules): PresentRules {
  return {
    chains: new Map([...rules.chains].map(([name, chain]) => [name, { fingerprint: fingerprint(chain) }])),
    maps: new Map([...rules.maps].map(([name, map]) => [name, map.elements])),
  };
}

/** Reads what `nft -j list table` says. */
export function parsePresent(objects: readonly NftObject[]): PresentRules {
  const maps = new Map<string, Map<string, string>>();
  const comments = new Map<string, string[]>();
  for (const { chain, rule, map } of objects) {
    if (chain !== undefined) comments.set(String(chain.name), comments.get(String(chain.name)) ?? []);
    if (rule !== undefined) {
      const name = String(rule.chain);
      const list = comments.get(name) ?? [];
      list.push(typeof rule.comment === "string" ? rule.comment : "");
      comments.set(name, list);
    }
    if (map !== undefined) {
      const elements = Array.isArray(map.elem) ? map.elem as unknown[][] : [];
      maps.set(String(map.name), new Map(elements.map(([key, value]) => [textOf(key), textOf(value)])));
    }
  }
  const chains = new Map<string, PresentChain>();
  for (const [name, [first = "", ...others]] of comments) {
    const [print, count] = first.split("/");
    chains.set(name, { fingerprint: Number(count) === others.length + 1 ? `${print}/${count}` : undefined });
  }
  return { chains, maps };
}

/** Of a part of an element, as it is written in a script. */
function textOf(value: unknown): string {
  if (typeof value !== "object" || value === null) return value === 6 ? "tcp" : value === 17 ? "udp" : String(value);
  const { concat, range, goto } = value as { concat?: unknown[]; range?: unknown[]; goto?: { target?: unknown } };
  if (concat !== undefined) {
    return concat.map((part, i) => typeof part === "number" && i === concat.length - 1 ? String(part) : textOf(part))
      .join(" . ");
  }
  if (range !== undefined) return range.map(String).join("-");
  if (goto !== undefined) return `goto ${goto.target}`;
  return JSON.stringify(value);
}

/**
 * The transaction that makes `present` (undefined: no table) into `wanted`; empty where nothing is to be done. What differs is changed,
 * and nothing else.
 */
export function planScript(present: PresentRules | undefined, wanted: Rules): string {
  const table = `ip ${SERVICE_TABLE}`;
  const declared: string[] = [];
  const filled: string[] = [];
  const removed: string[] = [];
  const added: string[] = [];
  const dropped: string[] = [];
  if (present === undefined) declared.push(`add table ${table}`);

  for (const [name, { declaration, elements }] of wanted.maps) {
    const there = present?.maps.get(name);
    if (there === undefined) declared.push(`add map ${table} ${name} { ${declaration}; }`);
    const gone = [...there ?? []].filter(([key, value]) => elements.get(key) !== value);
    const fresh = [...elements].filter(([key, value]) => there?.get(key) !== value);
    removed.push(...elementLines(`delete element ${table} ${name}`, gone));
    added.push(...elementLines(`add element ${table} ${name}`, fresh));
  }
  for (const [name, chain] of wanted.chains) {
    const there = present?.chains.get(name);
    const print = fingerprint(chain);
    if (there?.fingerprint === print) continue;
    declared.push(`add chain ${table} ${name}${chain.hook === undefined ? "" : ` { ${chain.hook}; policy accept; }`}`);
    if (there !== undefined) declared.push(`flush chain ${table} ${name}`);
    chain.rules.forEach((rule, i) =>
      filled.push(`add rule ${table} ${name} ${rule}${i === 0 ? ` comment "${print}"` : ""}`)
    );
  }
  const stale = [...present?.chains.keys() ?? []].filter((name) => !wanted.chains.has(name));
  // Elements of maps hold chains, and rules hold maps.
  for (const name of stale) dropped.push(`flush chain ${table} ${name}`);
  for (const name of present?.maps.keys() ?? []) {
    if (!wanted.maps.has(name)) dropped.push(`delete map ${table} ${name}`);
  }
  for (const name of stale) dropped.push(`delete chain ${table} ${name}`);

  const lines = [...declared, ...filled, ...removed, ...added, ...dropped];
  return lines.length === 0 ? "" : `${lines.join("\n")}\n`;
}

/** Elements to a line, so that a mistake in one can be shown. */
const ELEMENTS_PER_LINE = 50;

function elementLines(command: string, elements: readonly (readonly [string, string])[]): string[] {
  const lines: string[] = [];
  for (let i = 0; i < elements.length; i += ELEMENTS_PER_LINE) {
    const part = elements.slice(i, i + ELEMENTS_PER_LINE).map(([key, value]) => `${key} : ${value}`);
    lines.push(`${command} { ${part.join(", ")} }`);
  }
  return lines;
}

const fingerprints = new WeakMap<Chain, string>();

function fingerprint(chain: Chain): string {
  const known = fingerprints.get(chain) ?? computeFingerprint(chain);
  fingerprints.set(chain, known);
  return known;
}

/** Two hashes of 32 bits (FNV-1a, and the same from another start) over all of a chain, and the number of its rules. */
function computeFingerprint({ hook = "", rules }: Chain): string {
  const text = [hook, ...rules].join("\n");
  const hash = (start: number) => {
    let value = start;
    for (let i = 0; i < text.length; i++) value = Math.imul(value ^ text.charCodeAt(i), 0x01000193);
    return (value >>> 0).toString(16).padStart(8, "0");
  };
  return `${hash(0x811c9dc5)}${hash(0x2545f491)}/${rules.length}`;
}

/** What takes the table away; for a table that is there. */
export const REMOVE_TABLE = `delete table ip ${SERVICE_TABLE}\n`;
