/** How the Docker engine of this host speaks TLS: what its command line says, or its configuration. */
import { join } from "node:path";

/** Absolute paths. */
export interface EngineTls {
  readonly ca: string | undefined;
  readonly cert: string;
  readonly key: string;
  /** It wants a certificate of its clients. */
  readonly verify: boolean;
}

const CONFIGURATION = "/etc/docker/daemon.json";

/** undefined: it speaks none, or does not run. Rejects where it cannot be found out. */
export async function detectEngineTls(): Promise<EngineTls | undefined> {
  const pid = findEngine();
  if (pid === undefined) return undefined;
  const args = (await Deno.readTextFile(`/proc/${pid}/cmdline`)).split("\0");
  const file = optionOf(args, "config-file") ?? CONFIGURATION;
  const text = await Deno.readTextFile(file).catch((error) => {
    if (error instanceof Deno.errors.NotFound) return "{}";
    throw error;
  });
  return engineTls(args, JSON.parse(text), Deno.env.get("HOME") || "/root");
}

/** @param configuration what stands in daemon.json; the command line says the rest. @param home of the engine's user */
export function engineTls(args: readonly string[], configuration: unknown, home: string): EngineTls | undefined {
  const said = (configuration ?? {}) as Readonly<Record<string, unknown>>;
  const text = (name: string) =>
    optionOf(args, name) ?? (typeof said[name] === "string" ? String(said[name]) : undefined);
  const isOn = (name: string) => (optionOf(args, name, { isSwitch: true }) ?? String(said[name] ?? false)) === "true";
  const verify = isOn("tlsverify");
  if (!verify && !isOn("tls")) return undefined;
  const standard = (name: string) => join(home, ".docker", name);
  return {
    verify,
    ca: text("tlscacert") ?? (verify ? standard("ca.pem") : undefined),
    cert: text("tlscert") ?? standard("cert.pem"),
    key: text("tlskey") ?? standard("key.pem"),
  };
}

/** `--name=value`, `--name value`, and for a switch `--name`; the last one counts. */
function optionOf(args: readonly string[], name: string, { isSwitch = false } = {}): string | undefined {
  const at = args.findLastIndex((arg) => arg === `--${name}` || arg.startsWith(`--${name}=`));
  if (at < 0) return undefined;
  const arg = args[at]!;
  if (arg !== `--${name}`) return arg.slice(name.length + 3);
  return isSwitch ? "true" : args[at + 1];
}

function findEngine(): number | undefined {
  for (const { name } of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(name)) continue;
    try {
      if (Deno.readTextFileSync(`/proc/${name}/comm`).trim() === "dockerd") return Number(name);
    } catch {
      // It has ended.
    }
  }
  return undefined;
}
