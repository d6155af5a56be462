/**
 * Desired state: what a service file says this gateway should have, and what has to change. Values in, values and text out: the file
 * itself is read by the command line.
 *
 *     networks:
 *       site: eth1                                     # or { interfaces: [eth1, eth2], isolated: true }
 *     services:
 *       - name: db
 *         import:
 *           to: ["192.168.1.5:5432", "192.168.1.6:5432,priority=1"]
 *           network: site                              # port, priority, weight, check, subnets, allow-local, state
 *         export:
 *           - listen: "5432"                           # port, network, allow, dns, force
 *
 * A part that is not there is left alone; of one that is there, what it does not name is removed.
 */
import { OptionError } from "../lib/errors.ts";
import { formatCidr } from "../lib/ip.ts";
import { type Json, type JsonObject, writeJson } from "../lib/json.ts";
import { formatPortRange, portsOverlap } from "../lib/ports.ts";
import { formatListen } from "../wire/service.ts";
import type { ExportSpec, ImportSpec, ImportState } from "./records.ts";
import {
  checkNetworkSpec,
  defaultCheckOf,
  type ExportInput,
  formatBackend,
  formatCheck,
  HOST_NETWORK_NAME,
  type ImportInput,
  type NetworkSpec,
  parseExport,
  parseImport,
  portsOfBackends,
  type SpecContext,
  SpecError,
} from "./spec.ts";
import { oneLine } from "./spec_words.ts";

/** What a gateway has, or should have, of its own. */
export interface GatewayState {
  readonly networks: readonly NetworkSpec[];
  readonly imports: readonly ImportSpec[];
  readonly exports: readonly ExportSpec[];
}

/** Undefined: left alone. */
export interface DesiredState {
  readonly networks: readonly NetworkSpec[] | undefined;
  readonly services: Pick<GatewayState, "imports" | "exports"> | undefined;
}

/** In the order in which they are to be done: what is no more first, then networks before what needs them. */
export type Change =
  | { readonly type: "removeExport"; readonly before: ExportSpec }
  | { readonly type: "removeImport"; readonly before: ImportSpec }
  | { readonly type: "removeNetwork"; readonly before: NetworkSpec }
  | { readonly type: "setNetwork"; readonly before: NetworkSpec | undefined; readonly after: NetworkSpec }
  | { readonly type: "setImport"; readonly before: ImportSpec | undefined; readonly after: ImportSpec }
  | { readonly type: "setExport"; readonly before: ExportSpec | undefined; readonly after: ExportSpec };

/** What is wrong with a desired state, and where. */
export class DesiredError extends OptionError {
  /** @param path keys and places from the top */
  constructor(readonly path: readonly (string | number)[], message: string) {
    super(oneLine(message));
  }
}

/** @param value as parsed from a file @throws DesiredError */
export function checkDesired(value: unknown, context: SpecContext): DesiredState {
  const file = checkFields(value, [], "the file", ["networks", "services"]);
  const networks = file["networks"] === undefined ? undefined : checkNetworks(file["networks"]);
  // Networks that the file does not name will not be there.
  const names = networks?.map(({ name }) => name) ?? context.networks;
  const known = names === undefined ? context : { ...context, networks: names };
  return { networks, services: file["services"] === undefined ? undefined : checkServices(file["services"], known) };
}

/** What has to change, in the order in which it can be done. */
export function differenceOf(actual: GatewayState, desired: DesiredState): readonly Change[] {
  const { imports, exports } = desired.services ?? actual;
  const networks = desired.networks ?? actual.networks;
  const lostExports = missing(actual.exports, exports, exportKey);
  const lostImports = missing(actual.imports, imports, nameOf);
  const lostNetworks = missing(actual.networks, networks, nameOf);
  const kept = [
    ...actual.exports.filter((spec) => !lostExports.includes(spec)),
    ...actual.imports.filter((spec) => !lostImports.includes(spec)),
  ];
  // A network that somebody still uses goes when he has moved; before others where its interfaces may be wanted.
  const isUsed = ({ name }: NetworkSpec) => kept.some((spec) => usesNetwork(spec, name));
  return [
    ...lostExports.map((before): Change => ({ type: "removeExport", before })),
    ...lostImports.map((before): Change => ({ type: "removeImport", before })),
    ...lostNetworks.filter((network) => !isUsed(network)).map(removal),
    ...differing(actual.networks, networks, nameOf, networkText)
      .map(({ before, after }): Change => ({ type: "setNetwork", before, after })),
    ...differing(actual.imports, imports, nameOf, importText)
      .map(({ before, after }): Change => ({ type: "setImport", before, after })),
    ...differing(actual.exports, exports, exportKey, exportText)
      .map(({ before, after }): Change => ({ type: "setExport", before, after })),
    ...lostNetworks.filter(isUsed).map(removal),
  ];
}

