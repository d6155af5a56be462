/** What we ask of the Docker engine, at `DOCKER_HOST` or its usual socket. */
import { OperationError } from "../lib/errors.ts";
import { findProgram, run, type RunOptions } from "./command.ts";
import { askEngine, messageOf } from "./docker_api.ts";

/** A container as far as we care. */
export interface DockerContainer {
  /** 64 hexadecimal digits. */
  readonly id: string;
  /** Without the leading slash. */
  readonly name: string;
  readonly running: boolean;
  /** Of the last time it ran. */
  readonly exitCode: number;
  /** First process, in our PID namespace; 0 where it does not run. */
  readonly pid: number;
  /** As Docker has it: `default`, `bridge`, `none`, `host`, `container:ID` or a network's name; empty where it does not say. */
  readonly networkMode: string;
  readonly hostname: string;
  readonly domainname: string;
  /** The file that is mounted over its `/etc/hosts`. */
  readonly hostsPath: string | undefined;
}

/** The name a container has in DNS: its hostname with domain; undefined where it has no domain. */
export function fqdnOf({ hostname, domainname }: Pick<DockerContainer, "hostname" | "domainname">): string | undefined {
  if (domainname !== "") return `${hostname}.${domainname}`;
  return /^[^.]+\../.test(hostname) ? hostname : undefined;
}

export const SOCKET = "/var/run/docker.sock";
/** An engine that hangs must not make our commands hang. */
const TIMEOUT_MS = 30_000;

/** Whether there is an engine to ask, as far as can be said without asking. */
export function dockerIsThere(): boolean {
  const host = Deno.env.get("DOCKER_HOST");
  const path = host === undefined || host === "" ? SOCKET : /^unix:\/\/(.*)$/.exec(host)?.[1];
  if (path === undefined) return true;
  try {
    return Deno.statSync(path).isSocket === true;
  } catch {
    return false;
  }
}

/** Finds a container by id, unique prefix of an id, or name. */
export async function inspectContainer(reference: string): Promise<DockerContainer> {
  const path = `/containers/${encodeURIComponent(reference)}/json`;
  const answer = await ask(path, `unable to inspect container ${reference}`, `No such container: ${reference}`);
  return readContainer(answer, reference);
}

/** Running containers in the order of `docker ps`; those that go away meanwhile are left out. */
export async function runningContainers(): Promise<DockerContainer[]> {
  const answer = await ask("/containers/json", "Cannot list containers", "it knows no such thing");
  const ids = Array.isArray(answer) ? answer.map((c) => String((c as { Id?: unknown }).Id)) : [];
  const containers: DockerContainer[] = [];
  const AT_ONCE = 16;
  for (let at = 0; at < ids.length; at += AT_ONCE) {
    const some = await Promise.allSettled(ids.slice(at, at + AT_ONCE).map((id) => inspectContainer(id)));
    for (const result of some) {
      if (result.status === "fulfilled" && result.value.running) containers.push(result.value);
    }
  }
  return containers;
}

/** `docker run -d …` through the docker program; resolves to the full id. */
export async function dockerRun(args: readonly string[], options: DockerCommandOptions = {}): Promise<string> {
  const stdout = await dockerCommand(["run", "-d", ...args], options);
  // Pulling an image writes to stderr; what is printed is the id.
  const id = stdout.trim().split("\n").at(-1) ?? "";
  if (!/^[0-9a-f]{64}$/.test(id)) {
    throw new OperationError(`Cannot start a container: docker printed no id but "${id}"`);
  }
  return id;
}

export interface DockerCommandOptions extends RunOptions {
  /** Another engine than that of the environment, as `DOCKER_HOST` names one. */
  readonly host?: string;
}

/** The docker program, to its end; what it prints. Where it fails its own words are the error, and its status ours. */
export async function dockerCommand(args: readonly string[], options: DockerCommandOptions = {}): Promise<string> {
  const program = findProgram("docker");
  if (program === undefined) {
    throw new OperationError('Cannot ask Docker: the program "docker" is not installed');
  }
  const { host, ...rest } = options;
  const { code, stdout, stderr } = await run(program, [...host === undefined ? [] : ["-H", host], ...args], rest);
  if (code !== 0) throw new OperationError(stderr.trim() || `docker ${args[0]} ended with ${code}`, code);
  return stdout;
}

/** The answer to a question. Rejects with the engine's own words where it gives none, else with what kept us from asking it. */
async function ask(path: string, failure: string, notFound: string): Promise<unknown> {
  try {
    const { status, json } = await askEngine({ path, limitMs: TIMEOUT_MS });
    if (status === 200) return json;
    throw new OperationError(`${failure}: ${status === 404 ? notFound : messageOf(json)}`);
  } catch (error) {
    const { message, cause } = error as Error;
    if (cause === undefined) throw error;
    const where = Deno.env.get("DOCKER_HOST") || `unix://${SOCKET}`;
    const why = (cause as { code?: string }).code ?? (cause as Error).message ?? message;
    throw new OperationError(`${failure}: Cannot reach the Docker engine at ${where}: ${why}`, 1, { cause });
  }
}

function readContainer(answer: unknown, reference: string): DockerContainer {
  const { Id, Name, State, HostConfig, Config, HostsPath } = (answer ?? {}) as {
    Id?: unknown;
    Name?: unknown;
    State?: { Running?: unknown; Pid?: unknown; ExitCode?: unknown };
    HostConfig?: { NetworkMode?: unknown };
    Config?: { Hostname?: unknown; Domainname?: unknown };
    HostsPath?: unknown;
  };
  if (typeof Id !== "string" || !/^[0-9a-f]{12,}$/.test(Id)) {
    throw new OperationError(`unable to inspect container ${reference}: the answer has no id`);
  }
  return {
    id: Id,
    name: typeof Name === "string" ? Name.replace(/^\//, "") : "",
    running: State?.Running === true,
    exitCode: typeof State?.ExitCode === "number" ? State.ExitCode : 0,
    pid: typeof State?.Pid === "number" ? State.Pid : 0,
    networkMode: typeof HostConfig?.NetworkMode === "string" ? HostConfig.NetworkMode : "",
    hostname: typeof Config?.Hostname === "string" ? Config.Hostname : "",
    domainname: typeof Config?.Domainname === "string" ? Config.Domainname : "",
    hostsPath: typeof HostsPath === "string" && HostsPath.startsWith("/") ? HostsPath : undefined,
  };
}
