/** Commands about services. What their words mean the router says; here they are handed over, and what comes back is put into columns. */
import type { ServiceJson } from "../api/service_types.ts";
import type { ApiClient, RequestOptions } from "../api/client.ts";
import type { Answer } from "../api/exchange.ts";
import { OperationError, OptionError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import {
  type BIND_OPTIONS,
  type EXPORT_OPTIONS,
  type IMPORT_OPTIONS,
  noWords,
  type QUERY_OPTIONS,
  type REMOVE_SERVICE_OPTIONS,
} from "./commands.ts";
import { UsageError } from "./parse.ts";
import { routerClient } from "./router_client.ts";

export async function importService(input: Input<typeof IMPORT_OPTIONS>): Promise<number> {
  const { values } = input;
  const name = oneName(input.words);
  if (values.to.length === 0) throw new UsageError("Missing --to: where is it?");
  const form = formOf({
    to: values.to,
    network: values.network,
    port: values.ports,
    priority: values.priority,
    weight: values.weight,
    check: values.check,
    subnet: values.subnet,
    "allow-local": values.allowLocal,
  });
  return await change(input, "POST", `${pathOf(name)}/import`, { form });
}

export async function exportService(input: Input<typeof EXPORT_OPTIONS>): Promise<number> {
  const { values } = input;
  const name = oneName(input.words);
  if (values.listen === undefined) throw new UsageError("Missing --listen: where is it to be offered?");
  const { listen, network, allow, dns, force } = values;
  return await change(input, "POST", `${pathOf(name)}/export`, {
    form: formOf({ listen, network, allow, dns, force }),
  });
}

export async function bind(input: Input<typeof BIND_OPTIONS>): Promise<number> {
  const [name, ...to] = input.words;
  if (name === undefined || to.length === 0) throw new UsageError("");
  const form = formOf({ to, "allow-local": input.values.allowLocal });
  return await change(input, "POST", `${pathOf(name)}/bind`, { form });
}

export async function revoke(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  return await change(input, "POST", `${pathOf(oneName(input.words))}/revoke`);
}

export async function drain(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  return await change(input, "POST", `${pathOf(oneName(input.words))}/drain`);
}

export async function remove(input: Input<typeof REMOVE_SERVICE_OPTIONS>): Promise<number> {
  const [name, listen, more] = input.words;
  if (name === undefined || more !== undefined) throw new UsageError("");
  if (listen !== undefined && !input.values.exportOnly) throw new UsageError(`Unexpected argument "${listen}"`);
  const query = formOf({ export: input.values.exportOnly, listen });
  return await change(input, "DELETE", pathOf(name), { query });
}

export async function list({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  const body = await ask(await routerClient(given, terminal), "/service");
  if (values.json) terminal.printLine(body.trimEnd());
  else for (const line of columns((JSON.parse(body) as ServiceJson[]).map(listRow))) terminal.printLine(line);
  return 0;
}

export async function show({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const name = oneName(words);
  const body = await ask(await routerClient(given, terminal), pathOf(name));
  if (values.json) terminal.printLine(body.trimEnd());
  else for (const line of showLines(JSON.parse(body) as ServiceJson)) terminal.printLine(line);
  return 0;
}

/** The body of a good answer; what the router refuses is an error in its own words. */
export async function ask(client: ApiClient, path: string): Promise<string> {
  return goodBody(await client.request("GET", path, { json: true }));
}

/** Changes something, and prints what the router says to it. */
export async function change(
  { given, values, terminal }: Pick<Input<typeof QUERY_OPTIONS>, "given" | "values" | "terminal">,
  method: "POST" | "DELETE",
  path: string,
  options: RequestOptions = {},
): Promise<number> {
  const client = await routerClient(given, terminal);
  // It may wait for addresses, or for names to be looked up.
  const body = goodBody(await client.request(method, path, { ...options, json: values.json, patient: true }));
  if (body !== "") terminal.print(body.endsWith("\n") ? body : `${body}\n`);
  return 0;
}

/** What the router answers where it cannot make sense of a value. */
const MALFORMED = 400;

export function goodBody({ status, body }: Answer): string {
  if (status >= 200 && status < 300) return body;
  const message = body.trimEnd() || `The router answered ${status}`;
  throw status === MALFORMED ? new OptionError(message) : new OperationError(message);
}

export function oneName(words: readonly string[]): string {
  const [name, more] = words;
  if (name === undefined) throw new UsageError("");
  if (more !== undefined) throw new UsageError(`Unexpected argument "${more}"`);
  return name;
}

function pathOf(name: string): string {
  if (!/^[^\s/]+$/.test(name)) throw new OptionError(`Cannot use "${name}" as name of a service`);
  return `/service/${encodeURIComponent(name)}`;
}

export type Field = string | number | boolean | readonly string[] | undefined;

/** What was not given is left out. */
export function formOf(fields: Readonly<Record<string, Field>>): URLSearchParams {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(fields)) {
    if (value === undefined || value === false) continue;
    for (const one of Array.isArray(value) ? value as readonly string[] : [String(value)]) form.append(name, one);
  }
  return form;
}

// In words

function listRow({ name, ports, addresses, imports, exports, warnings }: ServiceJson): readonly string[] {
  const backends = imports.flatMap(({ backends }) => backends);
  // Of a peer out of reach nobody knows more than what it said last.
  const up = imports.filter(({ reachable }) => reachable).flatMap(({ backends }) => backends)
    .filter(({ health }) => health === "up").length;
  return [
    name,
    ports.join(",") || "-",
    addresses.map(({ address }) => address).join(",") || "-",
    backends.length === 0 ? "-" : `${up}/${backends.length} up`,
    exports.map(({ network, listen }) => `${network}:${listen}`).join(",") || "-",
    ...warnings.length === 0 ? [] : [`${warnings.length} warning${warnings.length === 1 ? "" : "s"}`],
  ];
}

function showLines({ name, ports, addresses, imports, exports, warnings }: ServiceJson): string[] {
  return [
    `${name} ${ports.join(",")}`.trimEnd(),
    ...addresses.map(({ subnet, address, holder }) => {
      const nickname = imports.find(({ owner }) => owner === holder)?.nickname;
      const who = holder === null ? "nobody" : nickname === undefined ? holder : `${holder}(${nickname})`;
      return `  address ${address} in ${subnet}, held by ${who}`;
    }),
    ...imports.flatMap((one) => [
      `  imported by ${peer(one)}, priority ${one.priority}, weight ${one.weight}, check ${one.check}${
        one.state === "active" ? "" : `, ${one.state}`
      }`,
      ...columns(
        one.backends.map(({ target, network, health, flows, reason }) => [
          `    ${target}`,
          network,
          health,
          flows === null ? "-" : `${flows} ${flows === 1 ? "flow" : "flows"}`,
          ...reason === undefined ? [] : [reason],
        ]),
      ),
    ]),
    ...exports.map((one) =>
      `  exported by ${peer(one)}${one.port === null ? "" : `, port ${one.port},`} to ${one.network} at ${one.listen}${
        one.answers ? "" : ", does not answer"
      }` +
      `${one.dns ? ", with its name" : ""}${one.allow.length === 0 ? "" : `, for ${one.allow.join(",")}`}`
    ),
    ...warnings.map((warning) => `  warning: ${warning}`),
  ];
}

function peer(
  { owner, nickname, reachable }: { readonly owner: string; readonly nickname: string; readonly reachable: boolean },
) {
  return `${owner}(${nickname})${reachable ? "" : " (unreachable)"}`;
}

/** Columns as wide as what is in them, two blanks apart. */
export function columns(rows: readonly (readonly string[])[]): string[] {
  const widths: number[] = [];
  for (const row of rows) row.forEach((cell, i) => widths[i] = Math.max(widths[i] ?? 0, cell.length));
  return rows.map((row) => row.map((cell, i) => i === row.length - 1 ? cell : cell.padEnd(widths[i]!)).join("  "));
}
