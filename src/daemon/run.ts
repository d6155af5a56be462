/** `run`, `start` and `restart`: containers of Docker that are attached as they start. */
import { dockerCommand, type DockerContainer, dockerRun, inspectContainer } from "../host/docker.ts";
import { parseContainerReference } from "../host/netns.ts";
import { OperationError, OptionError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import { askEngineFor } from "../host/docker_api.ts";
import { installHelper } from "../host/helper.ts";
import { readInspected, RUN_LABEL, wishOf } from "../proxy/container.ts";
import { formatAddressToken } from "./address_book.ts";
import { attach, type AttachOptions, type AttachResult } from "./attach.ts";
import { readAddresses } from "./container_attacher.ts";
import { avoidOwnProxy } from "./own_proxy.ts";
import { ps } from "./ps.ts";
import { refuseNetworkMode } from "./target.ts";
import { whileHolding } from "./holding.ts";

export interface RunOptions extends Omit<AttachOptions, "container" | "hostname"> {
  /** Arguments for `docker run`, image and command included, without `-d`. */
  readonly dockerArguments: readonly string[];
  /** What DNS adds, once there is one: arguments such as `--dns=…`, and the domain that makes a name an FQDN. */
  readonly dns?: { readonly dockerArguments: readonly string[]; readonly domain: string };
}

/** `id` of the result is the full container id, all that the command prints. Its process starts when its network is there. */
export async function run(options: RunOptions): Promise<AttachResult> {
  const { dockerArguments, dns, ...rest } = options;
  avoidOwnProxy([]);
  const helper = await installHelper();
  const args = planRun(dockerArguments, {
    dns: rest.withoutDns === true ? undefined : dns,
    held: helper === undefined ? undefined : options,
  });
  if (helper === undefined) return await attachStarted({ ...rest, container: await dockerRun(args) });
  const folder = rest.noMulticastRoute === true ? helper.waitsForLink : helper.waits;
  const id = await whileHolding({ ...helper, waits: folder }, (host) => dockerRun(args, { host }));
  try {
    return await attach({ ...rest, container: id });
  } catch (error) {
    if (await hasRun(id)) return { id, addresses: [] };
    // Nobody waits for ever.
    const killed = await dockerCommand(["kill", id]).then(() => "was killed", () => "does not run");
    const { message, exitStatus = 1 } = error as { message: string; exitStatus?: number };
    throw new OperationError(`Container ${id} ${killed}: it cannot be attached: ${message}`, exitStatus, {
      cause: error,
    });
  }
}

/** What holds a process ends by signals alone: one that ended otherwise, or was removed by its end, was let go by the router and is done. */
async function hasRun(id: string): Promise<boolean> {
  const { running, exitCode } = await inspectContainer(id).catch(() => ({ running: false, exitCode: 0 }));
  return !running && exitCode < FIRST_SIGNAL;
}

const FIRST_SIGNAL = 128;

export type StartOptions = Pick<AttachOptions, "container" | "addresses" | "book" | "progress" | "host">;

/** `start`: what Docker knows and does not run is started, then attached. */
export async function start(options: StartOptions): Promise<AttachResult> {
  const { id } = await inspectConnectable(options.container);
  await dockerCommand(["start", options.container]);
  return await attachStarted({ ...await ownWishes(id, options), container: id });
}

/** A container that is attached at each start was told with what when it was made; addresses that are named come on top. */
async function ownWishes(id: string, options: StartOptions): Promise<Omit<AttachOptions, "container">> {
  const container = readInspected(await askEngineFor(`/containers/${id}/json`));
  if (container?.ours !== true) return options;
  const wish = wishOf(container, { noDefaultIpalloc: false });
  const { switches = [] } = container;
  return {
    ...options,
    addresses: wish.attach && options.addresses.length === 0 ? readAddresses(wish.addresses) : options.addresses,
    withoutDns: switches.includes("without-dns"),
    noMulticastRoute: switches.includes("no-multicast-route"),
  };
}

/** `restart`: the container has the addresses afterwards that it had, none if it had none. */
export async function restart(options: Omit<StartOptions, "addresses">): Promise<AttachResult> {
  const { id } = await inspectConnectable(options.container);
  const had = await addressesOf(id, options);
  await dockerCommand(["restart", options.container]);
  if (had.length === 0) return { id, addresses: [] };
  const addresses = had.map((cidr) => ({ kind: "given", cidr }) as const);
  return await attachStarted({ ...await ownWishes(id, { ...options, addresses }), container: id });
}

async function inspectConnectable(reference: string): Promise<DockerContainer> {
  const parsed = parseContainerReference(reference);
  if (parsed.kind !== "docker") {
    throw new OptionError(`Cannot start "${reference}": a container of Docker expected`);
  }
  const container = await inspectContainer(parsed.name);
  refuseNetworkMode(container);
  return container;
}

/** What is on its links; of one that died, what is still kept for it. */
async function addressesOf(id: string, { book, host }: Pick<StartOptions, "book" | "host">): Promise<readonly Cidr[]> {
  const entries = await ps({ containers: [id], ...(host === undefined ? {} : { host }) });
  if (entries.length > 0) return entries.flatMap(({ addresses }) => addresses);
  const held = await book.lookup(id, undefined);
  return typeof held === "string" ? [] : held;
}

async function attachStarted(options: AttachOptions): Promise<AttachResult> {
  try {
    return await attach(options);
  } catch (error) {
    const { message, exitStatus = 1 } = error as { message: string; exitStatus?: number };
    throw new OperationError(`Container ${options.container} runs, but is not attached: ${message}`, exitStatus, {
      cause: error,
    });
  }
}

export interface RunPlan {
  readonly dns: RunOptions["dns"];
  /** What the router is to do whenever it starts again; undefined: nothing, as it is not held. */
  readonly held: Pick<RunOptions, "addresses" | "withoutDns" | "rewriteHosts" | "noMulticastRoute"> | undefined;
}

/** Arguments for `docker run -d`; a name given becomes a hostname in the domain. @throws OptionError for another's namespace */
export function planRun(dockerArguments: readonly string[], { dns, held }: RunPlan): string[] {
  const network = optionValue(dockerArguments, ["--net", "--network"]) ?? "";
  if (network === "host" || network.startsWith("container:")) {
    throw new OptionError(
      `Cannot run a container with --net=${network}: it has no network of its own that could be connected to weave`,
    );
  }
  const added = ["-e", `WEAVE_CIDR=${held === undefined ? "none" : held.addresses.map(formatAddressToken).join(" ")}`];
  if (held !== undefined) {
    const switches = [
      ...held.withoutDns === true ? ["without-dns"] : [],
      ...held.rewriteHosts === true ? [] : ["no-rewrite-hosts"],
      ...held.noMulticastRoute === true ? ["no-multicast-route"] : [],
    ];
    added.push("--label", `${RUN_LABEL}=${switches.join(" ")}`);
  }
  added.push(...dns?.dockerArguments ?? []);
  const name = optionValue(dockerArguments, ["--name"]);
  if (dns !== undefined && name !== undefined && optionValue(dockerArguments, ["-h", "--hostname"]) === undefined) {
    added.push(`--hostname=${name}.${dns.domain.replace(/\.$/, "")}`);
  }
  return [...added, ...dockerArguments];
}

/** Value of an option wherever it stands; options of the program inside the container, after the image, may be taken for one. */
function optionValue(args: readonly string[], names: readonly string[]): string | undefined {
  for (const [i, arg] of args.entries()) {
    if (names.includes(arg)) return args[i + 1];
    const name = names.find((n) =>
      n.startsWith("--") ? arg.startsWith(`${n}=`) : arg.startsWith(n) && arg.length > 2 && !arg.startsWith("--")
    );
    if (name !== undefined) return name.startsWith("--") ? arg.slice(name.length + 1) : arg.slice(name.length);
  }
  return undefined;
}
