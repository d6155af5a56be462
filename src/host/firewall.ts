/**
 * The rules of Weave Net in the host's packet filter: what they are (pure), and how they get there (iptables programs
 * of the variant that Docker uses). Desired state against actual, one transaction per table; doing it twice changes nothing.
 *
 * FORWARD, from the top          WEAVE-EXPOSE                nat WEAVE, per exposed subnet
 *   of services       ACCEPT (where there are any; atop INPUT too)
 *   docker0 → weave   DROP         -d subnet ACCEPT            multicast from it          RETURN
 *   weave → weave     ACCEPT                                   into it from elsewhere     MASQUERADE
 *   → weave           WEAVE-EXPOSE                             from it to elsewhere       MASQUERADE
 *   weave → elsewhere ACCEPT
 *   replies to weave  ACCEPT
 *
 * Where two disjoint subnets are exposed, the host could be used as a router between them (`weave → weave ACCEPT` is meant for
 * bridged frames, which pass here where br_netfilter is on). Subnets stay apart: a chain of ours, `weave-isolate`, drops
 * what goes from one exposed subnet to another.
 */
import { OperationError } from "../lib/errors.ts";
import { type Cidr, cidrsOverlap, formatCidr, formatIpv4, type Ipv4, networkOf } from "../lib/ip.ts";
import { findProgram, run, type RunOptions } from "./command.ts";
import {
  canonical,
  type Chains,
  optionOf,
  parseSave,
  planRestore,
  type Rule,
  type Ruleset,
  type TableName,
  targetOf,
  type Wanted,
  type WantedTables,
} from "./iptables.ts";
import { servicesInKernel } from "./kernel_settings.ts";
import { OUR_CONNMARK } from "./service_marks.ts";
import { StoreFile } from "./store.ts";

/** What the rules depend on besides exposures. */
export interface FirewallOptions {
  /** Name of the overlay's bridge. */
  readonly bridge: string;
  /** Docker's bridge, whether or not it is there. */
  readonly dockerBridge: string;
  /** First IPv4 address on it; without one there are no INPUT rules for it. */
  readonly dockerBridgeIp?: Ipv4;
  /** Control port of the mesh; data ports are the same and the next, UDP. */
  readonly port: number;
  /** TCP port of the control API on 127.0.0.1; undefined where it does not listen there. */
  readonly controlPort?: number;
}

export const DEFAULT_FIREWALL: FirewallOptions = {
  bridge: "weave",
  dockerBridge: "docker0",
  port: 6783,
  controlPort: 6784,
};

/** An address of the host on the overlay. */
export interface Exposure {
  readonly cidr: Cidr;
  /** false: `--without-masquerade`. */
  readonly masquerade: boolean;
}

const EXPOSE_CHAIN = "WEAVE-EXPOSE";
const NAT_CHAIN = "WEAVE";
const ISOLATE_CHAIN = "weave-isolate";
/** Empty, and in every table: gone when somebody flushed the packet filter. */
const CANARY_CHAIN = "WEAVE-CANARY";
const OUR_CHAINS: readonly string[] = [EXPOSE_CHAIN, NAT_CHAIN, ISOLATE_CHAIN, CANARY_CHAIN];
const TABLES: readonly TableName[] = ["filter", "nat", "mangle"];
const MULTICAST = "224.0.0.0/4";

/**
 * Everything we want in the packet filter.
 * @param stale rules of ours in INPUT from an earlier time
 * @param services whether flows of services pass
 */
