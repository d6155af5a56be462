/** What the host's resolv.conf says of servers. */
import { type Ipv4, parseIpv4 } from "../lib/ip.ts";

/** Further ones are as good as none. */
const MAX_SERVERS = 8;

/** Its servers in their order, each once; those with an IPv6 address are left out. */
export function parseResolvConf(text: string): readonly Ipv4[] {
  const servers = new Set<Ipv4>();
  for (const line of text.split("\n")) {
    const [keyword, address] = line.trim().split(/\s+/);
    const server = keyword === "nameserver" && address !== undefined ? parseIpv4(address) : undefined;
    if (server !== undefined && servers.size < MAX_SERVERS) servers.add(server);
  }
  return [...servers];
}
