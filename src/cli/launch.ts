/**
 * `launch`: starts the router of this host.
 *
 *     flags, environment ── checks of the host, names ── is one running? ──────────┬─ detached: under a loop, until it answers
 *                                                        the same version: refused ├─ --container: the same, under Docker
 *                                                        another: stopped, its     └─ --foreground: in this very process
 *                                                        flags kept
 *
 * A router that the loop starts comes here too, and does none of it again.
 */
import { ApiClient } from "../api/client.ts";
import type { Answer } from "../api/exchange.ts";
import { checkLocal } from "../api/listen.ts";
import { type Given, toArguments } from "../config/option.ts";
import { LATER, laterGiven, LAUNCH, PASSWORD, ROUTER, type RouterOptions, routerOptions } from "../config/options.ts";
import { VERSION } from "../config/version.ts";
import {
  findRunning,
  forgetRouter,
  IN_CONTAINER,
  LOG_FILE,
  recordRouter,
  removeMarker,
  type Running,
  type RunRecord,
  type Started,
  startRouter,
  stopRouter,
  SUPERVISED,
  variableOf,
  whileNobodyStarts,
} from "../daemon/process.ts";
import { wasRunning } from "../daemon/targets_file.ts";
import { OperationError } from "../lib/errors.ts";
import { formatMac } from "../lib/mac.ts";
import type { Input } from "./command.ts";
import type { LAUNCH_OPTIONS } from "./commands.ts";
import type { Terminal } from "./terminal.ts";

/** What is to be started. */
interface Plan {
  /** Completed by what a replaced router was started with; without the password. */
  readonly given: Given;
  readonly peers: readonly string[];
  readonly options: RouterOptions;
}

/** A router takes a second; one that needs longer than this will not come up. */
const READY_MS = 60_000;
const POLL_MS = 50;
/** A router that works answers sooner, unless the machine is very busy. */
const ANSWER_MS = 3_000;
/** Nobody can be asked where no API listens: one that lives so long has come up. */
const SILENT_READY_MS = 2_000;

const AROUND = { env: (name: string) => Deno.env.get(name), hostname: () => Deno.hostname() };

export async function launch({ given, words, values, terminal }: Input<typeof LAUNCH_OPTIONS>): Promise<number> {
  const asked: Plan = { given: kept(given), peers: words, options: routerOptions(given, words, AROUND) };
  if (Deno.env.get(SUPERVISED) !== undefined) {
    await recordRouter(recordOf(asked));
    return await serve(asked.options);
  }
  if (values.version) {
    terminal.printLine(`weave ${VERSION}`);
    return 0;
  }
  if (values.printPeerName) return await printPeerName(asked.options, terminal);
  if (asked.options.httpAddr !== undefined) checkLocal(asked.options.httpAddr);
  const later = laterGiven(given);
  if (later.length > 0) terminal.warn(`WARNING: not in this version yet, ignored: ${later.join(", ")}`);
  const { checkHost } = await import("../daemon/requirements.ts");
  checkHost(terminal);
  if (asked.options.ipam !== undefined) {
    const { checkRange, interfacesApart } = await import("../daemon/range_check.ts");
    checkRange(asked.options.ipam, await interfacesApart(asked.options), terminal);
  }
  if (asked.options.networks.some(({ isolated }) => isolated)) {
    const { checkTargetsStay } = await import("../daemon/cut_off.ts");
    await checkTargetsStay(asked.options, asked.peers);
  }
  await checkNames(asked);
  await refreshCniPlugin(terminal);
  if (values.foreground) return await launchHere(given, words);
  const launchAway = values.container ? launchContainer : launchDetached;
  return await launchAway(given, words, values.json, terminal);
}

async function launchHere(given: Given, peers: readonly string[]): Promise<number> {
  const { options } = await whileNobodyStarts(async () => {
    const plan = await prepare(given, peers);
    await recordRouter(recordOf(plan));
    return plan;
  });
  return await serve(options);
}

async function launchDetached(
  given: Given,
  peers: readonly string[],
  json: boolean,
  terminal: Terminal,
): Promise<number> {
  const { plan, started } = await whileNobodyStarts(async () => {
    const plan = await prepare(given, peers);
    return { plan, started: await startDetached(plan) };
  });
  const name = await untilReady(plan.options, started);
  await started.confirm();
  if (name !== undefined) terminal.printLine(json ? JSON.stringify({ name }) : name);
  return 0;
}

/** Prints the id of the container, as Weave Net does. */
async function launchContainer(
  given: Given,
  peers: readonly string[],
  json: boolean,
  terminal: Terminal,
): Promise<number> {
  const { clearPlace, findRouterContainer, startRouterContainer } = await import("../daemon/router_container.ts");
  const { plan, started } = await whileNobodyStarts(async () => {
    const found = await findRouterContainer();
    if (found?.foreign === true) await clearPlace(found);
    const replaces = await findRunning() !== undefined;
    const plan = await prepare(given, peers);
    await clearPlace(await findRouterContainer());
    // What Docker starts again goes on where it was, and so does what takes another's place; a new container does not.
    if (!replaces) await removeMarker(plan.options.dbPrefix);
    const { options } = plan;
    const args = launchArguments(plan.given, plan.peers);
    return {
      plan,
      started: await startRouterContainer({ args, options, restart: !isOn(given, LAUNCH.noRestart.flag) }),
    };
  });
  const name = await untilReady(plan.options, started);
  await started.confirm();
  const { id } = started;
  terminal.printLine(json ? JSON.stringify({ id, ...(name === undefined ? {} : { name }) }) : id);
  return 0;
}

