/**
 * A plan for services as addresses, routes and rules that choose tables: what they should be, and the difference to what is there. A packet
 * of ours is routed by the network in its mark, by that network's own table; the tables of the host stay as they are.
 *
 *     priority  rule                                    table
 *            0  (the kernel's)                          local
 *         6782  iif lo, ICMP, fwmark NETWORK            anywhere: what is said about a packet of ours has at first the mark of that packet,
 *                                                       which is where it went; rules give it another, by which it is routed again
 *         6783  iif LINK, fwmark 0                      addresses that we answer for on this link, as if they were our own
 *         6784  fwmark NETWORK                          routes of that network, and nothing else is reachable there
 *         6785  iif BRIDGE, fwmark 0                    nothing: where the host forwarded nothing before us
 *         6786  iif lo, fwmark 0                        virtual addresses, for programs on this host
 *        32766  (the kernel's)                          main
 *        32801… iif lo, TCP or UDP or ICMP              unreachable, as before
 *        32804  iif lo                                  the mesh: the kernel wants a route for a reset before its rules mark it
 *
 * ARP is answered for whatever is local to who comes in by a link (arp_process of the kernel), so no link has these addresses, and nobody
 * else on this host sees them. In each subnet we have one address of our own (`SERVICE_LABEL_SUFFIX`), without the route.
 */
import { OperationError } from "../lib/errors.ts";
import { type Cidr, cidrContains, formatCidr, type Ipv4 } from "../lib/ip.ts";
import type { AnsweredAddress, NetworkId, ServicePlan } from "../service/plan.ts";
import type { Link, LinkAddress, PolicyRule, Route } from "../wire/rtnetlink.ts";
import { isServiceAddress, type Links, SERVICE_LABEL_SUFFIX } from "./links.ts";
import { ROUTE_MASK, routeMark } from "./service_marks.ts";
import { HOST, MESH, NOWHERE } from "./service_rules.ts";

const ERROR_PRIORITY = 6782;
const ANSWERED_PRIORITY = 6783;
const NETWORK_PRIORITY = 6784;
const CLOSED_PRIORITY = 6785;
const NETWORK_TABLE = 6_783_000;
const ANSWERED_TABLE = 6_783_100;
const LOCAL_PRIORITY = 6786;
const UNREACHABLE_PRIORITY = 32801;
const LAST_PRIORITY = 32804;
const ANYWHERE_TABLE = 6_783_197;
const LOCAL_TABLE = 6_783_198;
const CLOSED_TABLE = 6_783_199;
/** More than networks; no table of ours is outside. */
const TABLES = 200;
const IPPROTO = { icmp: 1, tcp: 6, udp: 17 } as const;
/** Behind every other route. */
const LAST = 0xffff_ffff;
/** Not translated: in another network the same address may be somebody's. */
const UNMARKED = { value: 0, mask: ROUTE_MASK } as const;
const EVERYWHERE: Cidr = { address: 0, prefixLength: 0 };

export interface Routing {
  readonly rules: readonly PolicyRule[];
  readonly routes: readonly Route[];
  /** Addresses of services. */
  readonly addresses: readonly LinkAddress[];
}

/** What is there now, as far as a plan depends on it. */
export interface RoutingFacts {
  /** Name of the overlay's bridge; undefined where there is none. */
  readonly bridge: string | undefined;
  readonly links: readonly Link[];
  /** Of the main table. */
  readonly routes: readonly Route[];
  /** The other link into the mesh (`service_leg.ts`), where there is one. */
  readonly meshLeg?: string;
  /** What comes from the mesh and is not ours is not passed on. */
  readonly forwardOnlyOurs: boolean;
}