/** For people: a line for each change, and under it what is different; "Nothing to change" where there is none. Ends in a line end. */
export function renderChanges(changes: readonly Change[]): string {
  if (changes.length === 0) return "Nothing to change\n";
  return changes.flatMap(renderChange).map((line) => `${line}\n`).join("");
}

/** The value of a file that applies as no change. */
export function configOf({ networks, imports, exports }: GatewayState): Json {
  const names = [...new Set([...imports, ...exports].map(({ name }) => name))].sort();
  const sorted = [...networks].sort((a, b) => a.name < b.name ? -1 : 1);
  return {
    networks: Object.fromEntries(sorted.map((network) => [network.name, networkConfig(network)])),
    services: names.map((name) => {
      const spec = imports.find((each) => each.name === name);
      const offered = exports.filter((each) => each.name === name).sort((a, b) => exportKey(a) < exportKey(b) ? -1 : 1);
      return {
        name,
        ...spec === undefined ? {} : { import: importConfig(spec) },
        ...offered.length === 0 ? {} : { export: offered.map(exportConfig) },
      };
    }),
  };
}

// From values

type Path = readonly (string | number)[];

const IMPORT_KEYS = [
  "to",
  "network",
  "port",
  "priority",
  "weight",
  "check",
  "subnets",
  "allow-local",
  "state",
] as const;
const TARGET_KEYS = ["target", "priority", "weight", "network"] as const;
const EXPORT_KEYS = ["listen", "port", "network", "allow", "dns", "force"] as const;
const STATES: readonly ImportState[] = ["active", "draining", "revoked"];

/** More than a file of a megabyte could say in earnest. */
const MAX_SERVICES = 10_000;

function checkNetworks(value: unknown): readonly NetworkSpec[] {
  const networks = checkFields(value, ["networks"], "networks");
  const specs = Object.entries(networks).map(([name, said]) => {
    const path = ["networks", name];
    const fields = isList(said) || typeof said === "string"
      ? { interfaces: said }
      : checkFields(said, path, `network "${name}"`, ["interfaces", "isolated"]);
    const { interfaces, isolated } = fields as Readonly<Record<string, unknown>>;
    return atPath(() =>
      checkNetworkSpec({
        name,
        interfaces: texts(interfaces, [...path, "interfaces"]) ?? [],
        isolated: flag(isolated, [...path, "isolated"]) ?? false,
      }), () => path);
  });
  const owners = new Map<string, string>();
  for (const { name, interfaces } of specs) {
    for (const each of interfaces) {
      const other = owners.get(each);
      if (other !== undefined) {
        throw new DesiredError(["networks", name], `Cannot use interface "${each}": network "${other}" has it too`);
      }
      owners.set(each, name);
    }
  }
  return specs;
}

function checkServices(value: unknown, context: SpecContext): Pick<GatewayState, "imports" | "exports"> {
  const imports: ImportSpec[] = [];
  const exports: ExportSpec[] = [];
  const names = new Set<string>();
  for (const [i, said] of checkList(value, ["services"], "services").entries()) {
    const path = ["services", i];
    const service = checkFields(said, path, "a service", ["name", "import", "export"]);
    const name = text(service["name"], [...path, "name"]);
    if (name === undefined) throw new DesiredError(path, "Cannot use a service without a name");
    if (names.has(name.toLowerCase())) throw new DesiredError([...path, "name"], `Cannot use service "${name}" twice`);
    names.add(name.toLowerCase());
    if (service["import"] === undefined && service["export"] === undefined) {
      throw new DesiredError(path, `Cannot use service "${name}": it has neither import nor export`);
    }
    if (service["import"] !== undefined) {
      imports.push(checkImport(name, service["import"], [...path, "import"], context));
    }
    for (const [listenPath, offer] of listOf(service["export"], [...path, "export"])) {
      const spec = checkExport(name, offer, listenPath, context);
      const other = exports.find((each) => collide(each, spec));
      if (other !== undefined) {
        const where = `${formatListen(spec.listen)} on network ${spec.network}`;
        throw new DesiredError(listenPath, `Cannot export "${name}" at ${where}: "${other.name}" is exported there`);
      }
      exports.push(spec);
    }
  }
  return { imports, exports };
}

