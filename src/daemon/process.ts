/**
 * The router process of this host: starting, finding and stopping it.
 *
 *     weave launch ── starts ──► sh, a loop ── starts, and again when it dies ──► weave launch --foreground
 *                                 │ supervisor.json                                │ router.json
 *
 * Each of the two is recorded with what tells its process from a later one of the same number, so that nothing else is ever
 * signalled. The password travels in their environment and is in no file.
 */
import { dirname } from "node:path";
import type { Given } from "../config/option.ts";
import { OperationError } from "../lib/errors.ts";
import { withLock } from "../host/lock.ts";
import { removeIfThere, StoreFile } from "../host/store.ts";
import { HOST } from "./host_paths.ts";

export const LOG_FILE = "/var/log/weave.log";

/** Set in the environment of a router that the loop starts: its flags were checked, and somebody looks after it. */
export const SUPERVISED = "WEAVE_SUPERVISED";

/** Set in the environment of a router in a container: how Docker calls that. */
export const IN_CONTAINER = "WEAVE_CONTAINER";

/** A process, told from every other that ever had its number. */
export interface ProcessId {
  readonly pid: number;
  /** When it started, in clock ticks since boot. */
  readonly startTicks: number;
  readonly bootId: string;
}

/** What is known of a router or its loop. Anybody may read it: the address of the API is in there. */
export interface RunRecord {
  readonly process: ProcessId;
  readonly version: string;
  /** Options that were given, by flag or environment, without the password. */
  readonly given: Given;
  readonly peers: readonly string[];
  /** Under which a service manager runs it and keeps its log. */
  readonly invocation?: string;
  /** The container of Docker that it is in. */
  readonly container?: string;
}

export interface Running {
  readonly router: RunRecord | undefined;
  readonly supervisor: RunRecord | undefined;
  /** What runs, or is about to. */
  readonly record: RunRecord;
}

/** The file that says that the router was not stopped since it last ran: its next start is a restart. */
export function markerFile(statePrefix: string): string {
  return `${statePrefix}-running`;
}

/** For `stop` and `reset`: the next start is none that goes on where the last one was. */
export async function removeMarker(statePrefix: string): Promise<void> {
  await removeIfThere(markerFile(statePrefix));
}

/** undefined where no router of this host runs, nor is about to. */
export async function findRunning(runDir: string = HOST.runDir): Promise<Running | undefined> {
  const router = await readAlive(routerFile(runDir));
  const supervisor = await readAlive(supervisorFile(runDir));
  const running = router ?? supervisor;
  if (running === undefined) return undefined;
  // The loop may have started a later version; what it was told itself is more than what it tells a router.
  const { given, peers } = supervisor ?? running;
  return { router, supervisor, record: { ...running, given, peers } };
}

/** What the last router of this boot was started with, whether or not it runs. */
export async function lastRecord(runDir: string = HOST.runDir): Promise<RunRecord | undefined> {
  return await read(routerFile(runDir)) ?? await read(supervisorFile(runDir));
}

/** Runs `work`, which starts a router, while nobody else on this host does. */
export function whileNobodyStarts<T>(work: () => Promise<T>, runDir: string = HOST.runDir): Promise<T> {
  return withLock(`${runDir}/launch.lock`, work);
}

/** Called by the router itself, before it does anything else. */
export async function recordRouter(record: Omit<RunRecord, "process">, runDir: string = HOST.runDir): Promise<void> {
  const own = processId(Deno.pid);
  if (own === undefined) throw new OperationError("Cannot read /proc/self/stat: it is not what Linux has there");
  await write(routerFile(runDir), { ...record, process: own });
}

/** For a router that ends as it should. */
export async function forgetRouter(runDir: string = HOST.runDir): Promise<void> {
  await routerFile(runDir).remove();
}

export interface StartOptions {
  /** The command line of the router; whatever it prints is appended to `logFile`. */
  readonly command: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** Start it again when it dies. */
  readonly restart: boolean;
  readonly record: Omit<RunRecord, "process">;
  readonly runDir?: string;
}

export interface Started {
  /** Resolves to the exit status when the router will not be started again. */
  readonly ended: Promise<number>;
  /** The router has come up: from now on its loop starts it again when it dies. */
  confirm(): void | Promise<void>;
  /** What the router has printed since. */
  log(): Promise<string>;
}

