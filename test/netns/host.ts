/**
 * An emulated host: namespaces for network, mounts, PIDs and host name, with its own /run, /etc, /opt, /var/lib and /var/log. It needs
 * root, and leaves nothing behind however this process ends: the first process of the host waits for the end of a pipe whose
 * other end is here, and the kernel clears the rest away with it. Nothing of it has a name outside.
 */

import { withNetns } from "../../ffi/netns.ts";
import { PacketSocket } from "../../ffi/packet_socket.ts";
import { Links } from "../../src/host/links.ts";
import {
  attempt,
  childrenOf,
  type CommandOptions,
  type CommandResult,
  run,
  type RunningCommand,
  start,
} from "./command.ts";
import { compiledWeave } from "./executable.ts";
import type { Port } from "./link.ts";

/**
 * Sets the namespaces up, then reaps what is left to it until its standard input ends. What lies in /etc, /opt and /var/lib is seen
 * through, what is written there is the host's own; /tmp stays shared, where checkouts and test data may be.
 */
const INIT = `
set -e
cd /
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
for folder in etc var/lib opt; do
  [ -d "/$folder" ] || continue
  mkdir -p /run/.host/$folder /run/.work/$folder
  mount -t overlay overlay -o lowerdir=/$folder,upperdir=/run/.host/$folder,workdir=/run/.work/$folder /$folder
done
mkdir -p /var/lib/weave
mount -t tmpfs tmpfs /var/lib/weave
mount -t tmpfs tmpfs /var/log
hostname "$1"
echo "$1" > /etc/hostname
echo "$2" > /etc/machine-id
ip link set lo up
echo ready
exec 3<&0
cat <&3 >/dev/null &
wait $!
`;

export interface HostOptions {
  /** The command line of weave; the compiled executable unless said otherwise. */
  readonly weave?: readonly string[];
  /** Variables for every weave command, as a shell profile would set them. */
  readonly env?: Readonly<Record<string, string>>;
  /** Its routers are meant to fail. Otherwise an error in their log fails the test. */
  readonly errorsExpected?: boolean;
}

export class EmulatedHost implements AsyncDisposable {
  readonly name: string;
  readonly ports: Port[] = [];
  /** The first process inside, by its number outside: `nsenter -a -t PID` is a shell there. */
  readonly pid: number;
  readonly #init: Deno.ChildProcess;
  readonly #options: HostOptions;
  #disposed = false;

  private constructor(name: string, init: Deno.ChildProcess, pid: number, options: HostOptions) {
    this.name = name;
    this.pid = pid;
    this.#init = init;
    this.#options = options;
  }