function checkImport(name: string, value: unknown, path: Path, context: SpecContext): ImportSpec {
  const fields = checkFields(value, path, "an import", IMPORT_KEYS);
  const at = (key: string) => [...path, key];
  const state = text(fields["state"], at("state"));
  if (state !== undefined && !STATES.includes(state as ImportState)) {
    throw new DesiredError(at("state"), `Cannot use "${state}" as state: ${STATES.join(", ")} are known`);
  }
  const input: ImportInput = {
    name,
    to: [...listOf(fields["to"], at("to"))].map(([place, target]) => targetText(target, place)),
    network: text(fields["network"], at("network")),
    port: texts(fields["port"], at("port")),
    priority: text(fields["priority"], at("priority")),
    weight: text(fields["weight"], at("weight")),
    check: text(fields["check"], at("check")),
    subnets: texts(fields["subnets"], at("subnets")),
    allowLocal: flag(fields["allow-local"], at("allow-local")),
    state: state as ImportState | undefined,
  };
  return atPath(() => parseImport(input, context), (field) => {
    if (field === "name") return [...path.slice(0, -1), "name"];
    return field === "allowLocal" ? at("allow-local") : at(field);
  });
}

/** A target is a text, or has its parts by name. */
function targetText(value: unknown, path: Path): string {
  if (typeof value !== "object" || value === null) return text(value, path) ?? "";
  const fields = checkFields(value, path, "a target", TARGET_KEYS);
  const address = text(fields["target"], [...path, "target"]) ?? "";
  const options = TARGET_KEYS.slice(1).flatMap((key) => {
    const said = text(fields[key], [...path, key]);
    return said === undefined ? [] : [`${key}=${said}`];
  });
  return [address, ...options].join();
}

function checkExport(name: string, value: unknown, path: Path, context: SpecContext): ExportSpec {
  const fields = checkFields(value, path, "an export", EXPORT_KEYS);
  const at = (key: string) => [...path, key];
  const port = text(fields["port"], at("port"));
  const listen = text(fields["listen"], at("listen"));
  if (listen === undefined) throw new DesiredError(path, `Cannot export "${name}": listen is missing`);
  const input: ExportInput = {
    name: port === undefined ? name : `${name}:${port}`,
    listen,
    network: text(fields["network"], at("network")),
    allow: texts(fields["allow"], at("allow")),
    dns: flag(fields["dns"], at("dns")),
    force: flag(fields["force"], at("force")),
  };
  return atPath(() => parseExport(input, context), (field) => {
    if (field !== "name") return at(field);
    return port === undefined ? [...path.slice(0, 2), "name"] : at("port");
  });
}

function atPath<T>(work: () => T, pathOf: (field: string) => Path): T {
  try {
    return work();
  } catch (error) {
    if (error instanceof SpecError) throw new DesiredError(pathOf(error.field), error.message);
    throw error;
  }
}

type Fields = Readonly<Record<string, unknown>>;

/** @param known keys; undefined: any */
function checkFields(value: unknown, path: Path, what: string, known?: readonly string[]): Fields {
  if (typeof value !== "object" || value === null || isList(value)) {
    const expected = known === undefined ? "names and what they are" : known.join(", ");
    throw new DesiredError(path, `Cannot use ${what}: ${expected} are expected in it`);
  }
  const stranger = known && Object.keys(value).find((key) => !known.includes(key));
  if (stranger !== undefined) {
    throw new DesiredError([...path, stranger], `Cannot use "${stranger}" of ${what}: ${known!.join(", ")} are known`);
  }
  return value as Fields;
}

function checkList(value: unknown, path: Path, what: string): readonly unknown[] {
  if (!isList(value)) throw new DesiredError(path, `Cannot use ${what}: a list is expected`);
  if (value.length > MAX_SERVICES) {
    throw new DesiredError(path, `Cannot use ${value.length} ${what}: at most ${MAX_SERVICES} may be`);
  }
  return value;
}

/** One thing, or a list of them, each with its place; nothing where there is nothing. */
function listOf(value: unknown, path: Path): readonly (readonly [Path, unknown])[] {
  if (value === undefined) return [];
  return isList(value) ? value.map((item, i) => [[...path, i], item] as const) : [[path, value]];
}

function text(value: unknown, path: Path): string | undefined {
  if (value === undefined || typeof value === "string") return value;
  if (typeof value === "number" && Number.isFinite(value)) return String(value);
  throw new DesiredError(path, `Cannot use ${JSON.stringify(value)} here: a text or a number is expected`);
}

function texts(value: unknown, path: Path): readonly string[] | undefined {
  if (value === undefined) return undefined;
  return listOf(value, path).map(([place, item]) => text(item, place) ?? "");
}

function flag(value: unknown, path: Path): boolean | undefined {
  if (value === undefined || typeof value === "boolean") return value;
  throw new DesiredError(path, `Cannot use ${JSON.stringify(value)} here: true or false is expected`);
}

function isList(value: unknown): value is readonly unknown[] {
  return Array.isArray(value);
}

function collide(a: ExportSpec, b: ExportSpec): boolean {
  return a.network === b.network && a.listen.address === b.listen.address &&
    portsOverlap(a.listen.ports, b.listen.ports);
}

// To values

