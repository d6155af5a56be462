/**
 * The router as a container of Docker, named `weave`: Docker starts it again when it dies and when the machine comes up, and keeps its
 * log. It sees the host's network, processes, state and sockets where they are for everybody else, and the whole host, which it cannot
 * change, below `/host`.
 */
import { dirname } from "node:path";
import type { RouterOptions } from "../config/options.ts";
import { findProgram, run } from "../host/command.ts";
import { exists } from "../host/files.ts";
import { dockerCommand, dockerIsThere } from "../host/docker.ts";
import { HELPER_FOLDER } from "../host/helper.ts";
import { OperationError } from "../lib/errors.ts";
import { BUILD_LABEL, ensureImage, IMAGE, IN_IMAGE, isBuild, removeImage } from "./container_image.ts";
import { HOST } from "./host_paths.ts";
import { CAPABILITIES } from "./systemd.ts";
import { IN_CONTAINER, type Started } from "./process.ts";

export interface RouterContainer {
  readonly name: string;
  /** 64 hexadecimal digits. */
  readonly id: string;
  /** As Docker says: created, running, paused, restarting, removing, exited or dead. */
  readonly state: string;
  /** Somebody else's, which only has the name. */
  readonly foreign: boolean;
}

export function containerName(): string {
  return Deno.env.get("WEAVE_CONTAINER_NAME") || "weave";
}

/** undefined where there is none, or no Docker to ask. */
export async function findRouterContainer(name = containerName()): Promise<RouterContainer | undefined> {
  if (!dockerIsThere() || findProgram("docker") === undefined) return undefined;
  const format = `{{.Id}} {{.State.Status}} {{index .Config.Labels "${BUILD_LABEL}"}}`;
  let answer: string;
  try {
    answer = await dockerCommand(["container", "inspect", "-f", format, name]);
  } catch (error) {
    if (/No such container/i.test((error as Error).message)) return undefined;
    throw error;
  }
  const [id = "", state = "", build = ""] = answer.trim().split(" ");
  return { name, id, state, foreign: !isBuild(build) };
}

/** Makes room for a new one. @throws OperationError where one is there that stays */
export async function clearPlace(found: RouterContainer | undefined): Promise<void> {
  if (found === undefined) return;
  const { name, state } = found;
  if (found.foreign) {
    const running = state === "running" ? "running " : "";
    throw new OperationError(`Found another ${running}container named '${name}'. Aborting.`, 2);
  }
  if (state === "running") {
    throw new OperationError(`${name} is already running; you can stop it with 'weave stop'.`, 3);
  }
  if (state !== "exited" && state !== "dead") {
    throw new OperationError(`${name} container is ${state}: 'weave stop' ends it, 'weave reset' removes it`);
  }
  await dockerCommand(["rm", "-v", name]);
}

/** Its restart policy is kept from starting it again. */
export async function stopRouterContainer({ name }: RouterContainer): Promise<void> {
  await dockerCommand(["stop", "-t", "10", name]);
}

/** With its image. It is given time to take its sockets away. */
export async function removeRouterContainer(container: RouterContainer): Promise<void> {
  const { name } = container;
  if (container.state === "running") await stopRouterContainer(container);
  await dockerCommand(["rm", "-f", "-v", name]);
  await removeImage();
}

/** What it takes to do a router's work, and no more: settings of the kernel, which Docker would make read-only, among it. */
const PRIVILEGES = [
  "--cap-drop=ALL",
  ...[...CAPABILITIES, "CAP_SYS_CHROOT"].map((capability) => `--cap-add=${capability.replace(/^CAP_/, "")}`),
  "--device=/dev/net/tun",
  ...["seccomp=unconfined", "apparmor=unconfined", "systempaths=unconfined"].map((option) =>
    `--security-opt=${option}`
  ),
];

export interface ContainerStart {
  /** Arguments of weave, from `launch` on. */
  readonly args: readonly string[];
  readonly options: RouterOptions;
  /** Start it again when it dies, and when Docker or the machine comes up. */
  readonly restart: boolean;
}

export interface StartedContainer extends Started {
  readonly id: string;
}

