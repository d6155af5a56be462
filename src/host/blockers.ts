/**
 * Rules of others that drop flows of services. An accept of ours holds in our table alone: each base chain of the kernel judges for itself.
 * iptables (Docker, ufw) has a rule of ours at its top (`firewall.ts`), firewalld accepts what is translated; what blocks all the same is
 * named here, for the administrator to change.
 *
 * A rule set is read into rules of which each part is true, false or unknown of a flow's first packet. What is unknown blocks nobody: only
 * what is sure is told.
 */
import { type Cidr, cidrContains, type Ipv4, parseCidr, parseIpv4 } from "../lib/ip.ts";
import type { Protocol } from "../lib/ports.ts";
import { findProgram, run } from "./command.ts";
import { parseSave, type Rule as IptablesRule, tokens } from "./iptables.ts";
import type { NftObject } from "./nft.ts";
import { OURS } from "./service_marks.ts";
import { SERVICE_TABLE } from "./service_rules.ts";

/** The first packet of a flow of ours, after translation: new, with a ct mark of ours. */
export interface Flow {
  readonly hook: "forward" | "input";
  /** Not tracked: a frame of ours between ports of the bridge, which pass here as well where `br_netfilter` is on. */
  readonly bridged?: true;
  /** Names of links; undefined: it may be one or another. */
  readonly from: string | undefined;
  readonly to: string | undefined;
  readonly protocol: Protocol;
  readonly address: Ipv4;
  readonly port: number;
}

export interface Blocker {
  /** `inet firewalld`, `ip filter` */
  readonly table: string;
  readonly chain: string;
  /** As the program that shows it prints it; undefined: the chain's policy. */
  readonly rule: string | undefined;
}

/** A table of somebody, whoever made it. */
export interface FilterTable {
  readonly name: string;
  readonly chains: ReadonlyMap<string, FilterChain>;
}

interface FilterChain {
  /** undefined: no hook calls it. */
  readonly hook: string | undefined;
  readonly dropsByDefault: boolean;
  readonly rules: FilterRule[];
}

type Truth = boolean | undefined;

interface FilterRule {
  readonly holds: (flow: Flow) => Truth;
  readonly verdict: Verdict | undefined;
  /** undefined until it is asked for: `handle`. */
  readonly text: string;
}

type Verdict = "accept" | "drop" | "return" | "unknown" | { readonly to: string; readonly returns: boolean };

/** What stops a flow, in one of these tables; undefined: nothing that we are sure of. */
export function findBlocker(tables: readonly FilterTable[], flow: Flow): Blocker | undefined {
  for (const { name: table, chains } of tables) {
    for (const [chain, { hook, dropsByDefault }] of chains) {
      if (hook !== flow.hook) continue;
      const outcome = judge(chains, chain, flow, 0);
      if (typeof outcome === "object") return { table, ...outcome };
      if (outcome === "next" && dropsByDefault) return { table, chain, rule: undefined };
    }
  }
  return undefined;
}

/** `pass`: it is accepted, or may be. */
type Outcome = "pass" | "next" | { readonly chain: string; readonly rule: string };

const MAX_DEPTH = 16;

function judge(chains: FilterTable["chains"], name: string, flow: Flow, depth: number): Outcome {
  const chain = chains.get(name);
  if (chain === undefined || depth > MAX_DEPTH) return "pass";
  let unsure = false;
  for (const { holds, verdict, text } of chain.rules) {
    const held = verdict === undefined ? false : holds(flow);
    if (held === false) continue;
    // It may have been accepted here, which nobody knows; or dropped, for a reason of somebody's own.
    if (held === undefined) {
      unsure ||= mayAccept(chains, verdict!, 0);
      continue;
    }
    if (verdict === "unknown" || verdict === "accept") return "pass";
    if (verdict === "return") return unsure ? "pass" : "next";
    if (verdict === "drop") return unsure ? "pass" : { chain: name, rule: text };
    const { to, returns } = verdict as Exclude<Verdict, string>;
    const outcome = judge(chains, to, flow, depth + 1);
    if (outcome !== "next") return unsure ? "pass" : outcome;
    if (!returns) return unsure ? "pass" : "next";
  }
  return unsure ? "pass" : "next";
}

function mayAccept(chains: FilterTable["chains"], verdict: Verdict, depth: number): boolean {
  if (typeof verdict === "string") return verdict !== "drop";
  const rules = chains.get(verdict.to)?.rules ?? [];
  if (depth > MAX_DEPTH || !verdict.returns) return true;
  return rules.some((rule) =>
    rule.verdict !== undefined && rule.verdict !== "return" && mayAccept(chains, rule.verdict, depth + 1)
  );
}

