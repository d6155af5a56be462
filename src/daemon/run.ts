/** `run`: starts a container of Docker, then attaches it. */
import { OperationError } from "../lib/errors.ts";
import { dockerRun } from "../host/docker.ts";
import { attach, type AttachOptions, type AttachResult } from "./attach.ts";

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
  try {
    return await attach({ ...rest, container: id });
  } catch (error) {
    const { message, exitStatus = 1 } = error as { message: string; exitStatus?: number };
    throw new OperationError(`Container ${id} runs, but is not attached: ${message}`, exitStatus, { cause: error });
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