/** The name that a router launched like this would have. */
async function printPeerName(options: RouterOptions, terminal: Terminal): Promise<number> {
  const { ownPeerName } = await import("../daemon/host_facts.ts");
  terminal.printLine(formatMac(await ownPeerName(options)));
  return 0;
}

/** Refuses while one runs that stays; ends the one that is replaced. */
async function prepare(given: Given, peers: readonly string[]): Promise<Plan> {
  const running = await findRunning();
  if (running !== undefined) refuseUnlessReplaced(running);
  const plan = planStart(given, peers, running);
  if (running === undefined) await refuseStranger(plan.options);
  else {
    await endRouter(running);
    // Peers that are named now count; the stored ones go on otherwise.
    if (peers.length > 0) await removeMarker(plan.options.dbPrefix);
  }
  return plan;
}

/** For good: nobody starts it again. */
async function endRouter(running: Running): Promise<void> {
  if (running.record.container !== undefined) {
    const { findRouterContainer, removeRouterContainer } = await import("../daemon/router_container.ts");
    const found = await findRouterContainer(running.record.container);
    if (found !== undefined) await removeRouterContainer(found);
  }
  await stopRouter(running);
}

function refuseUnlessReplaced({ record }: Running): void {
  if (record.version === VERSION) {
    throw new OperationError("weave is already running; you can stop it with 'weave stop'.", 3);
  }
  if (record.invocation !== undefined) {
    throw new OperationError(
      `weave ${record.version} is already running under a service manager: restart it there to run ${VERSION}`,
      3,
    );
  }
}

/** Options that outlive this command. */
const KEPT = new Set(Object.values({ ...ROUTER, ...LATER, noRestart: LAUNCH.noRestart }).map(({ flag }) => flag));

/** A router that is replaced lends all that is not said now. */
export function planStart(given: Given, peers: readonly string[], replaces: Running | undefined): Plan {
  const former = replaces?.record;
  const merged = new Map([...former?.given ?? [], ...given]);
  if (peers.length > 0 && !given.has("resume")) merged.delete("resume");
  if (!given.has(PASSWORD.flag) && replaces !== undefined) {
    const password = variableOf((replaces.router ?? replaces.supervisor)!.process, PASSWORD.env!);
    if (password !== undefined) merged.set(PASSWORD.flag, [password]);
  }
  const keptPeers = peers.length > 0 || merged.has("resume") ? peers : former?.peers ?? [];
  const options = routerOptions(merged, keptPeers, AROUND);
  return { given: kept(merged), peers: keptPeers, options };
}

/** What may be written down of it. */
function kept(given: Given): Given {
  return new Map([...given].filter(([flag]) => KEPT.has(flag) && flag !== PASSWORD.flag));
}

/** After a crash or reboot the stored targets count, and a name that cannot be looked up then stops nobody. */
async function checkNames({ peers, options }: Plan): Promise<void> {
  if (wasRunning(options.dbPrefix)) return;
  const { resolveTargets } = await import("../daemon/resolve_targets.ts");
  const { errors } = await resolveTargets(peers, options.port);
  if (errors.length > 0) throw new OperationError(errors.join("\n"));
}

/** What `setup` installed is to be of this version too. */
async function refreshCniPlugin(terminal: Terminal): Promise<void> {
  if (!Deno.build.standalone) return;
  const { refreshCni } = await import("../daemon/cni_setup.ts");
  try {
    await refreshCni({ executable: Deno.execPath(), binDir: Deno.env.get("WEAVE_CNI_PLUGIN_DIR") || undefined });
  } catch (error) {
    terminal.warn(`WARNING: the CNI plugin is not of this version: ${(error as Error).message}`);
  }
}

/** Somebody else's router, or what is left of one of ours whose record was lost. */
async function refuseStranger({ httpAddr }: RouterOptions): Promise<void> {
  if (httpAddr === undefined) return;
  if (await askStatus(new ApiClient(httpAddr)) !== undefined) throw new OperationError("Weave Net is already running");
}

/** undefined where nobody answers in time; that somebody else has the port is then said by the router that wants it. */
async function askStatus(client: ApiClient): Promise<Answer | undefined> {
  const late = Promise.withResolvers<undefined>();
  const timer = setTimeout(() => late.resolve(undefined), ANSWER_MS);
  try {
    return await Promise.race([client.request("GET", "/status"), late.promise]);
  } catch {
    return undefined;
  } finally {
    clearTimeout(timer);
  }
}