function all(truths: readonly Truth[]): Truth {
  return truths.includes(false) ? false : truths.includes(undefined) ? undefined : true;
}

function any(truths: readonly Truth[]): Truth {
  return truths.includes(true) ? true : truths.includes(undefined) ? undefined : false;
}

const not = (truth: Truth): Truth => truth === undefined ? undefined : !truth;

// iptables

/** Table `filter` of what `iptables-save` prints. */
export function readIptables(text: string, name: string): FilterTable {
  const policies = new Map([...text.matchAll(/^:(\S+) (\S+)/gm)].map(([, chain, policy]) => [chain, policy]));
  const chains = new Map<string, FilterChain>();
  for (const [chain, rules] of parseSave(text).get("filter") ?? []) {
    chains.set(chain, {
      hook: chain === "FORWARD" ? "forward" : chain === "INPUT" ? "input" : undefined,
      dropsByDefault: policies.get(chain) === "DROP",
      rules: rules.map(iptablesRule),
    });
  }
  return { name, chains };
}

const IPTABLES_VERDICTS: Readonly<Record<string, Verdict | undefined>> = {
  ACCEPT: "accept",
  DROP: "drop",
  REJECT: "drop",
  RETURN: "return",
  QUEUE: "unknown",
  NFQUEUE: "unknown",
  // These go on with the next rule.
  LOG: undefined,
  NFLOG: undefined,
  MARK: undefined,
  CONNMARK: undefined,
  TCPMSS: undefined,
};

/** Options that are no conditions. */
const NO_CONDITIONS = new Set(["-m", "-j", "-g", "--comment", "--reject-with", "--log-prefix", "--log-level"]);

function iptablesRule(rule: IptablesRule): FilterRule {
  const conditions: ((flow: Flow) => Truth)[] = [];
  let verdict: Verdict | undefined;
  const words = tokens(rule);
  for (let i = 0; i < words.length; i++) {
    const negated = words[i] === "!";
    const option = words[negated ? ++i : i]!;
    if (!option.startsWith("-")) continue;
    const values: string[] = [];
    while (i + 1 < words.length && !/^(!|--?[a-zA-Z].*)$/.test(words[i + 1]!)) values.push(words[++i]!);
    const [value = ""] = values;
    if (option === "-j" || option === "-g") {
      verdict = Object.hasOwn(IPTABLES_VERDICTS, value)
        ? IPTABLES_VERDICTS[value]
        : { to: value, returns: option === "-j" };
    } else if (!NO_CONDITIONS.has(option)) {
      const holds = iptablesCondition(option, value);
      conditions.push(negated ? (flow) => not(holds(flow)) : holds);
    }
  }
  return { holds: (flow) => all(conditions.map((holds) => holds(flow))), verdict, text: rule };
}

function iptablesCondition(option: string, value: string): (flow: Flow) => Truth {
  const listed = value.split(",");
  switch (option) {
    case "--physdev-in":
    case "--physdev-out":
    case "--physdev-is-bridged":
      return ({ bridged }) => bridged ? undefined : false;
    case "-i":
      return ({ from }) => isLink(from, value.replace(/\+$/, "*"));
    case "-o":
      return ({ hook, to }) => hook === "forward" && isLink(to, value.replace(/\+$/, "*"));
    case "-p":
      return ({ protocol }) => value === protocol || value === "all";
    case "-d":
      return ({ address }) => inCidr(address, value);
    case "--dport":
      return ({ port }) => inPorts(port, value.replace(":", "-"));
    case "--dports":
      return ({ port }) => listed.some((each) => inPorts(port, each.replace(":", "-")));
    case "--ctstate":
    case "--state":
      return ({ bridged }) =>
        bridged ? listed.includes("UNTRACKED") : any(listed.map((state) => state === "NEW" || state === "DNAT"));
    case "--icmp-type":
      return () => false;
    case "--dst-type":
      return ({ hook }) => value === "LOCAL" ? hook === "input" : value === "UNICAST" ? hook === "forward" : false;
    case "--mark": {
      const [mark, mask] = value.split("/").map(Number);
      return ({ bridged }) => ourMark(mark!, mask ?? 0xffff_ffff, bridged);
    }
    default:
      return () => undefined;
  }
}

// nftables

