/** The `/etc/hosts` of a container, so that it finds itself by its overlay address. */
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { OptionError } from "../lib/errors.ts";

export interface HostsContent {
  readonly addresses: readonly Ipv4[];
  readonly hostname: string;
  readonly domainname: string;
  /** `name:ip`, as for `docker run --add-host`. */
  readonly addHosts: readonly string[];
}

/** Text of the file. */
export function formatHosts(content: HostsContent): string {
  const domain = content.domainname.replace(/\.$/, "");
  const names = domain === "" ? content.hostname : `${content.hostname}.${domain} ${content.hostname}`;
  const extra = content.addHosts.map(parseAddHost);
  return [
    "# created by Weave - BEGIN",
    "# container hostname",
    ...content.addresses.map((address) => line(formatIpv4(address), names)),
    "",
    "# static names added with --add-host",
    ...extra.map(({ name, address }) => line(address, name)),
    "",
    "# default localhost entries",
    line("127.0.0.1", "localhost"),
    line("::1", "ip6-localhost ip6-loopback"),
    line("fe00::0", "ip6-localnet"),
    line("ff00::0", "ip6-mcastprefix"),
    line("ff02::1", "ip6-allnodes"),
    line("ff02::2", "ip6-allrouters"),
    "# created by Weave - END",
    "",
  ].join("\n");
}

/** Splits `name:ip` at the first colon: the address may be IPv6. */
export function parseAddHost(text: string): { name: string; address: string } {
  const m = /^([^\s:#]+):([0-9A-Fa-f.:]+)$/.exec(text);
  if (m === null) throw new OptionError(`Cannot use "${text}" as add-host: name:ip expected`, "add-host");
  return { name: m[1]!, address: m[2]! };
}

/**
 * Gives a hosts file its content twice: into the file that the running container has mounted, and into a new one of that
 * name. Docker then goes on to manage the new one, which the container does not see.
 */
export async function replaceHosts(path: string, text: string): Promise<void> {
  const { mode } = await Deno.stat(path);
  await Deno.writeTextFile(path, text, { create: false });
  const temporary = `${path}.weave`;
  await Deno.writeTextFile(temporary, text, { mode: mode === null ? 0o644 : mode & 0o777 });
  await Deno.rename(temporary, path);
}

function line(address: string, names: string): string {
  return `${address.padEnd(15)} ${names}`;
}