/** Pure. Links that are not there are passed over. */
export function planRouting(plan: ServicePlan, facts: RoutingFacts): Routing {
  const rules: PolicyRule[] = [];
  const routes: Route[] = [];
  const byName = new Map(facts.links.map((link) => [link.name, link]));
  const present = (names: readonly string[]) =>
    names.map((name) => byName.get(name)).filter((link) => link !== undefined);
  const bridge = facts.bridge === undefined ? undefined : byName.get(facts.bridge);
  const leg = byName.get(facts.meshLeg ?? facts.bridge ?? "");
  const networks: [NetworkId, readonly Link[]][] = [
    ...(bridge === undefined ? [] : [[MESH, [bridge]] as [NetworkId, readonly Link[]]]),
    ...plan.networks.map(({ id, interfaces }): [NetworkId, readonly Link[]] => [id, present(interfaces)]),
  ];
  for (const [id, links] of networks) {
    const table = NETWORK_TABLE + id;
    rules.push({ priority: NETWORK_PRIORITY, table, mark: { value: routeMark(id), mask: ROUTE_MASK } });
    routes.push(
      ...(id === MESH ? meshRoutes(plan, leg) : copiedRoutes(facts.routes, links))
        .map((route) => ({ ...route, table })),
    );
    routes.push({ destination: EVERYWHERE, type: "unreachable", metric: LAST, table });

    const answered = addressesOf(plan.answered, id);
    const first = links[0];
    if (answered.length === 0 || first === undefined) continue;
    const localTable = ANSWERED_TABLE + id;
    for (const { name } of links) {
      rules.push({ priority: ANSWERED_PRIORITY, table: localTable, inputInterface: name, mark: UNMARKED });
    }
    for (const address of answered) {
      routes.push({ destination: { address, prefixLength: 32 }, type: "local", link: first.index, table: localTable });
    }
  }
  if (bridge === undefined || leg === undefined) return { rules, routes, addresses: [] };
  const virtual = localRoutes(plan, facts, leg);
  if (virtual.length > 0) {
    rules.push({ priority: LOCAL_PRIORITY, table: LOCAL_TABLE, inputInterface: "lo", mark: UNMARKED });
    routes.push(...virtual.map((route) => ({ ...route, table: LOCAL_TABLE })));
  }
  for (const id of [HOST, ...networks.map(([id]) => id), NOWHERE]) {
    const mark = { value: routeMark(id), mask: ROUTE_MASK };
    rules.push({
      priority: ERROR_PRIORITY,
      table: ANYWHERE_TABLE,
      inputInterface: "lo",
      mark,
      ipProtocol: IPPROTO.icmp,
    });
  }
  routes.push({ destination: EVERYWHERE, link: leg.index, table: ANYWHERE_TABLE });
  for (const [i, ipProtocol] of Object.values(IPPROTO).entries()) {
    rules.push({ priority: UNREACHABLE_PRIORITY + i, table: "unreachable", inputInterface: "lo", ipProtocol });
  }
  rules.push({ priority: LAST_PRIORITY, table: NETWORK_TABLE + MESH, inputInterface: "lo" });
  if (facts.forwardOnlyOurs) {
    // What goes from the bridge to the bridge cannot be told from bridged frames by the rules that drop the rest.
    rules.push({ priority: CLOSED_PRIORITY, table: CLOSED_TABLE, inputInterface: bridge.name, mark: UNMARKED });
    routes.push({ destination: EVERYWHERE, type: "blackhole", table: CLOSED_TABLE });
  }
  return { rules, routes, addresses: gatewayAddresses(plan, leg, bridge) };
}

/** To virtual addresses, but for those that the host reaches elsewhere: it goes on doing so. */
function localRoutes(plan: ServicePlan, facts: RoutingFacts, leg: Link): Route[] {
  const mesh = new Set(
    facts.links.filter(({ name }) => name === facts.bridge || name === leg.name).map(({ index }) => index),
  );
  const elsewhere = facts.routes.filter(({ destination, link }) =>
    destination.prefixLength > 0 && link !== undefined && !mesh.has(link)
  );
  return [...new Set([...addressesOf(plan.answered, MESH), ...plan.reached ?? []])].flatMap((address) => {
    if (elsewhere.some(({ destination }) => cidrContains(destination, address))) return [];
    const source = plan.subnets.find(({ subnet }) => cidrContains(subnet, address))?.address;
    return source === undefined ? [] : [{ destination: { address, prefixLength: 32 }, source, link: leg.index }];
  });
}

function gatewayAddresses(plan: ServicePlan, { index, name }: Link, bridge: Link): LinkAddress[] {
  // An exposed address is on the bridge already; the other link has it too, as it asks for others from an address of their subnet.
  const missing = plan.subnets.filter(({ exposed }) => exposed !== true || index !== bridge.index);
  return missing.map(({ subnet, address }) => ({
    link: index,
    cidr: { address, prefixLength: subnet.prefixLength },
    label: `${name}${SERVICE_LABEL_SUFFIX}`,
    noPrefixRoute: true,
  }));
}

function meshRoutes(plan: ServicePlan, link: Link | undefined): Route[] {
  if (link === undefined) return [];
  return plan.subnets.map(({ subnet, address }) => ({
    destination: network(subnet),
    link: link.index,
    source: address,
  }));
}

/** Every route that leaves by one of these links; those without gateway first, as gateways must be reachable. */
function copiedRoutes(routes: readonly Route[], links: readonly Link[]): Route[] {
  const indexes = new Set(links.map(({ index }) => index));
  const ours = routes.filter(({ link }) => link !== undefined && indexes.has(link));
  return [
    ...ours.filter(({ gateway }) => gateway === undefined),
    ...ours.filter(({ gateway }) => gateway !== undefined),
  ];
}

function addressesOf(answered: readonly AnsweredAddress[], id: NetworkId): Ipv4[] {
  return [...new Set(answered.filter(({ network }) => network === id).map(({ address }) => address))];
}

