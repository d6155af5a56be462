/** `run`, `start` and `restart`: containers of Docker that are attached as they start. */
import { dockerCommand, type DockerContainer, dockerRun, inspectContainer } from "../host/docker.ts";
import { parseContainerReference } from "../host/netns.ts";
import { OperationError, OptionError } from "../lib/errors.ts";
import type { Cidr } from "../lib/ip.ts";
import { attach, type AttachOptions, type AttachResult } from "./attach.ts";
import { ps } from "./ps.ts";
import { refuseNetworkMode } from "./target.ts";

export interface RunOptions extends Omit<AttachOptions, "container" | "hostname"> {
  /** Arguments for `docker run`, image and command included, without `-d`. */
  readonly dockerArguments: readonly string[];
  /** What DNS adds, once there is one: arguments such as `--dns=…`, and the domain that makes a name an FQDN. */
  readonly dns?: { readonly dockerArguments: readonly string[]; readonly domain: string };
}

/** `id` of the result is the full container id, all that the command prints. */
export async function run(options: RunOptions): Promise<AttachResult> {
  const { dockerArguments, dns, ...rest } = options;
  const id = await dockerRun(planRun(dockerArguments, rest.withoutDns === true ? undefined : dns));
  return await attachStarted({ ...rest, container: id });
}

export type StartOptions = Pick<AttachOptions, "container" | "addresses" | "book" | "progress" | "host">;

/** `start`: what Docker knows and does not run is started, then attached. */
export async function start(options: StartOptions): Promise<AttachResult> {
  const { id } = await inspectConnectable(options.container);
  await dockerCommand(["start", options.container]);
  return await attachStarted({ ...options, container: id });
}

/** `restart`: the container has the addresses afterwards that it had, none if it had none. */
export async function restart(options: Omit<StartOptions, "addresses">): Promise<AttachResult> {
  const { id } = await inspectConnectable(options.container);
  const had = await addressesOf(id, options);
  await dockerCommand(["restart", options.container]);
  if (had.length === 0) return { id, addresses: [] };
  const addresses = had.map((cidr) => ({ kind: "given", cidr }) as const);
  return await attachStarted({ ...options, addresses, container: id });
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

/** Arguments for `docker run -d`: the proxy keeps its hands off, and a name given becomes a hostname in the domain. */
export function planRun(dockerArguments: readonly string[], dns: RunOptions["dns"]): string[] {
  const added = ["-e", "WEAVE_CIDR=none", ...(dns?.dockerArguments ?? [])];
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