/** Tables of `nft -j list table`, ours not among them. */
export function readNft(objects: readonly NftObject[]): FilterTable[] {
  const tables = new Map<string, Map<string, FilterChain>>();
  const chainOf = (object: Readonly<Record<string, unknown>>, name: unknown) => {
    const chains = tables.get(`${object.family} ${object.table}`) ?? new Map<string, FilterChain>();
    tables.set(`${object.family} ${object.table}`, chains);
    return { chains, name: String(name) };
  };
  for (const { chain, rule } of objects) {
    if (chain !== undefined) {
      const { chains, name } = chainOf(chain, chain.name);
      const hook = chain.type === "filter" ? String(chain.hook) : undefined;
      chains.set(name, { hook, dropsByDefault: chain.policy === "drop", rules: [] });
    }
    if (rule !== undefined) {
      const { chains, name } = chainOf(rule, rule.chain);
      chains.get(name)?.rules.push(nftRule(rule));
    }
  }
  return [...tables].filter(([name]) => FAMILIES.test(name) && name !== `ip ${SERVICE_TABLE}`)
    .map(([name, chains]) => ({ name, chains }));
}

const FAMILIES = /^(ip|inet) /;

type Json = Readonly<Record<string, unknown>>;

/** Statements that change no verdict. */
const NFT_GOES_ON = new Set(["counter", "log", "mangle", "notrack", "ct helper", "set", "map", "meter"]);

function nftRule(rule: Json): FilterRule {
  const conditions: ((flow: Flow) => Truth)[] = [];
  let verdict: Verdict | undefined;
  for (const statement of Array.isArray(rule.expr) ? rule.expr as Json[] : []) {
    const [[kind, value] = ["", undefined]] = Object.entries(statement);
    if (kind === "match") conditions.push(nftCondition(value as Json));
    else if (kind === "accept") verdict = "accept";
    else if (kind === "drop" || kind === "reject") verdict = "drop";
    else if (kind === "return") verdict = "return";
    else if (kind === "jump" || kind === "goto") {
      verdict = { to: String((value as Json).target), returns: kind === "jump" };
    } else if (kind === "queue") verdict = "unknown";
    else if (kind === "vmap") {
      // Somebody looks it up; whether it is accepted is for him to know.
      verdict = "unknown";
      conditions.push(() => undefined);
    } else if (!NFT_GOES_ON.has(kind)) conditions.push(() => undefined);
  }
  return {
    holds: (flow) => all(conditions.map((holds) => holds(flow))),
    verdict,
    text: `handle ${rule.handle}`,
  };
}

function nftCondition({ op, left, right }: Json): (flow: Flow) => Truth {
  const compare = (flow: Flow) => nftCompare(left as Json, right, flow);
  if (op === "==" || op === "in") return compare;
  if (op === "!=") return (flow) => not(compare(flow));
  return () => undefined;
}

function nftCompare(left: Json, right: unknown, flow: Flow): Truth {
  if (typeof left !== "object" || left === null) return undefined;
  const { meta, ct, payload } = left as { meta?: Json; ct?: Json; payload?: Json };
  if (meta !== undefined) {
    switch (meta.key) {
      case "iifname":
      case "iif":
        return ofSet(right, (name) => isLink(flow.from, String(name)));
      case "oifname":
      case "oif":
        return flow.hook === "forward" && ofSet(right, (name) => isLink(flow.to, String(name)));
      case "l4proto":
        return ofSet(right, (name) => name === flow.protocol);
      case "nfproto":
        return ofSet(right, (name) => name === "ipv4");
      default:
        return undefined;
    }
  }
  if (ct !== undefined) {
    if (ct.key === "state") return ofSet(right, (state) => state === (flow.bridged ? "untracked" : "new"));
    if (flow.bridged) return false;
    if (ct.key === "status") return ofSet(right, (status) => status === "dnat" || undefined);
    if (ct.key === "direction") return ofSet(right, (direction) => direction === "original");
    return undefined;
  }
  if (payload !== undefined) {
    const { protocol, field } = payload;
    if (protocol === "ip6" || protocol === "icmp" || protocol === "icmpv6") return false;
    if (protocol === "ip" && field === "protocol") return ofSet(right, (name) => name === flow.protocol);
    if (protocol === "ip" && field === "daddr") return ofSet(right, (value) => inAddresses(flow.address, value));
    if ((protocol === "tcp" || protocol === "udp") && protocol !== flow.protocol) return false;
    if (field === "dport") return ofSet(right, (value) => inPortsOfNft(flow.port, value));
    return undefined;
  }
  const masked = (left as { readonly "&"?: readonly [Json, number] })["&"];
  const of = masked?.[0]?.ct as Json | undefined;
  if (of?.key === "mark" && typeof right === "number") return ourMark(right, masked![1], flow.bridged);
  return undefined;
}