function network({ address, prefixLength }: Cidr): Cidr {
  return { address: prefixLength === 0 ? 0 : (address & (0xffffffff << (32 - prefixLength))) >>> 0, prefixLength };
}

/** What of ours is there. */
export function presentRouting(links: Links): Routing {
  return {
    rules: links.rules().filter(({ table, priority }) =>
      table === "unreachable" ? priority >= UNREACHABLE_PRIORITY && priority < LAST_PRIORITY : isServiceTable(table)
    ),
    routes: links.allRoutes().filter(({ table }) => isServiceTable(table)),
    addresses: links.linkAddresses().filter(isServiceAddress),
  };
}

export const NO_ROUTING: Routing = { rules: [], routes: [], addresses: [] };

/** Makes what is there into what is wanted, changing only what differs; new things first. @returns whether anything differed */
export function applyRouting(links: Links, wanted: Routing): boolean {
  const before = presentRouting(links);
  const addresses = difference(before.addresses, wanted.addresses, addressKey);
  for (const address of addresses.missing) addServiceAddress(links, address);
  for (const { link, cidr } of addresses.surplus) links.removeAddresses(link, [cidr]);
  // With an address the kernel takes away the routes that have it as their source.
  const present = addresses.surplus.length === 0 ? before : presentRouting(links);
  const routes = difference(present.routes, wanted.routes, routeKey);
  const rules = difference(present.rules, wanted.rules, ruleKey);
  for (const route of routes.missing) replaceRoute(links, route, routes.surplus);
  for (const rule of rules.missing) links.addRule(rule);
  for (const rule of rules.surplus) links.removeRule(rule);
  for (const route of routes.surplus) links.removeRoute(route);
  return [routes, rules, addresses].some(({ missing, surplus }) => missing.length + surplus.length > 0);
}

export function sameRouting(a: Routing, b: Routing): boolean {
  const same = <T>(x: readonly T[], y: readonly T[], key: (item: T) => string) => {
    const { missing, surplus } = difference(x, y, key);
    return missing.length + surplus.length === 0;
  };
  return same(a.routes, b.routes, routeKey) && same(a.rules, b.rules, ruleKey) &&
    same(a.addresses, b.addresses, addressKey);
}

/** A route of the same destination and metric that differs otherwise stands in the way. */
function replaceRoute(links: Links, route: Route, surplus: Route[]): void {
  const at = surplus.findIndex((old) =>
    old.table === route.table && old.metric === route.metric &&
    formatCidr(old.destination) === formatCidr(route.destination)
  );
  if (at >= 0) links.removeRoute(surplus.splice(at, 1)[0]!);
  links.addRoute(route);
}

function addServiceAddress(links: Links, address: LinkAddress): void {
  const there = links.linkAddresses(address.link).find(({ cidr }) => cidr.address === address.cidr.address);
  if (there !== undefined && !isServiceAddress(there)) {
    throw new OperationError(`Cannot use ${formatCidr(address.cidr)} for services: this host has it already`);
  }
  links.addLinkAddress(address);
}

/**
 * Puts addresses of services behind those that the host has for itself, where they came first: the kernel makes no route for the second
 * address of a subnet. For whoever has added an address to the bridge.
 */
export function keepServiceAddressesLast(links: Links, bridge: number): void {
  const all = links.linkAddresses(bridge);
  const last = all.findLastIndex((address) => !isServiceAddress(address));
  for (const address of all.slice(0, Math.max(last, 0))) {
    if (!isServiceAddress(address)) continue;
    links.removeAddresses(bridge, [address.cidr]);
    links.addLinkAddress(address);
  }
}

/** Whether a routing table is ours: what is in it is made anew wherever it is wanted. */
export function isServiceTable(table: number | undefined): boolean {
  return table !== undefined && table >= NETWORK_TABLE && table < NETWORK_TABLE + TABLES;
}

function difference<T>(present: readonly T[], wanted: readonly T[], key: (item: T) => string) {
  const there = new Set(present.map(key));
  const keep = new Set(wanted.map(key));
  return {
    missing: wanted.filter((item) => !there.has(key(item))),
    surplus: present.filter((item) => !keep.has(key(item))),
  };
}

function routeKey({ destination, gateway, link, metric, table, type, source, onLink }: Route): string {
  // The kernel ties some kinds of route to a link of its own accord.
  const by = type === "unreachable" || type === "blackhole" ? undefined : link;
  return [formatCidr(destination), gateway, by, metric, table, type, type === "local" ? undefined : source, onLink]
    .join(" ");
}

function ruleKey({ priority, table, inputInterface, mark, ipProtocol }: PolicyRule): string {
  return [priority, table, inputInterface, mark?.value, mark?.mask, ipProtocol].join(" ");
}

function addressKey({ link, cidr, label }: LinkAddress): string {
  return [link, formatCidr(cidr), label].join(" ");
}