export function wantedFirewall(
  options: FirewallOptions,
  exposures: readonly Exposure[],
  { stale = [], services = false }: { readonly stale?: readonly Rule[]; readonly services?: boolean } = {},
): WantedTables {
  const subnets = uniqueSubnets(exposures.map((e) => e.cidr));
  const masqueraded = uniqueSubnets(exposures.filter((e) => e.masquerade).map((e) => e.cidr));
  const input = inputRules(options);
  const keep = new Set(input.map(canonical));
  const isolate = isolateRules(subnets);
  const isolateJump = `-i ${options.bridge} -o ${options.bridge} -j ${ISOLATE_CHAIN}`;
  const isolated = isolate.length > 0;
  return new Map<TableName, Wanted>([
    ["filter", {
      chains: new Map([
        [CANARY_CHAIN, []],
        [EXPOSE_CHAIN, subnets.map((s) => `-d ${s.text} -j ACCEPT`)],
      ]),
      noChains: [],
      top: new Map([
        ["FORWARD", [...(services ? [SERVICE_RULE] : []), ...forwardRules(options)]],
        ["INPUT", services ? [SERVICE_RULE] : []],
      ]),
      anywhere: new Map([["INPUT", input]]),
      gone: new Map([
        ["INPUT", [...stale.filter((rule) => !keep.has(canonical(rule))), ...services ? [] : [SERVICE_RULE]]],
        ["FORWARD", services ? [] : [SERVICE_RULE]],
      ]),
      shadows: (rule, chains) => letsDockerIn(rule, chains, options),
    }],
    ["nat", {
      chains: new Map([[CANARY_CHAIN, []], [NAT_CHAIN, masqueraded.flatMap(({ text }) => natRules(text))]]),
      noChains: [],
      top: new Map(),
      anywhere: new Map([["POSTROUTING", [`-j ${NAT_CHAIN}`]]]),
      gone: new Map(),
    }],
    ["mangle", {
      chains: new Map([[CANARY_CHAIN, []], ...(isolated ? [[ISOLATE_CHAIN, isolate]] as const : [])]),
      noChains: isolated ? [] : [ISOLATE_CHAIN],
      top: new Map(),
      anywhere: isolated ? new Map([["FORWARD", [isolateJump]]]) : new Map(),
      gone: isolated ? new Map() : new Map([["FORWARD", [isolateJump]]]),
    }],
  ]);
}

/** Nothing of ours in what `actual` holds: neither chains, nor jumps to them, nor `recorded` rules of INPUT. */
export function wantedNothing(actual: Ruleset, options: FirewallOptions, recorded: readonly Rule[]): WantedTables {
  const ours = new Set([SERVICE_RULE, ...forwardRules(options), ...recorded].map(canonical));
  return new Map(TABLES.map((name): [TableName, Wanted] => {
    const chains = actual.get(name) ?? new Map<string, readonly Rule[]>();
    const gone = new Map<string, readonly Rule[]>();
    for (const [chain, rules] of chains) {
      if (OUR_CHAINS.includes(chain)) continue;
      const unwanted = rules.filter((rule) => OUR_CHAINS.includes(targetOf(rule) ?? "") || ours.has(canonical(rule)));
      if (unwanted.length > 0) gone.set(chain, unwanted);
    }
    const noChains = OUR_CHAINS.filter((chain) => chains.has(chain));
    return [name, { chains: new Map(), noChains, top: new Map(), anywhere: new Map(), gone }];
  }));
}

/**
 * What `service_rules.ts` has marked has been allowed; a policy of DROP, as Docker and ufw set it, and the rule about Docker's bridge would
 * say no. In INPUT it is for what leads to this host itself.
 */
const SERVICE_RULE: Rule = `-m connmark --mark ${OUR_CONNMARK} -j ACCEPT`;