/** Detached from the terminal and from this process, which may end. */
export async function startRouter(options: StartOptions): Promise<Started> {
  const { command, env, logFile, restart, record, runDir = HOST.runDir } = options;
  const logStart = await prepareLog(logFile);
  const { keepDescriptors } = await import("../../ffi/inheritance.ts");
  keepDescriptors();
  const child = new Deno.Command("/bin/sh", {
    args: ["-c", RUN_SCRIPT, "weave", logFile, ...command],
    clearEnv: true,
    env: { ...env, [SUPERVISED]: "1", [SCRIPT]: restart ? LOOP : ONCE },
    cwd: "/",
    stdin: "null",
    stdout: "null",
    stderr: "null",
    detached: true,
  }).spawn();
  const process = processId(child.pid);
  try {
    if (process !== undefined) await write(supervisorFile(runDir), { ...record, process });
  } catch (error) {
    // Nobody would find it again.
    signal(process, "SIGKILL", { group: true });
    throw error;
  }
  return {
    ended: child.status.then(({ code }) => code),
    confirm() {
      if (restart) signal(process, "SIGUSR1");
    },
    log: () => readFrom(logFile, logStart),
  };
}

/** How long a router may take to end. */
const GRACE_MS = 10_000;
/** How long its parent may take to notice. */
const REAP_MS = 1_000;
const POLL_MS = 20;

/** Ends the loop and the router, and resolves when both are gone. The marker stays. */
export async function stopRouter(
  running: Running,
  { runDir = HOST.runDir, graceMs = GRACE_MS }: { readonly runDir?: string; readonly graceMs?: number } = {},
): Promise<void> {
  const processes = [running.supervisor, running.router].filter((record) => record !== undefined)
    .map((record) => record.process);
  // The loop hands it on to whichever router it has by then.
  signal((running.supervisor ?? running.router)?.process, "SIGTERM");
  if (!await until(() => !processes.some(isAlive), graceMs)) {
    // The loop leads a group of its own: whatever it started goes with it.
    signal(running.supervisor?.process, "SIGKILL", { group: true });
    signal(running.router?.process, "SIGKILL");
    if (!await until(() => !processes.some(isAlive), REAP_MS)) {
      throw new OperationError(`Cannot stop weave: process ${processes.find(isAlive)?.pid} does not end`);
    }
  }
  await until(() => !processes.some(isThere), REAP_MS);
  await routerFile(runDir).remove();
  await supervisorFile(runDir).remove();
}

/** One variable of the environment that a process was started with; only for its owner and root. */
export function variableOf({ pid }: ProcessId, name: string): string | undefined {
  try {
    const variables = Deno.readTextFileSync(`/proc/${pid}/environ`).split("\0");
    return variables.find((variable) => variable.startsWith(`${name}=`))?.slice(name.length + 1);
  } catch {
    return undefined;
  }
}

/** undefined where there is no such process. */
export function processId(pid: number): ProcessId | undefined {
  const stat = statOf(pid);
  return stat === undefined ? undefined : { pid, startTicks: stat.startTicks, bootId: bootId() };
}

/** Whether it still runs; one that ended and was not yet waited for does not. */
export function isAlive(process: ProcessId): boolean {
  const stat = statOf(process.pid);
  return stat !== undefined && stat.state !== "Z" && stat.state !== "X" && isSame(process, stat);
}

function isThere(process: ProcessId): boolean {
  const stat = statOf(process.pid);
  return stat !== undefined && isSame(process, stat);
}

function isSame(process: ProcessId, stat: { startTicks: number }): boolean {
  return process.startTicks === stat.startTicks && process.bootId === bootId();
}

/** State and start of a process: fields 3 and 22 of proc_pid_stat(5), behind a name that may hold anything. */
function statOf(pid: number): { state: string; startTicks: number } | undefined {
  try {
    const stat = Deno.readTextFileSync(`/proc/${pid}/stat`);
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    return { state: fields[0]!, startTicks: Number(fields[19]) };
  } catch {
    return undefined;
  }
}

function bootId(): string {
  return Deno.readTextFileSync("/proc/sys/kernel/random/boot_id").trim();
}

function signal(process: ProcessId | undefined, name: Deno.Signal, { group = false } = {}): void {
  if (process === undefined || !isAlive(process)) return;
  try {
    Deno.kill(group ? -process.pid : process.pid, name);
  } catch (error) {
    // It may have ended since.
    if (isAlive(process)) throw error;
  }
}

