/** `setup`: what this machine keeps of weave for good. */
import { parseBoolean, withEnvironment } from "../config/option.ts";
import { PASSWORD, ROUTER, routerOptions } from "../config/options.ts";
import { findRunning } from "../daemon/process.ts";
import { OperationError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import { LAUNCH_OPTIONS, noWords, type SETUP_CNI_OPTIONS, type SETUP_OPTIONS } from "./commands.ts";
import { launchLine } from "./launch.ts";
import { parseLine, UsageError } from "./parse.ts";

export async function setup(input: Input<typeof SETUP_OPTIONS>): Promise<number> {
  const { words: [what, ...more], rest } = input;
  if (what === "systemd") return await setupSystemd(input);
  const [unexpected] = [what, ...more, ...rest].filter((word) => word !== undefined);
  if (unexpected !== undefined) {
    throw new UsageError(`Unexpected argument "${unexpected}": systemd or nothing expected`);
  }
  if (input.values.remove) throw new UsageError("--remove of what: weave setup systemd --remove");
  return await installCni();
}

/** `setup-cni`, which `setup` does as well. */
export async function setupCni({ words }: Input<typeof SETUP_CNI_OPTIONS>): Promise<number> {
  noWords(words);
  return await installCni();
}

async function installCni(): Promise<number> {
  if (!Deno.build.standalone) {
    throw new OperationError("Cannot install the CNI plugin: it is the executable itself, and this runs from sources");
  }
  const operation = await import("../daemon/cni_setup.ts");
  await operation.setupCni({
    executable: Deno.execPath(),
    binDir: Deno.env.get("WEAVE_CNI_PLUGIN_DIR") || undefined,
    hairpin: parseBoolean(Deno.env.get("HAIRPIN_MODE") ?? "") ?? true,
  });
  return 0;
}

/** `setup systemd [LAUNCH_ARGUMENT…]`: what follows is what the router is launched with. */
async function setupSystemd({ words, rest, values }: Input<typeof SETUP_OPTIONS>): Promise<number> {
  const { installUnit, removeUnit } = await import("../daemon/systemd.ts");
  const args = [...words.slice(1), ...rest];
  if (values.remove || args[0] === "--remove") {
    if (args.length > (values.remove ? 0 : 1)) throw new UsageError("--remove takes nothing else");
    await removeUnit();
    return 0;
  }
  const line = parseLine(args, LAUNCH_OPTIONS);
  const given = withEnvironment(ROUTER, line.given, (name) => Deno.env.get(name));
  const { password } = routerOptions(given, line.words, {
    env: (name) => Deno.env.get(name),
    hostname: () => Deno.hostname(),
  });
  for (const flag of ["container", "foreground", "no-restart", "version", "print-peer-name", "help"]) {
    if (given.has(flag)) throw new UsageError(`--${flag} is not for a router that systemd runs`);
  }
  const running = await findRunning();
  if (running !== undefined && running.record.invocation === undefined) {
    throw new OperationError("weave is already running; stop it with 'weave stop', so that systemd can start it.", 3);
  }
  await installUnit({
    command: launchLine(given, line.words),
    environment: password === undefined ? undefined : new Map([[PASSWORD.env!, password]]),
  });
  return 0;
}