function forwardRules({ bridge, dockerBridge }: FirewallOptions): Rule[] {
  return [
    ...(dockerBridge === bridge ? [] : [`-i ${dockerBridge} -o ${bridge} -j DROP`]),
    `-i ${bridge} -o ${bridge} -j ACCEPT`,
    `-o ${bridge} -j ${EXPOSE_CHAIN}`,
    `-i ${bridge} ! -o ${bridge} -j ACCEPT`,
    `-o ${bridge} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
  ];
}

function inputRules({ dockerBridge, dockerBridgeIp, port, controlPort }: FirewallOptions): Rule[] {
  const rules: Rule[] = [];
  if (dockerBridgeIp !== undefined) {
    const to = `-d ${formatIpv4(dockerBridgeIp)}/32 -i ${dockerBridge}`;
    rules.push(`${to} -p tcp -m tcp --dport ${port} -j DROP`);
    for (const udp of [port, port + 1]) if (udp <= 65535) rules.push(`${to} -p udp -m udp --dport ${udp} -j DROP`);
    for (const protocol of ["udp", "tcp"]) {
      rules.push(`-i ${dockerBridge} -p ${protocol} -m ${protocol} --dport 53 -j ACCEPT`);
    }
  }
  if (controlPort !== undefined) rules.push(controlRule(controlPort));
  return rules;
}

/** With `route_localnet` on, somebody else's packet could reach what listens on loopback. */
function controlRule(controlPort: number): Rule {
  return `-d 127.0.0.1/32 -p tcp -m tcp --dport ${controlPort} -m addrtype ! --src-type LOCAL ` +
    `-m conntrack ! --ctstate RELATED,ESTABLISHED ` +
    `-m comment --comment "Block non-local access to Weave Net control port" -j DROP`;
}

function natRules(subnet: string): Rule[] {
  return [
    `-s ${subnet} -d ${MULTICAST} -j RETURN`,
    `! -s ${subnet} -d ${subnet} -j MASQUERADE`,
    `-s ${subnet} ! -d ${subnet} -j MASQUERADE`,
  ];
}

function isolateRules(subnets: readonly Subnet[]): Rule[] {
  return subnets.flatMap((a) =>
    subnets.filter((b) => !cidrsOverlap(a.cidr, b.cidr)).map((b) => `-s ${a.text} -d ${b.text} -j DROP`)
  );
}

interface Subnet {
  readonly cidr: Cidr;
  /** Host bits cleared, as iptables prints it. */
  readonly text: string;
}

/** In numeric order, so that the same exposures give the same chains whatever their history. */
function uniqueSubnets(cidrs: readonly Cidr[]): Subnet[] {
  const found = new Map<string, Subnet>();
  for (const cidr of cidrs) {
    const subnet = { address: networkOf(cidr), prefixLength: cidr.prefixLength };
    found.set(formatCidr(subnet), { cidr: subnet, text: formatCidr(subnet) });
  }
  return [...found.values()].sort((a, b) =>
    a.cidr.address - b.cidr.address || a.cidr.prefixLength - b.cidr.prefixLength
  );
}

/** A rule above ours that accepts what comes from Docker's bridge before our DROP can see it: Docker, started after us, makes one. */
function letsDockerIn(rule: Rule, chains: Chains, options: FirewallOptions, depth = 4): boolean {
  const input = optionOf(rule, "-i");
  const output = optionOf(rule, "-o");
  if (input !== undefined && (input.negated || input.value !== options.dockerBridge)) return false;
  if (output !== undefined && output.negated === (output.value === options.bridge)) return false;
  const target = targetOf(rule);
  // One without an interface accepts on other grounds, which are its author's business.
  if (target === "ACCEPT") return input !== undefined;
  const inner = target === undefined || depth === 0 ? undefined : chains.get(target);
  return inner !== undefined && inner.some((r) => letsDockerIn(r, chains, options, depth - 1));
}

/* What follows runs programs. */

/** One of the two packet filters that speak iptables. */
interface Variant {
  readonly kind: "nft" | "legacy";
  readonly save: string;
  readonly restore: string;
}

interface Reading {
  readonly variant: Variant;
  readonly ruleset: Ruleset;
}

/** What we put where; kept so that a later start, another port or `reset` can take exactly that away. */
interface FirewallRecord {
  readonly options: FirewallOptions;
  /** Rules in INPUT that were not there before us. */
  readonly input: readonly Rule[];
  /** After the last change everything was as wanted. Where it was not, only the canaries are watched. */
  readonly settled: boolean;
}

/** Seconds to wait for the lock that iptables programs share. */
const WAIT_S = 20;
/** Exit status of iptables for "resource temporarily unavailable". */
const BUSY = 4;
const ATTEMPTS = 5;

export interface FirewallState {
  /** Where our record is kept. */
  readonly runDir: string;
  /** undefined: what the record says, else the defaults. */
  readonly options?: FirewallOptions;
  readonly exposures: readonly Exposure[];
}

/** Makes the packet filter hold what we want; the caller holds the host's lock. Resolves to whether anything was changed. */
export async function ensureFirewall(state: FirewallState): Promise<boolean> {
  const file = recordFile(state.runDir);
  const before = await readRecord(file);
  const options = state.options ?? before?.options ?? DEFAULT_FIREWALL;
  const readings = await readAll();
  const chosen = await chooseVariant(readings);
  let changed = false;
  for (const other of readings) {
    if (other.variant.kind === chosen.variant.kind) continue;
    const script = planRestore(other.ruleset, wantedNothing(other.ruleset, options, before?.input ?? []));
    if (script !== "") changed = await restore(other.variant, script).then(() => true);
  }

  const present = new Set((chosen.ruleset.get("filter")?.get("INPUT") ?? []).map(canonical));
  const owned = new Set((before?.input ?? []).map(canonical));
  const input = inputRules(options).filter((rule) => owned.has(canonical(rule)) || !present.has(canonical(rule)));
  const stale = (before?.input ?? []).filter((rule) => !input.includes(rule));
  const wanted = wantedFirewall(options, state.exposures, { stale, services: servicesInKernel(state.runDir) });

  // Recorded first: after a crash in between, too much of ours is known rather than too little.
  const record: FirewallRecord = { options, input: [...input, ...stale], settled: true };
  if (!sameRecord(before, record)) await file.write(record);
  let ruleset = chosen.ruleset;
  let script = planRestore(ruleset, wanted);
  if (script !== "") {
    await restore(chosen.variant, script, async () => {
      ruleset = await read(chosen.variant);
      return planRestore(ruleset, wanted);
    });
    changed = true;
    script = planRestore(await read(chosen.variant), wanted);
  }
  const after: FirewallRecord = { options, input, settled: script === "" };
  if (!sameRecord(record, after)) await file.write(after);
  return changed;
}

/**
 * Whether the packet filter still holds our canaries and rules, in the variant that Docker uses now. Changes nothing and needs no
 * lock; for the router's check every 10 s.
 */
export async function canaryIntact(state: FirewallState): Promise<boolean> {
  const record = await readRecord(recordFile(state.runDir));
  const readings = await readAll();
  const { ruleset } = await chooseVariant(readings);
  if (TABLES.some((table) => !ruleset.get(table)?.has(CANARY_CHAIN))) return false;
  if (record?.settled === false) return true;
  const options = state.options ?? record?.options ?? DEFAULT_FIREWALL;
  const wanted = wantedFirewall(options, state.exposures, { services: servicesInKernel(state.runDir) });
  return planRestore(ruleset, wanted) === "";
}

/** Takes all of ours out of both variants; the caller holds the host's lock. No iptables program is no error. */
export async function removeFirewall(runDir: string): Promise<void> {
  const file = recordFile(runDir);
  const record = await readRecord(file);
  const options = record?.options ?? DEFAULT_FIREWALL;
  // The comment in the last says whose it is, record or not.
  const input = [...(record?.input ?? []), controlRule(options.controlPort ?? 6784)];
  for (const { variant } of await readAll()) {
    const plan = async () => {
      const ruleset = await read(variant);
      return planRestore(ruleset, wantedNothing(ruleset, options, input));
    };
    const script = await plan();
    if (script !== "") await restore(variant, script, plan);
  }
  await file.remove();
}

/** Both variants where they can hold anything, and have programs. */
async function readAll(): Promise<Reading[]> {
  const readings: Reading[] = [];
  for (const variant of findVariants()) readings.push({ variant, ruleset: await read(variant) });
  return readings;
}

/** The variant that holds Docker's chains; where none or both do, the one that `iptables` means. */
async function chooseVariant(readings: readonly Reading[]): Promise<Reading> {
  const withDocker = readings.filter(({ ruleset }) =>
    [...ruleset.values()].some((chains) => [...chains.keys()].some((chain) => /^DOCKER(-|$)/.test(chain)))
  );
  if (withDocker.length === 1) return withDocker[0]!;
  if (readings.length === 1) return readings[0]!;
  const program = findProgram("iptables");
  const version = program === undefined ? undefined : await run(program, ["--version"]);
  // Before 1.8 there was only the legacy one, which did not say so.
  const kind = version === undefined || version.stdout.includes("nf_tables") ? "nft" : "legacy";
  const chosen = readings.find(({ variant }) => variant.kind === kind) ?? readings[0];
  if (chosen === undefined) {
    throw new OperationError(
      'Cannot set up the packet filter: "iptables-save" and "iptables-restore" are not installed (package iptables)',
    );
  }
  return chosen;
}

function findVariants(): Variant[] {
  const variants: Variant[] = [];
  for (const kind of ["nft", "legacy"] as const) {
    const save = findProgram(`iptables-${kind}-save`);
    const restore = findProgram(`iptables-${kind}-restore`);
    if (save !== undefined && restore !== undefined) variants.push({ kind, save, restore });
  }
  if (variants.length > 0) return variants;
  // A system with one variant only may not say which in the name; how it is driven is the same.
  const save = findProgram("iptables-save");
  const restore = findProgram("iptables-restore");
  return save === undefined || restore === undefined ? [] : [{ kind: "nft", save, restore }];
}

async function read(variant: Variant): Promise<Ruleset> {
  // The legacy program would load kernel modules to show that there is nothing.
  if (variant.kind === "legacy" && !legacyInUse()) return new Map();
  const { code, stdout, stderr } = await run(variant.save, []);
  if (code === 0) return parseSave(stdout);
  if (variant.kind === "nft" && /not supported|Protocol not|Invalid argument|nf_tables/.test(stderr)) return new Map();
  throw new OperationError(`Cannot read the packet filter: ${variant.save} ended with ${code}: ${stderr.trim()}`);
}

function legacyInUse(): boolean {
  try {
    return Deno.readTextFileSync("/proc/self/net/ip_tables_names").trim() !== "";
  } catch {
    return false;
  }
}

/** Applies a script; while the packet filter is busy or changed under us, makes a new plan and tries again. */
async function restore(variant: Variant, script: string, replan?: () => Promise<string>): Promise<void> {
  for (let attempt = 1;; attempt++) {
    const { code, stderr } = await run(variant.restore, [`--wait=${WAIT_S}`, "--noflush"], { input: script });
    if (code === 0) return;
    const again = code === BUSY || replan !== undefined;
    if (!again || attempt === ATTEMPTS) {
      throw new OperationError(
        `Cannot change the packet filter: ${variant.restore} ended with ${code}: ${firstLine(stderr)}`,
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 50 * attempt));
    if (replan !== undefined) {
      script = await replan();
      if (script === "") return;
    }
  }
}

function firstLine(text: string): string {
  return text.trim().split("\n", 1)[0]!;
}

function recordFile(runDir: string): StoreFile<FirewallRecord> {
  return new StoreFile<FirewallRecord>(`${runDir}/firewall.json`, {
    what: "firewall",
    major: 1,
    minor: 0,
    check: checkRecord,
  });
}

/** A record that cannot be understood is as good as none: what is in the packet filter is looked at anyway. */
async function readRecord(file: StoreFile<FirewallRecord>): Promise<FirewallRecord | undefined> {
  try {
    return await file.read();
  } catch (error) {
    if (error instanceof OperationError) return undefined;
    throw error;
  }
}

function checkRecord(data: unknown): FirewallRecord {
  const { options, input, settled } = data as { options?: FirewallOptions; input?: unknown; settled?: unknown };
  if (
    typeof options?.bridge !== "string" || typeof options.dockerBridge !== "string" || typeof options.port !== "number"
  ) {
    throw new Error("options are missing");
  }
  if (!Array.isArray(input) || !input.every((rule) => typeof rule === "string")) throw new Error("rules are missing");
  return { options, input, settled: settled === true };
}

function sameRecord(a: FirewallRecord | undefined, b: FirewallRecord): boolean {
  return JSON.stringify(a) === JSON.stringify(b);
}

/**
 * Makes a container's INPUT keep multicast within its subnets: on top an ACCEPT for each, at the end a DROP; without
 * any subnet none of them. Resolves to false where no iptables can be used there, which costs nothing but this isolation.
 */
export async function ensureMulticastRules(
  o: { link: string; subnets: readonly Cidr[]; within: NonNullable<RunOptions["within"]> },
): Promise<boolean> {
  const variant = findVariants()[0];
  if (variant === undefined) return false;
  const saved = await run(variant.save, ["-t", "filter"], { within: o.within });
  if (saved.code !== 0) return false;
  const ruleset = parseSave(saved.stdout);
  const accept = uniqueSubnets(o.subnets).map(({ text }) => `-s ${text} -d ${MULTICAST} -i ${o.link} -j ACCEPT`);
  const drop = accept.length === 0 ? [] : [`-d ${MULTICAST} -i ${o.link} -j DROP`];
  const keep = new Set([...accept, ...drop].map(canonical));
  const gone = (ruleset.get("filter")?.get("INPUT") ?? []).filter((rule) =>
    isMulticastRule(rule, o.link) && !keep.has(canonical(rule))
  );
  const script = planRestore(
    ruleset,
    new Map([["filter", {
      chains: new Map(),
      noChains: [],
      top: new Map([["INPUT", accept]]),
      anywhere: new Map([["INPUT", drop]]),
      gone: new Map([["INPUT", gone]]),
    }]]),
  );
  if (script === "") return true;
  const { code } = await run(variant.restore, [`--wait=${WAIT_S}`, "--noflush"], { input: script, within: o.within });
  return code === 0;
}

function isMulticastRule(rule: Rule, link: string): boolean {
  return optionOf(rule, "-i")?.value === link && optionOf(rule, "-d")?.value === MULTICAST;
}
