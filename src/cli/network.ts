/** Commands about networks: where interfaces of this host lead. */
import type { NetworkJson } from "../api/service_types.ts";
import { parseNetwork } from "../config/service_options.ts";
import { OptionError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import { type ADD_NETWORK_OPTIONS, noWords, type QUERY_OPTIONS } from "./commands.ts";
import { routerClient } from "./router_client.ts";
import { ask, change, columns, formOf, oneName } from "./service.ts";

export async function add(input: Input<typeof ADD_NETWORK_OPTIONS>): Promise<number> {
  const given = oneName(input.words);
  const network = parseNetwork(given);
  if (typeof network === "string") throw new OptionError(`Cannot use "${given}" as network: ${network}`);
  const { name, interfaces } = network;
  const { isolated, force } = input.values;
  const form = formOf({ interface: interfaces, isolated: network.isolated || isolated, force });
  return await change(input, "POST", `/network/${encodeURIComponent(name)}`, { form });
}

export async function remove(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  return await change(input, "DELETE", `/network/${encodeURIComponent(oneName(input.words))}`);
}

export async function list({ words, values, given, terminal }: Input<typeof QUERY_OPTIONS>): Promise<number> {
  noWords(words);
  const body = await ask(await routerClient(given, terminal), "/network");
  if (values.json) terminal.printLine(body.trimEnd());
  else for (const line of columns((JSON.parse(body) as NetworkJson[]).map(row))) terminal.printLine(line);
  return 0;
}

function row({ name, interfaces, isolated, warnings }: NetworkJson): readonly string[] {
  return [name, interfaces.join(",") || "-", isolated ? "isolated" : "", ...warnings].filter((cell, i) =>
    i < 2 || cell !== ""
  );
}