  static async create(name: string, options: HostOptions = {}): Promise<EmulatedHost> {
    const machineId = crypto.getRandomValues(new Uint8Array(16)).toHex();
    const namespaces = ["--net", "--mount", "--uts", "--pid", "--fork", "--kill-child", "--mount-proc"];
    const init = new Deno.Command("unshare", {
      args: [...namespaces, "--propagation", "private", "sh", "-c", INIT, "init", name, machineId],
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    if (!await printedReady(init)) {
      await init.stdin.close();
      throw new Error(`Cannot make the emulated host ${name}: exit status ${(await init.status).code}; it needs root`);
    }
    const pid = childrenOf(init.pid)[0];
    if (pid === undefined) throw new Error(`Cannot make the emulated host ${name}: its first process is gone`);
    return new EmulatedHost(name, init, pid, options);
  }

  /** What goes before a command so that it runs inside. */
  get #enter(): string[] {
    return ["nsenter", "-t", String(this.pid), "-m", "-u", "-n", "-p", "-r", "-w", "--"];
  }

  /** Runs a program inside to its end; exit status other than 0 throws. */
  exec(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return run([...this.#enter, ...command], options);
  }

  /** Runs a program inside to its end, whatever its exit status. */
  attempt(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return attempt([...this.#enter, ...command], options);
  }

  /** Runs a line of shell inside and returns what it prints; exit status other than 0 throws. */
  async sh(script: string, options: CommandOptions = {}): Promise<string> {
    return (await this.exec(["sh", "-ec", script], options)).stdout.trim();
  }

  /** Starts a program inside; dispose of it, or it lives as long as the host. */
  spawn(command: readonly string[], options: CommandOptions = {}): RunningCommand {
    return start([...this.#enter, ...command], options);
  }

  /** Runs `weave …` and returns its standard output; exit status other than 0 throws. */
  async weave(...args: string[]): Promise<string> {
    return (await this.exec([...this.weaveCommand(), ...args], this.#weaveOptions())).stdout.trim();
  }

  /** Runs `weave …` whatever its exit status. */
  attemptWeave(...args: string[]): Promise<CommandResult> {
    return this.attempt([...this.weaveCommand(), ...args], this.#weaveOptions());
  }

  /** What stands before the arguments of a weave command. */
  weaveCommand(): readonly string[] {
    return this.#options.weave ?? compiledWeave();
  }

  #weaveOptions(): CommandOptions {
    return this.#options.env ? { env: this.#options.env } : {};
  }

  /** A network namespace as a container has one, by the name `netns:/run/netns/NAME` for weave. */
  async container(name: string): Promise<Container> {
    await this.exec(["ip", "netns", "add", name]);
    await this.exec(["ip", "-n", name, "link", "set", "lo", "up"]);
    return new Container(this, name);
  }

  /** Its address on the underlay: of the first port, or of the one that leads to the other host directly. */
  address(towards?: EmulatedHost): string {
    const port = towards ? this.ports.find((port) => port.neighbours.includes(towards)) : this.ports[0];
    if (!port) throw new Error(`${this.name} has no port${towards ? ` towards ${towards.name}` : ""}`);
    return port.address;
  }

  /** What one wants to read when a test has failed. */
  async report(): Promise<string> {
    const show = async (...args: string[]) => {
      const result = await this.attemptWeave(...args);
      return `$ weave ${args.join(" ")}\n${result.stdout}${result.stderr}`;
    };
    const log = await this.attempt(["tail", "-n", "40", "/var/log/weave.log"]);
    const parts = [await show("status"), await show("status", "connections"), `$ tail weave.log\n${log.stdout}`];
    return [`--- ${this.name} ---`, ...parts].join("\n");
  }

  /** Ends every process inside at once, and with them the namespaces. @throws where a router has logged an error */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#disposed) return;
    this.#disposed = true;
    const expected = this.#options.errorsExpected === true;
    const errors = expected ? "" : (await this.attempt(["grep", "-E", "^(ERRO|FATA):", "/var/log/weave.log"])).stdout;
    await this.#init.stdin.close().catch(() => {});
    await this.#init.status;
    if (errors !== "") throw new Error(`A router on ${this.name} has logged errors:\n${errors}`);
  }
}

/** A network namespace inside an emulated host, standing in for a container. */
export class Container {
  readonly reference: string;

  constructor(readonly host: EmulatedHost, readonly name: string) {
    this.reference = `netns:/run/netns/${name}`;
  }

  exec(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.host.exec(["ip", "netns", "exec", this.name, ...command], options);
  }

  attempt(command: readonly string[], options: CommandOptions = {}): Promise<CommandResult> {
    return this.host.attempt(["ip", "netns", "exec", this.name, ...command], options);
  }

  spawn(command: readonly string[], options: CommandOptions = {}): RunningCommand {
    return this.host.spawn(["ip", "netns", "exec", this.name, ...command], options);
  }

  async sh(script: string, options: CommandOptions = {}): Promise<string> {
    return (await this.exec(["sh", "-ec", script], options)).stdout.trim();
  }

  /** One ping, as the compatibility tests send it: one packet, two seconds. */
  async pings(address: string, ...options: string[]): Promise<boolean> {
    return (await this.attempt(["ping", "-n", "-q", "-c", "1", "-W", "2", ...options, address])).code === 0;
  }

  /** Whole frames in and out of one of its links, in this process. */
  openLink(device: string, etherType: number): PacketSocket {
    // The host's mounts, seen through its first process.
    return withNetns(`/proc/${this.host.pid}/root/run/netns/${this.name}`, () => {
      using links = new Links();
      const link = links.find(device);
      if (link === undefined) throw new Error(`${this.name} has no link ${device}`);
      return new PacketSocket({ link: link.index, protocol: etherType });
    });
  }

  async remove(): Promise<void> {
    await this.host.exec(["ip", "netns", "del", this.name]);
  }
}

async function printedReady(init: Deno.ChildProcess): Promise<boolean> {
  let text = "";
  const decoder = new TextDecoder();
  for await (const octets of init.stdout) {
    text += decoder.decode(octets, { stream: true });
    if (text.includes("ready\n")) return true;
  }
  return false;
}
