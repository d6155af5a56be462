/** Whose names `dns-add` and `dns-remove` mean, and what is not said about them. */
import { formatIpv4 } from "../lib/ip.ts";
import { HOST, Plumbing } from "./plumbing.ts";
import { ps } from "./ps.ts";
import { findTarget } from "./target.ts";

export interface NameTarget {
  /** Full id. */
  readonly id: string;
  /** Docker says whether it runs. */
  readonly checkAlive: boolean;
  /** Its own name with domain, where it has one. */
  readonly fqdn: string | undefined;
  /** Its addresses in the network. */
  addresses(): Promise<readonly string[]>;
}

/** Rejects with `OperationError` for a container that is unknown or does not run. */
export async function findNameTarget(container: string): Promise<NameTarget> {
  const { id, fqdn, docker } = await findTarget(container);
  const attachment = docker === undefined
    ? (await new Plumbing(HOST).attachments()).find((one) => one.id === id)
    : undefined;
  return {
    id,
    checkAlive: docker !== undefined,
    fqdn: fqdn ?? attachment?.hostname,
    async addresses() {
      const entries = await ps({ containers: [container] });
      return entries.flatMap((entry) => entry.addresses.map(({ address }) => formatIpv4(address)));
    },
  };
}