/** Of any in a set, or of one. */
function ofSet(right: unknown, holds: (value: unknown) => Truth): Truth {
  if (Array.isArray(right)) return any(right.map(holds));
  if (typeof right === "string" && right.startsWith("@")) return undefined;
  const { set } = (right ?? {}) as { set?: unknown };
  return Array.isArray(set) ? any(set.map(holds)) : holds(right);
}

function inAddresses(address: Ipv4, value: unknown): Truth {
  if (typeof value === "string") return inCidr(address, value);
  const { prefix, range } = value as { prefix?: { addr: string; len: number }; range?: readonly string[] };
  if (prefix !== undefined) return inCidr(address, `${prefix.addr}/${prefix.len}`);
  const [first, last] = (range ?? []).map(parseIpv4);
  return first === undefined || last === undefined ? undefined : first <= address && address <= last;
}

function inPortsOfNft(port: number, value: unknown): Truth {
  if (typeof value === "number") return value === port;
  const { range } = value as { range?: readonly number[] };
  return range === undefined ? undefined : range[0]! <= port && port <= range[1]!;
}

// Both

function isLink(name: string | undefined, pattern: string): Truth {
  if (pattern === "lo") return false;
  if (name === undefined) return pattern === "*" || undefined;
  return pattern.endsWith("*") ? name.startsWith(pattern.slice(0, -1)) : name === pattern;
}

function inCidr(address: Ipv4, text: string): Truth {
  const plain = parseIpv4(text);
  const cidr: Cidr | undefined = plain === undefined ? parseCidr(text) : { address: plain, prefixLength: 32 };
  return cidr === undefined ? undefined : cidrContains(cidr, address);
}

function inPorts(port: number, text: string): Truth {
  const [first, last = first] = text.split("-").map(Number);
  return Number.isInteger(first) && Number.isInteger(last) ? first! <= port && port <= last! : undefined;
}

/** Of our ct mark a rule can know one bit; what is not tracked has none. */
function ourMark(mark: number, mask: number, bridged: true | undefined): Truth {
  return mask === OURS ? mark === (bridged ? 0 : OURS) : undefined;
}

/* What follows runs programs. */

/** Everything that filters on this host but our own table. Nothing that cannot be read blocks anybody. */
export async function readFilters(): Promise<FilterTable[]> {
  const tables: FilterTable[] = [];
  for (const kind of ["nft", "legacy"]) {
    const save = findProgram(`iptables-${kind}-save`);
    const saved = save === undefined ? undefined : await run(save, ["-t", "filter"]);
    if (saved?.code === 0) {
      tables.push(readIptables(saved.stdout, kind === "nft" ? "ip filter" : "filter of iptables-legacy"));
    }
  }
  const nft = findProgram("nft");
  if (nft === undefined) return tables;
  for (const { table } of await listNft(nft, ["tables"])) {
    const { family, name } = table ?? {};
    const known = `${family} ${name}`;
    if (!FAMILIES.test(known) || known === `ip ${SERVICE_TABLE}` || tables.some((other) => other.name === known)) {
      continue;
    }
    tables.push(...readNft(await listNft(nft, ["table", String(family), String(name)])));
  }
  return tables;
}

async function listNft(nft: string, what: readonly string[]): Promise<readonly NftObject[]> {
  const { code, stdout } = await run(nft, ["-j", "list", ...what]);
  if (code !== 0) return [];
  const { nftables } = JSON.parse(stdout) as { nftables?: unknown };
  return Array.isArray(nftables) ? nftables as NftObject[] : [];
}

/** One line for people. */
export async function describeBlocker({ table, chain, rule }: Blocker): Promise<string> {
  if (rule === undefined) return `The policy of chain ${chain} of table ${table}`;
  const handle = /^handle (\d+)$/.exec(rule)?.[1];
  if (handle === undefined) return `Rule "${rule}" in chain ${chain} of table ${table}`;
  const nft = findProgram("nft");
  const listed = nft === undefined ? undefined : await run(nft, ["-a", "list", "chain", ...table.split(" "), chain]);
  const line = listed?.stdout.split("\n").find((text) => text.endsWith(`# handle ${handle}`));
  return `Rule "${line?.replace(/ # handle \d+$/, "").trim() ?? rule}" in chain ${chain} of table ${table}`;
}