async function until(condition: () => boolean, timeoutMs: number): Promise<boolean> {
  const deadline = performance.now() + timeoutMs;
  while (!condition()) {
    if (performance.now() > deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  return true;
}

/** Makes sure that the log can be written, and resolves to its size. */
async function prepareLog(path: string): Promise<number> {
  try {
    await Deno.mkdir(dirname(path), { recursive: true });
    using file = await Deno.open(path, { create: true, append: true, mode: 0o640 });
    return (await file.stat()).size;
  } catch (error) {
    throw new OperationError(`Cannot write the log "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

/** More of the log is not read to find out what went wrong. */
const LOG_TAIL = 64 * 1024;

async function readFrom(path: string, start: number): Promise<string> {
  using file = await Deno.open(path);
  const { size } = await file.stat();
  await file.seek(Math.max(start, size - LOG_TAIL), Deno.SeekMode.Start);
  const octets = new Uint8Array(LOG_TAIL);
  let length = 0;
  for (;;) {
    const count = await file.read(octets.subarray(length));
    if (count === null || count === 0) break;
    length += count;
  }
  return new TextDecoder().decode(octets.subarray(0, length));
}

/* Shell: dash and busybox are enough for it. It comes in a variable, as a list of processes is for people. */

const SCRIPT = "WEAVE_SCRIPT";
const RUN_SCRIPT = `script=$${SCRIPT}; unset ${SCRIPT}; eval "$script"`;

const LOG = 'exec >>"$1" 2>&1\nshift\n';

const ONCE = `${LOG}exec "$@"\n`;

/**
 * SIGUSR1 says that the router came up. One that did not within 10 s, and ended, is not started again; one that lived for 10 s is
 * started again at once, otherwise after 1, 2, 4 … 60 s. SIGTERM is handed on to the router and ends the loop.
 */
const LOOP = `${LOG}confirmed= stopping= signalled= router= delay=0
trap 'signalled=1; confirmed=1' USR1
trap 'signalled=1; stopping=1; [ -z "$router" ] || kill -TERM "$router" 2>/dev/null' TERM INT HUP
while :; do
  read -r since rest </proc/uptime
  "$@" &
  router=$!
  [ -z "$stopping" ] || kill -TERM "$router" 2>/dev/null
  while :; do
    signalled=
    wait "$router" 2>/dev/null
    status=$?
    [ -n "$signalled" ] || break
  done
  router=
  [ -z "$stopping" ] || exit 0
  read -r now rest </proc/uptime
  lived=$((\${now%.*} - \${since%.*}))
  [ "$lived" -lt 10 ] || { confirmed=1; delay=0; }
  [ -n "$confirmed" ] || exit "$status"
  echo "WARN: $(date '+%Y/%m/%d %H:%M:%S').000000 router ended status=$status lived_s=$lived restart_in_s=$delay"
  if [ "$delay" -gt 0 ]; then
    sleep "$delay" &
    pause=$!
    wait "$pause" 2>/dev/null
    kill "$pause" 2>/dev/null
  fi
  [ -z "$stopping" ] || exit 0
  delay=$((delay * 2))
  [ "$delay" -gt 0 ] || delay=1
  [ "$delay" -le 60 ] || delay=60
done
`;

/* What is written down. */

function routerFile(runDir: string): StoreFile<RunRecord> {
  return new StoreFile(`${runDir}/router.json`, RECORD);
}

function supervisorFile(runDir: string): StoreFile<RunRecord> {
  return new StoreFile(`${runDir}/supervisor.json`, RECORD);
}

async function readAlive(file: StoreFile<RunRecord>): Promise<RunRecord | undefined> {
  const record = await read(file);
  return record !== undefined && isAlive(record.process) ? record : undefined;
}

/** A record that cannot be understood says nothing. */
async function read(file: StoreFile<RunRecord>): Promise<RunRecord | undefined> {
  try {
    return await file.read();
  } catch {
    return undefined;
  }
}

async function write(file: StoreFile<RunRecord>, record: RunRecord): Promise<void> {
  // One that cannot be understood is in the way, and tells nobody anything.
  if (await read(file) === undefined) await removeIfThere(file.path);
  await file.write(record);
  await Deno.chmod(file.path, 0o644);
}

const RECORD = {
  what: "process",
  major: 1,
  minor: 0,
  check: checkRecord,
  encode: ({ given, ...rest }: RunRecord) => ({ ...rest, given: Object.fromEntries(given) }),
};

function checkRecord(data: unknown): RunRecord {
  const { process, version, given, peers, invocation, container } = (data ?? {}) as Record<string, unknown>;
  const { pid, startTicks, bootId } = (process ?? {}) as Record<string, unknown>;
  if (typeof pid !== "number" || typeof startTicks !== "number" || typeof bootId !== "string") {
    throw new Error("the process is missing");
  }
  if (typeof version !== "string") throw new Error("the version is missing");
  const options = Object.entries((given ?? {}) as object);
  if (!isTexts(peers) || !options.every(([, texts]) => isTexts(texts))) throw new Error("options are missing");
  return {
    process: { pid, startTicks, bootId },
    version,
    given: new Map(options),
    peers,
    ...(typeof invocation === "string" ? { invocation } : {}),
    ...(typeof container === "string" ? { container } : {}),
  };
}

function isTexts(value: unknown): value is readonly string[] {
  return Array.isArray(value) && value.every((item) => typeof item === "string");
}