/** What is the default is not said. */
function importConfig(spec: ImportSpec): JsonObject {
  const { network, ports, backends, check, priority, weight, subnets, allowLocal, state } = spec;
  const own = portsOfBackends(backends).map(formatPortRange);
  const said = ports.map(formatPortRange);
  const defaultCheck = formatCheck(defaultCheckOf(ports));
  const saidCheck = formatCheck(check);
  return {
    to: backends.map((backend) => formatBackend(backend, network)),
    ...network === HOST_NETWORK_NAME ? {} : { network },
    ...own.join() === said.join() ? {} : { port: said },
    ...priority === 0 ? {} : { priority },
    ...weight === 1 ? {} : { weight },
    ...saidCheck === defaultCheck ? {} : { check: saidCheck },
    ...subnets.length === 0 ? {} : { subnets: subnets.map(formatCidr) },
    ...allowLocal ? { "allow-local": true } : {},
    ...state === "active" ? {} : { state },
  };
}

function exportConfig({ port, network, listen, allow, dns, force }: ExportSpec): JsonObject {
  return {
    listen: formatListen(listen),
    ...port === undefined ? {} : { port },
    ...network === HOST_NETWORK_NAME ? {} : { network },
    ...allow === undefined ? {} : { allow: allow.map(formatCidr) },
    ...dns ? { dns } : {},
    ...force ? { force } : {},
  };
}

function networkConfig({ interfaces, isolated }: NetworkSpec): Json {
  if (isolated) return { interfaces, isolated };
  return interfaces.length === 1 ? interfaces[0]! : interfaces;
}

// Differences

function missing<T>(before: readonly T[], after: readonly T[], keyOf: (item: T) => string): readonly T[] {
  const keys = new Set(after.map(keyOf));
  return before.filter((item) => !keys.has(keyOf(item)));
}

function differing<T>(
  before: readonly T[],
  after: readonly T[],
  keyOf: (item: T) => string,
  textOf: (item: T) => string,
): readonly { readonly before: T | undefined; readonly after: T }[] {
  const known = new Map(before.map((item) => [keyOf(item), item]));
  return after
    .map((item) => ({ before: known.get(keyOf(item)), after: item }))
    .filter((pair) => pair.before === undefined || textOf(pair.before) !== textOf(pair.after));
}

function removal(before: NetworkSpec): Change {
  return { type: "removeNetwork", before };
}

function nameOf({ name }: { readonly name: string }): string {
  return name;
}

function exportKey({ name, network, listen }: ExportSpec): string {
  return `${name} ${network} ${formatListen(listen)}`;
}

function networkText(network: NetworkSpec): string {
  return JSON.stringify(networkConfig(network));
}

function importText(spec: ImportSpec): string {
  return JSON.stringify(importConfig(spec));
}

function exportText(spec: ExportSpec): string {
  return JSON.stringify(exportConfig(spec));
}

function usesNetwork(spec: ImportSpec | ExportSpec, name: string): boolean {
  return spec.network === name || "backends" in spec && spec.backends.some(({ network }) => network === name);
}

// For people

function renderChange(change: Change): readonly string[] {
  switch (change.type) {
    case "removeExport":
      return [`- ${exportTitle(change.before)}`];
    case "removeImport":
      return [`- import ${change.before.name}`];
    case "removeNetwork":
      return [`- network ${change.before.name}`];
    case "setNetwork":
      return renderSet(`network ${change.after.name}`, change, (network) => {
        const { interfaces, isolated } = network;
        return { interfaces, isolated };
      });
    case "setImport":
      return renderSet(`import ${change.after.name}`, change, importConfig);
    case "setExport":
      return renderSet(exportTitle(change.after), change, (spec) => {
        const { listen: _, network: _network, ...rest } = exportConfig(spec);
        return rest;
      });
  }
}

function exportTitle({ name, network, listen }: ExportSpec): string {
  return `export ${name} at ${formatListen(listen)} on network ${network}`;
}

function renderSet<T>(
  title: string,
  { before, after }: { readonly before: T | undefined; readonly after: T },
  configOf: (item: T) => JsonObject,
): readonly string[] {
  const now = configOf(after);
  const then = before === undefined ? {} : configOf(before);
  const keys = [...new Set([...Object.keys(then), ...Object.keys(now)])];
  const lines = keys.flatMap((key) => {
    const [was, is] = [renderValue(then[key]), renderValue(now[key])];
    if (was === is) return [];
    return [before === undefined ? `    ${key}: ${is}` : `    ${key}: ${was} -> ${is}`];
  });
  return [`${before === undefined ? "+" : "~"} ${title}`, ...lines];
}

function renderValue(value: Json | undefined): string {
  if (value === undefined) return "(default)";
  return Array.isArray(value)
    ? value.map(renderValue).join(", ")
    : typeof value === "object"
    ? writeJson(value)
    : `${value}`;
}
