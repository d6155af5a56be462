/** The unit with which systemd runs the router: what it says, and how it comes and goes. */
import { findProgram, run } from "../host/command.ts";
import { exists } from "../host/files.ts";
import { removeIfThere } from "../host/store.ts";
import { OperationError } from "../lib/errors.ts";

export const UNIT = "weave.service";
export const UNIT_FILE = `/etc/systemd/system/${UNIT}`;
/** What is not for everybody to read: variables such as WEAVE_PASSWORD. */
export const ENVIRONMENT_FILE = "/etc/default/weave";

/** The router says so often that it lives; one that does not is killed and started again. */
const WATCHDOG_SECONDS = 30;

/** What the router does: links, packet sockets, other namespaces, low ports, files of Docker's, and ending what it held. */
export const CAPABILITIES: readonly string[] = [
  "CAP_NET_ADMIN",
  "CAP_NET_RAW",
  "CAP_NET_BIND_SERVICE",
  "CAP_SYS_ADMIN",
  "CAP_SYS_PTRACE",
  "CAP_DAC_OVERRIDE",
  "CAP_CHOWN",
  "CAP_FOWNER",
  "CAP_KILL",
];

/**
 * @param command how the router is started and stays in the foreground, word by word
 *
 * Before Docker: its containers want networks and addresses when they start. The router notices Docker when it comes. Memory must be
 * allowed to be both written and executed, as the program is compiled while it runs.
 */
export function unitText(command: readonly string[]): string {
  return `# Written by 'weave setup systemd'; 'weave setup systemd --remove' removes it. Changes belong into 'systemctl edit ${UNIT}'.
[Unit]
Description=weave, a virtual Ethernet network for containers
Wants=network-online.target
After=network-online.target
Before=docker.service
StartLimitIntervalSec=0

[Service]
Type=notify
NotifyAccess=main
EnvironmentFile=-${ENVIRONMENT_FILE}
ExecStart=${command.map(quoteWord).join(" ")}
Restart=on-failure
RestartSec=1
RestartPreventExitStatus=2
TimeoutStartSec=60
TimeoutStopSec=15
WatchdogSec=${WATCHDOG_SECONDS}
OOMScoreAdjust=-500
LimitNOFILE=65536

CapabilityBoundingSet=${CAPABILITIES.join(" ")}
NoNewPrivileges=yes
ProtectSystem=full
ProtectHome=read-only
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
DevicePolicy=closed
DeviceAllow=/dev/net/tun rw
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET
RestrictNamespaces=net
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=~@clock @cpu-emulation @module @obsolete @raw-io @reboot @swap

[Install]
WantedBy=multi-user.target
`;
}

/** A word of a command line, as systemd.service(5) reads it: nothing in it is a variable or a specifier. */
export function quoteWord(word: string): string {
  const escaped = word.replaceAll("%", "%%").replaceAll("$", "$$$$");
  if (/^[\w@+=:,./%$-]+$/.test(escaped)) return escaped;
  const named: Record<string, string> = { "\n": "\\n", "\t": "\\t" };
  // deno-lint-ignore no-control-regex -- control characters are what is looked for
  return `"${escaped.replace(/["\\]/g, "\\$&").replace(/[\x00-\x1f\x7f]/g, (c) => named[c] ?? hex(c))}"`;
}

function hex(character: string): string {
  return `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`;
}

export interface UnitOptions {
  readonly command: readonly string[];
  /** Variables for the router; undefined leaves the file as it is. */
  readonly environment: ReadonlyMap<string, string> | undefined;
}

/** Writes the unit, and has it started now and at every boot; one that is there is replaced and started again. */
export async function installUnit({ command, environment }: UnitOptions): Promise<void> {
  const systemctl = findSystemctl();
  if (environment !== undefined) await writeFile(ENVIRONMENT_FILE, environmentText(environment), 0o600);
  await writeFile(UNIT_FILE, unitText(command), 0o644);
  await tell(systemctl, "daemon-reload");
  await tell(systemctl, "enable", UNIT);
  await tell(systemctl, "restart", UNIT);
}

/** Stops the router and removes its unit; where there is none, nothing happens. */
export async function removeUnit(): Promise<void> {
  const systemctl = findSystemctl();
  if (exists(UNIT_FILE)) await tell(systemctl, "disable", "--now", UNIT);
  await removeIfThere(UNIT_FILE);
  await removeIfThere(ENVIRONMENT_FILE);
  await tell(systemctl, "daemon-reload");
}

/** One assignment a line, as systemd.exec(5) reads an EnvironmentFile. */
export function environmentText(variables: ReadonlyMap<string, string>): string {
  return [...variables].map(([name, value]) => {
    if (/[\n\r\0]/.test(value)) throw new OperationError(`Cannot write ${name} for systemd: it has more than one line`);
    return `${name}="${value.replace(/["\\$\`]/g, "\\$&")}"\n`;
  }).join("");
}

function findSystemctl(): string {
  const program = findProgram("systemctl");
  // sd_booted(3)
  const booted = exists("/run/systemd/system");
  if (program !== undefined && booted) return program;
  throw new OperationError(
    `Cannot set a unit up: ${program === undefined ? "there is no systemctl" : "systemd does not run this machine"}; ` +
      "'weave launch' starts the router without it",
  );
}

async function tell(systemctl: string, ...args: string[]): Promise<void> {
  const { code, stderr } = await run(systemctl, args);
  if (code === 0) return;
  throw new OperationError(`Cannot run systemctl ${args.join(" ")}: ${stderr.trim() || `exit status ${code}`}`);
}

/** Whole or not at all. */
async function writeFile(path: string, text: string, mode: number): Promise<void> {
  const beside = `${path}.weave-new`;
  try {
    await Deno.writeTextFile(beside, text, { mode });
    await Deno.chmod(beside, mode);
    await Deno.rename(beside, path);
  } catch (error) {
    throw new OperationError(`Cannot write "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}
