/** From what the user calls a container to the namespace it lives in. */
import { OperationError } from "../lib/errors.ts";
import { type DockerContainer, fqdnOf, inspectContainer } from "../host/docker.ts";
import { isOwnNetns, type Netns, netnsId, parseContainerReference, statNetns, vethNames } from "../host/netns.ts";

/** A container that can be attached or detached now. */
export interface Target {
  /** Owner of its addresses: full id of Docker, or `netns-<device>-<inode>`. */
  readonly id: string;
  readonly netns: Netns;
  /** What to call the host end of its link; the second where the first is taken. */
  readonly linkNames: readonly string[];
  /** Its own name with domain, as far as known. */
  readonly fqdn: string | undefined;
  readonly docker: DockerContainer | undefined;
}

export interface FindOptions {
  /** Takes a container that lives in another's namespace as well: to look at, not to change. */
  readonly shared?: boolean;
}

/** Rejects with the wordings of Weave Net 2.8. */
export async function findTarget(reference: string, { shared = false }: FindOptions = {}): Promise<Target> {
  const parsed = parseContainerReference(reference);
  switch (parsed.kind) {
    case "docker": {
      const docker = await inspectContainer(parsed.name);
      if (!docker.running || docker.pid === 0) throw new OperationError(`container ${docker.id} not running`);
      if (!shared || docker.networkMode === "host") refuseNetworkMode(docker);
      const netns = statNetns(`/proc/${docker.pid}/ns/net`);
      if (netns === undefined) throw died(docker.id);
      return checked({ id: docker.id, netns, linkNames: linkNames(netns, docker.pid), fqdn: fqdnOf(docker), docker });
    }
    case "pid": {
      const netns = statNetns(`/proc/${parsed.pid}/ns/net`);
      if (netns === undefined) throw new OperationError(`container ${reference} not running`);
      const names = linkNames(netns, parsed.pid);
      return checked({ id: netnsId(netns), netns, linkNames: names, fqdn: undefined, docker: undefined });
    }
    case "netns": {
      const netns = statNetns(parsed.path);
      if (netns === undefined) {
        throw new OperationError(`Cannot use "${reference}" as container: no network namespace there`);
      }
      return checked({ id: netnsId(netns), netns, linkNames: linkNames(netns), fqdn: undefined, docker: undefined });
    }
    default:
      return parsed satisfies never;
  }
}

/** The container's first process ended while we worked on it. */
export function died(id: string): OperationError {
  return new OperationError(`Container ${id} died`);
}

/** Refuses a container without a network namespace of its own, running or not. */
export function refuseNetworkMode({ id, networkMode }: Pick<DockerContainer, "id" | "networkMode">): void {
  if (networkMode === "host") throw hostNetwork();
  const owner = /^container:(.*)$/.exec(networkMode)?.[1];
  if (owner === undefined) return;
  throw new OperationError(
    `Container ${id.slice(0, 12)} is running in the network namespace of container ${
      owner.slice(0, 12)
    }, and therefore cannot be\n` +
      `connected to weave by itself. Connect ${owner.slice(0, 12)} instead: both then have its addresses.`,
  );
}

function checked(target: Target): Target {
  if (isOwnNetns(target.netns)) throw hostNetwork();
  return target;
}

function hostNetwork(): OperationError {
  return new OperationError(
    "Container is running in the host network namespace, and therefore cannot be\n" +
      "connected to weave. Perhaps the container was started with --net=host.",
  );
}

function linkNames(netns: Netns, pid?: number): string[] {
  const byNetns = vethNames(netns).host;
  return pid === undefined ? [byNetns] : [vethNames({ pid }).host, byNetns];
}
