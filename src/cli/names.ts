/** Commands about names. */
import type { ApiClient } from "../api/client.ts";
import { RouterAbsentError } from "../lib/errors.ts";
import { parseEndpoint } from "../lib/ip.ts";
import type { Input } from "./command.ts";
import { type DNS_NAME_OPTIONS, noWords, type QUERY_OPTIONS } from "./commands.ts";
import { UsageError } from "./parse.ts";
import { routerClient } from "./router_client.ts";

const EXTERN_ID = "weave:extern";
const DNS_PORT = 53;
const NOT_FOUND = 404;

export function dnsAdd(input: Input<typeof DNS_NAME_OPTIONS>): Promise<number> {
  return changeNames("PUT", input);
}

export function dnsRemove(input: Input<typeof DNS_NAME_OPTIONS>): Promise<number> {
  return changeNames("DELETE", input);
}

/** As Weave Net does: what the router refuses is said, and is no failure of the command. */
async function changeNames(method: "PUT" | "DELETE", input: Input<typeof DNS_NAME_OPTIONS>): Promise<number> {
  const { words, values, given, terminal } = input;
  const [name, another] = values.hostname;
  if (another !== undefined) throw new UsageError("One name expected");
  // Without a name to give, the last word can only be a container: Docker lets one be called like an address.
  const { addresses, container } = addressesAndContainer(words, { container: method === "PUT" && name === undefined });
  const bare = addresses.length === 0 && values.record.length === 0;
  if (container === undefined && (bare || method === "PUT" && name === undefined)) throw new UsageError("");
  const client = await routerClient(given, terminal);
  await client.request("GET", "/domain").catch(absent);
  const target = container === undefined ? undefined : await findTarget(container);
  const fqdn = name ?? (method === "PUT" ? target?.fqdn : undefined);
  if (method === "PUT" && fqdn === undefined) return 0; // it has no domain
  const chosen = bare ? await target!.addresses() : addresses;
  const id = encodeURIComponent(target?.id ?? EXTERN_ID);
  const query = new URLSearchParams(fqdn === undefined ? {} : { fqdn });
  if (method === "PUT" && target?.checkAlive === true) query.set("check-alive", "true");
  const changes = [
    ...chosen.map((address) => ({ path: `/name/${id}/${encodeURIComponent(address)}`, query })),
    ...values.record.map((record) => {
      const whole = new URLSearchParams(query);
      whole.set("record", record);
      return { path: `/record/${id}`, query: whole };
    }),
  ];
  for (const { path, query } of changes) {
    const { status, body } = await client.request(method, path, { query });
    if (status >= 300 && status !== NOT_FOUND) terminal.warn(body.trimEnd() || `The router answered ${status}`);
  }
  return 0;
}

/** Addresses come first; what is left is the container. */
function addressesAndContainer(
  words: readonly string[],
  expected: { readonly container: boolean },
): { addresses: readonly string[]; container?: string } {
  const isAddress = (word: string) =>
    /^\d+\.\d+\.\d+\.\d+$/.test(word) || /^[0-9a-f]*:[0-9a-f:.]*$/i.test(word) && !/^pid:/.test(word);
  const last = words.at(-1);
  if (last === undefined || isAddress(last) && !expected.container) {
    if (!words.every(isAddress)) throw new UsageError("Addresses come before the container");
    return { addresses: words };
  }
  const addresses = words.slice(0, -1);
  if (!addresses.every(isAddress)) throw new UsageError("Addresses come before the container");
  return { addresses, container: last };
}

async function findTarget(container: string) {
  const { findNameTarget } = await import("../daemon/name_target.ts");
  return await findNameTarget(container);
}

export async function dnsLookup({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const [name, more] = words;
  if (name === undefined || more !== undefined) throw new UsageError("");
  const addresses = await lookup(name, { given, terminal });
  if (values.json) terminal.printLine(JSON.stringify(addresses));
  else for (const address of addresses) terminal.printLine(address);
  return 0;
}

/** Where no container could ask, the router itself is asked. */
async function lookup(
  name: string,
  { given, terminal }: Pick<Input, "given" | "terminal">,
): Promise<readonly string[]> {
  const told = Deno.env.get("DNS_ADDRESS");
  const client = told ? undefined : await routerClient(given, terminal);
  const address = told || await client!.ask("GET", "/dns-address-port").catch(absent);
  const server = parseEndpoint(address.includes(":") ? address : `${address}:${DNS_PORT}`);
  if (server === undefined) {
    const body = await client!.ask("GET", `/name/${encodeURIComponent(name)}`);
    return body.split("\n").filter((line) => line !== "");
  }
  const { queryAddresses } = await import("../daemon/dns_query.ts");
  return await queryAddresses(server, name);
}

export async function dnsArgs({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  const dns = await dnsOf(await routerClient(given, terminal));
  if (values.json) terminal.printLine(JSON.stringify(dns?.dockerArguments ?? []));
  else terminal.print(dns?.dockerArguments.join(" ") ?? "");
  return 0;
}

export interface DockerDns {
  /** For `docker run`. */
  readonly dockerArguments: readonly string[];
  readonly domain: string;
}

/** What a container of Docker needs to know; undefined where it could ask nobody. */
export async function dnsOf(client: ApiClient | undefined): Promise<DockerDns | undefined> {
  const ask = async (variable: string, path: string) => {
    const told = Deno.env.get(variable);
    if (told) return told;
    const { status, body } = await client?.request("GET", path) ?? { status: NOT_FOUND, body: "" };
    return status === 200 && body !== "" ? body : undefined;
  };
  const domain = await ask("DNS_DOMAIN", "/domain");
  const address = domain === undefined ? undefined : await ask("DNS_ADDRESS", "/dns-address");
  if (domain === undefined || address === undefined) return undefined;
  return { dockerArguments: [`--dns=${address.replace(/:\d+$/, "")}`, `--dns-search=${domain}`], domain };
}

/** These commands exit with 1 where there is no router. */
function absent(error: unknown): never {
  if (error instanceof RouterAbsentError) throw new RouterAbsentError(1, { cause: error });
  throw error;
}