/** The image is made first where it is not there; nothing is pulled. */
export async function startRouterContainer({ args, options, restart }: ContainerStart): Promise<StartedContainer> {
  await ensureImage();
  const name = containerName();
  for (const directory of writableDirectories(options)) await Deno.mkdir(directory, { recursive: true });
  const env = environment(options);
  const id = (await dockerCommand([
    "run",
    "-d",
    ...["--name", name, "--net", "host", "--pid", "host", "--log-opt", "max-size=50m"],
    ...PRIVILEGES,
    ...(await volumes(options)).flatMap((volume) => ["-v", volume]),
    ...["-e", `HOST_ROOT=${IN_IMAGE.hostRoot}`, "-e", `${IN_CONTAINER}=${name}`],
    ...Object.keys(env).flatMap((variable) => ["-e", variable]),
    ...(Deno.env.get("WEAVE_DOCKER_ARGS") ?? "").split(/\s+/).filter(Boolean),
    IMAGE,
    ...args,
  ], { env })).trim();
  const end = run(findProgram("docker")!, ["wait", id]);
  return {
    id,
    ended: end.then(({ stdout }) => Number(stdout.trim() || 1)),
    // Only now: one that cannot start is not to try for ever.
    confirm: async () => void (restart && await dockerCommand(["update", "--restart", "always", id])),
    log: () => containerLog(name),
  };
}

async function containerLog(name: string): Promise<string> {
  const { stdout, stderr } = await run(findProgram("docker")!, ["logs", "--tail", "200", name]);
  return stdout + stderr;
}

/** Variables that are a router's own; a password is in no command line. */
function environment({ password }: RouterOptions): Record<string, string> {
  const names = ["DOCKER_HOST", "WEAVE_DEBUG", "WEAVE_TEST_IDENTITY", "WEAVE_TEST_SPIN"];
  const set = names.flatMap((name) => {
    const value = Deno.env.get(name);
    return value ? [[name, value] as const] : [];
  });
  return Object.fromEntries(password === undefined ? set : [...set, ["WEAVE_PASSWORD", password]]);
}

/** Everything else of the host can only be read. */
async function volumes(options: RouterOptions): Promise<string[]> {
  const shared = sharedMounts();
  const slave = (path: string, readOnly: boolean) => {
    const words = [...readOnly ? ["ro"] : [], ...shared(path) ? ["rslave"] : []];
    return words.length === 0 ? "" : `:${words.join(",")}`;
  };
  const dockerRoot = (await dockerCommand(["info", "-f", "{{.DockerRootDir}}"])).trim();
  return [
    `/:${IN_IMAGE.hostRoot}${slave("/", true)}`,
    `/run:/run${slave("/run", false)}`,
    ...writableDirectories(options).filter((path) => !isBelow(path, "/run")).map((path) => `${path}:${path}`),
    // Hosts files of containers.
    `${dockerRoot}/containers:${dockerRoot}/containers`,
    ...["/etc/machine-id", "/lib/modules"].filter(exists).map((path) => `${path}:${path}:ro`),
  ];
}

/** Of its state and its sockets, as long as they are not in `/run`. */
function writableDirectories({ dbPrefix, httpAddr, statusAddr, metricsAddr }: RouterOptions): string[] {
  const sockets = [httpAddr, statusAddr, metricsAddr].flatMap((address) =>
    address?.transport === "unix" ? [dirname(address.path)] : []
  );
  const docker = /^unix:\/\/(.*)$/.exec(Deno.env.get("DOCKER_HOST") ?? "")?.[1];
  const all = [
    HOST.runDir,
    HELPER_FOLDER,
    dirname(dbPrefix),
    ...sockets,
    ...docker === undefined ? [] : [dirname(docker)],
  ];
  return [...new Set(all.map((path) => path.replace(/^\/var\/run(?=\/|$)/, "/run")))];
}

/** Whether mounts that are made below a path later can be seen elsewhere: proc_pid_mountinfo(5). */
function sharedMounts(): (path: string) => boolean {
  const mounts = Deno.readTextFileSync("/proc/self/mountinfo").split("\n").map((line) => {
    const [before = ""] = line.split(" - ");
    const [, , , , point = "", , ...tags] = before.split(" ");
    return { point, shared: tags.some((tag) => /^(shared|master):/.test(tag)) };
  });
  return (path) => {
    const holding = mounts.filter(({ point }) => isBelow(path, point));
    return holding.sort((a, b) => a.point.length - b.point.length).at(-1)?.shared === true;
  };
}

function isBelow(path: string, folder: string): boolean {
  return path === folder || path.startsWith(folder === "/" ? "/" : `${folder}/`);
}
