/** Commands that plug containers and the host into the network: they do it in this process, as root. */
import { ApiAddressBook } from "../api/client.ts";
import { type AddressToken, parseAddressToken } from "../daemon/address_book.ts";
import { OptionError } from "../lib/errors.ts";
import { type Cidr, formatCidr, formatIpv4 } from "../lib/ip.ts";
import { formatMac } from "../lib/mac.ts";
import type { Input } from "./command.ts";
import type { ATTACH_OPTIONS, EXPOSE_OPTIONS, PS_OPTIONS, QUERY_OPTIONS, RUN_OPTIONS } from "./commands.ts";
import { UsageError } from "./parse.ts";
import { findRouterClient } from "./router_client.ts";
import type { Terminal } from "./terminal.ts";

export async function attach(input: Input<typeof ATTACH_OPTIONS>): Promise<number> {
  const { values, terminal } = input;
  const operation = await import("../daemon/attach.ts");
  const { id, addresses } = await operation.attach({
    ...addressesAndContainer(input.words),
    book: await addressBook(input),
    withoutDns: values.withoutDns,
    noMulticastRoute: values.noMulticastRoute,
    rewriteHosts: values.rewriteHosts,
    addHosts: values.addHost,
    progress: terminal,
    ...(values.hostname === undefined ? {} : { hostname: values.hostname }),
  });
  printAddresses(addresses, { id }, input);
  return 0;
}

export async function detach(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const operation = await import("../daemon/attach.ts");
  const { id, addresses } = await operation.detach({
    ...addressesAndContainer(input.words),
    book: await addressBook(input),
    progress: input.terminal,
  });
  printAddresses(addresses, { id }, input);
  return 0;
}

export async function expose(input: Input<typeof EXPOSE_OPTIONS>): Promise<number> {
  const { values, words, terminal } = input;
  const [fqdn, another] = values.hostname;
  if (another !== undefined) throw new UsageError("One name expected");
  const addresses = words.map(readToken);
  const operation = await import("../daemon/expose.ts");
  const exposed = await operation.expose({
    addresses,
    book: await addressBook(input),
    withoutMasquerade: values.withoutMasquerade,
    progress: terminal,
    ...(fqdn === undefined ? {} : { fqdn }),
  });
  printAddresses(exposed, {}, input);
  return 0;
}

export async function hide(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const addresses = input.words.map(readToken);
  const operation = await import("../daemon/expose.ts");
  const hidden = await operation.hide({ addresses, book: await addressBook(input), progress: input.terminal });
  printAddresses(hidden, {}, input);
  return 0;
}

export async function run(input: Input<typeof RUN_OPTIONS>): Promise<number> {
  const { values, words, rest, terminal } = input;
  if (rest.length === 0) throw new UsageError("");
  const operation = await import("../daemon/run.ts");
  const { dnsOf } = await import("./names.ts");
  const client = await findRouterClient(input.given, terminal);
  // A given address needs no router, and then there is no DNS either.
  const dns = values.withoutDns ? undefined : await dnsOf(client).catch(() => undefined);
  const { id, addresses } = await operation.run({
    addresses: words.map(readToken),
    dockerArguments: rest,
    book: await addressBook(input),
    ...(dns === undefined ? {} : { dns }),
    withoutDns: values.withoutDns,
    noMulticastRoute: values.noMulticastRoute,
    rewriteHosts: !values.noRewriteHosts,
    progress: terminal,
  });
  terminal.printLine(values.json ? JSON.stringify({ id, addresses: addresses.map(formatCidr) }) : id);
  return 0;
}

/** Prints what `docker start` prints: the container as it was named. */
export async function start(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const { addresses, container } = addressesAndContainer(input.words);
  const operation = await import("../daemon/run.ts");
  const started = await operation.start({
    addresses,
    container,
    book: await addressBook(input),
    progress: input.terminal,
  });
  printStarted(container, started, input);
  return 0;
}

export async function restart(input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  const [container, more] = input.words;
  if (container === undefined || more !== undefined) throw new UsageError("");
  const operation = await import("../daemon/run.ts");
  const started = await operation.restart({ container, book: await addressBook(input), progress: input.terminal });
  printStarted(container, started, input);
  return 0;
}

function printStarted(
  container: string,
  { id, addresses }: { readonly id: string; readonly addresses: readonly Cidr[] },
  { values, terminal }: Input<typeof QUERY_OPTIONS>,
): void {
  terminal.printLine(values.json ? JSON.stringify({ id, addresses: addresses.map(formatCidr) }) : container);
}

export async function ps({ words, values, terminal }: Input<typeof PS_OPTIONS>): Promise<number> {
  const operation = await import("../daemon/ps.ts");
  const entries = await operation.ps({ containers: words });
  if (values.json) {
    const plain = entries.map(({ label, id, mac, addresses }) => ({
      label,
      id,
      mac: formatMac(mac),
      addresses: addresses.map(formatCidr),
    }));
    terminal.printLine(JSON.stringify(plain));
  } else for (const entry of entries) terminal.printLine(operation.formatPsEntry(entry));
  return 0;
}

/** The last word is the container, all before it are addresses. */
export function addressesAndContainer(words: readonly string[]): { addresses: AddressToken[]; container: string } {
  const container = words.at(-1);
  if (container === undefined) throw new UsageError("");
  if (parseAddressToken(container) !== undefined) throw new UsageError("No container is named");
  return { addresses: words.slice(0, -1).map(readToken), container };
}

function readToken(word: string): AddressToken {
  const token = parseAddressToken(word);
  if (token === undefined) {
    throw new OptionError(
      `Cannot use "${word}" as address: an address and its prefix length expected, such as 10.0.0.1/24`,
    );
  }
  return token;
}

async function addressBook({ given, terminal }: Pick<Input, "given" | "terminal">): Promise<ApiAddressBook> {
  return new ApiAddressBook(await findRouterClient(given, terminal));
}

/** Without prefix length, as scripts expect them; an empty line where there are none. */
function printAddresses(
  addresses: readonly Cidr[],
  more: { readonly id?: string },
  { values, terminal }: { readonly values: { readonly json: boolean }; readonly terminal: Terminal },
): void {
  terminal.printLine(
    values.json
      ? JSON.stringify({ ...more, addresses: addresses.map(formatCidr) })
      : addresses.map(({ address }) => formatIpv4(address)).join(" "),
  );
}