/** In this process, until it is told to end. */
async function serve(options: RouterOptions): Promise<number> {
  const [{ routerLog, runRouter }, { startWatchdog, tellServiceManager }] = await Promise.all([
    import("../daemon/daemon.ts"),
    import("../daemon/service_manager.ts"),
  ]);
  Deno.addSignalListener("SIGTERM", () => tellServiceManager("STOPPING=1"));
  let watchdog: Disposable | undefined;
  const onReady = () => {
    tellServiceManager("READY=1");
    watchdog = startWatchdog();
  };
  try {
    return await runRouter(options, { onReady });
  } catch (error) {
    routerLog(options).error("router failed", { error: (error as Error).message });
    return 1;
  } finally {
    watchdog?.[Symbol.dispose]();
    await forgetRouter();
  }
}

function recordOf({ given, peers }: Plan): Omit<RunRecord, "process"> {
  const invocation = journalInvocation();
  const container = Deno.env.get(IN_CONTAINER);
  return {
    version: VERSION,
    given,
    peers,
    ...(invocation === undefined ? {} : { invocation }),
    ...(container === undefined ? {} : { container }),
  };
}

/** Of a service manager that gets our log: systemd.exec(5), JOURNAL_STREAM. */
function journalInvocation(): string | undefined {
  const stream = Deno.env.get("JOURNAL_STREAM");
  if (stream === undefined) return undefined;
  try {
    const { dev, ino } = Deno.statSync("/proc/self/fd/2");
    return stream === `${dev}:${ino}` ? Deno.env.get("INVOCATION_ID") : undefined;
  } catch {
    return undefined;
  }
}

async function startDetached({ given, peers, options }: Plan): Promise<Started> {
  // Whoever started this command is not the router's service manager.
  const { [PASSWORD.env!]: _, NOTIFY_SOCKET: _notify, WATCHDOG_USEC: _watchdog, ...env } = Deno.env.toObject();
  if (options.password !== undefined) env[PASSWORD.env!] = options.password;
  return await startRouter({
    command: launchLine(given, peers),
    env,
    logFile: LOG_FILE,
    restart: !isOn(given, LAUNCH.noRestart.flag),
    record: { version: VERSION, given, peers },
  });
}

/** The command line of a router that stays in the foreground; the password is not in it. */
export function launchLine(given: Given, peers: readonly string[]): string[] {
  return [...ownCommand(), ...launchArguments(given, peers)];
}

function launchArguments(given: Given, peers: readonly string[]): string[] {
  const flags = new Map([...kept(given)].filter(([flag]) => flag !== LAUNCH.noRestart.flag));
  return ["launch", "--foreground", ...toArguments(flags), ...peers];
}

function isOn(given: Given, flag: string): boolean {
  return given.get(flag)?.at(-1) === "true";
}

/** How this very program is run again: as an executable, or from its sources. */
function ownCommand(): string[] {
  if (Deno.build.standalone) return [Deno.execPath()];
  return [Deno.execPath(), "run", "--quiet", "--allow-all", "--no-prompt", Deno.mainModule];
}

/** Resolves to the peer name when everything serves; what does not come up is stopped. */
async function untilReady(options: RouterOptions, started: Started): Promise<string | undefined> {
  let ended: number | undefined;
  const end = started.ended.then((status) => ended = status);
  const address = options.httpAddr ?? options.statusAddr;
  const client = address === undefined ? undefined : new ApiClient(address);
  const deadline = performance.now() + (client === undefined ? SILENT_READY_MS : READY_MS);
  while (ended === undefined) {
    const answer = client && await askStatus(client);
    if (answer?.status === 200) return await client!.report("{{.Router.Name}}");
    if (performance.now() > deadline) {
      if (client === undefined) return undefined;
      const running = await findRunning();
      if (running !== undefined) await stopRouter(running);
      throw new OperationError(
        `weave did not come up within ${READY_MS / 1000} s. Consult 'weave logs' for further details.`,
      );
    }
    await Promise.race([end, new Promise((resolve) => setTimeout(resolve, POLL_MS))]);
  }
  const why = lastProblem(await started.log()) ?? `exit status ${ended}`;
  throw new OperationError(`weave died while it was starting: ${why}\nConsult 'weave logs' for further details.`);
}

/** What the last error in a log says, without when and how bad; where there is none, its last line. */
export function lastProblem(log: string): string | undefined {
  const lines = log.split("\n").filter((line) => line.trim() !== "");
  return lines.map(problemOf).findLast((problem) => problem !== undefined) ?? lines.at(-1);
}

function problemOf(line: string): string | undefined {
  if (line.startsWith("{")) {
    try {
      const { level, event, error } = JSON.parse(line) as Record<string, unknown>;
      return level === "error" ? String(error ?? event) : undefined;
    } catch {
      return undefined;
    }
  }
  const message = /^(?:ERRO|FATA): \S+ \S+ (.*)$/.exec(line)?.[1];
  const error = message === undefined ? undefined : / error=("(?:[^"\\]|\\.)*"|\S+)/.exec(message)?.[1];
  if (error === undefined) return message;
  return error.startsWith('"') ? JSON.parse(error) : error;
}
