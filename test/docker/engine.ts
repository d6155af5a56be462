/** A real Docker engine on an emulated host, with an image made of busybox: nothing is pulled. */

import { join } from "node:path";
import type { RunningCommand } from "../netns/command.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { waitFor } from "../netns/wait.ts";
import { dockerTree } from "../packages.ts";

export const IMAGE = "busybox";

const READY_MS = 30_000;

/** What the image offers. */
const PROGRAMS = ["sh", "ping", "nc", "ip", "ls", "cat", "sleep", "hostname", "nslookup"];

/** Where the engine puts its containers' control groups, to be found and removed afterwards. */
const CGROUP = `/weave-test-${Deno.pid}`;

const MOUNT_CGROUP2 = "mount -t cgroup2 cgroup2 /sys/fs/cgroup";

const MOUNT_CGROUP1 = `
mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
for controller in $(awk '!/^#/ && $4 == 1 { print $1 }' /proc/cgroups); do
  mkdir /sys/fs/cgroup/$controller
  mount -t cgroup -o $controller cgroup /sys/fs/cgroup/$controller || rmdir /sys/fs/cgroup/$controller
done
# Where there is a hierarchy of systemd's, the engine puts processes there as well.
if grep -q ':name=systemd:' /proc/self/cgroup; then
  mkdir /sys/fs/cgroup/systemd
  mount -t cgroup -o none,name=systemd cgroup /sys/fs/cgroup/systemd || rmdir /sys/fs/cgroup/systemd
fi
`;

/** Called with the folder of the engine and the programs. */
const BUILD_IMAGE = `
mkdir -p /run/image/bin
cp "$0/bin/busybox" /run/image/bin/busybox
for program in "$@"; do ln -s busybox "/run/image/bin/$program"; done
tar -C /run/image -c . | docker import - ${IMAGE}
`;

/** The variables with which `docker` and its engine are found, for a host that shall have them. */
export async function dockerEnvironment(inTree?: string): Promise<Record<string, string>> {
  const tree = inTree ?? await dockerTree();
  const programs = ["usr/sbin", "usr/bin"].map((folder) => join(tree, folder));
  const libraries = ["usr/lib", "lib"].map((folder) => join(tree, folder, `${Deno.build.arch}-linux-gnu`));
  return { PATH: [...programs, Deno.env.get("PATH")].join(":"), LD_LIBRARY_PATH: libraries.join(":") };
}

export class DockerEngine implements AsyncDisposable {
  private constructor(
    readonly host: EmulatedHost,
    readonly env: Readonly<Record<string, string>>,
    public daemon: RunningCommand,
  ) {}

  /** @param inTree where its programs are; downloaded unless said otherwise */
  static async start(host: EmulatedHost, inTree?: string): Promise<DockerEngine> {
    const tree = inTree ?? await dockerTree();
    const env = await dockerEnvironment(tree);
    const unified = /^\S+ \/sys\/fs\/cgroup cgroup2 /m.test(await Deno.readTextFile("/proc/self/mounts"));
    await host.sh(unified ? MOUNT_CGROUP2 : MOUNT_CGROUP1);
    await host.sh("mkdir -p /var/lib/docker && mount -t tmpfs tmpfs /var/lib/docker");
    const engine = new DockerEngine(host, env, startDaemon(host, env));
    try {
      await engine.#untilReady();
      await host.exec(["sh", "-ec", BUILD_IMAGE, tree, ...PROGRAMS], { env });
    } catch (error) {
      await engine[Symbol.asyncDispose]();
      throw error;
    }
    return engine;
  }

  /** Ends it in that way; containers go on where it has no time to end them. */
  async stop(signal: Deno.Signal): Promise<void> {
    this.daemon.signal(signal);
    await this.daemon.finished(30_000);
  }

  /** Starts it again after `stop`. Where it has networks whose driver is away it waits for that first. */
  async startAgain(deadlineMs = READY_MS): Promise<void> {
    // What a killed one leaves behind keeps the next one from starting.
    await this.host.sh("rm -f /var/run/docker.pid");
    this.daemon = startDaemon(this.host, this.env);
    await this.#untilReady(deadlineMs);
  }

  async #untilReady(deadlineMs = READY_MS): Promise<void> {
    await waitFor("the Docker engine", async () => {
      if (this.daemon.ended) throw new Error(`dockerd has ended: ${this.daemon.stderr.slice(-2000)}`);
      return (await this.host.attempt(["timeout", "5", "docker", "version"], { env: this.env })).code === 0;
    }, deadlineMs);
  }

  /** Runs `docker …` and returns what it prints. */
  async docker(...args: string[]): Promise<string> {
    return (await this.host.exec(["docker", ...args], { env: this.env, timeoutMs: 60_000 })).stdout.trim();
  }

  /** Runs a program in a container; is its exit status 0? */
  async succeeds(container: string, ...command: string[]): Promise<boolean> {
    return (await this.host.attempt(["docker", "exec", container, ...command], { env: this.env })).code === 0;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const remove = "docker ps -aq | xargs -r docker rm -f >/dev/null";
    await this.host.attempt(["sh", "-c", remove], { env: this.env, timeoutMs: 60_000 });
    await this.daemon[Symbol.asyncDispose]();
    await this.host.attempt([
      "find",
      "/sys/fs/cgroup",
      "-depth",
      "-type",
      "d",
      "-path",
      `*${CGROUP}*`,
      "-exec",
      "rmdir",
      "{}",
      "+",
    ]);
  }
}

function startDaemon(host: EmulatedHost, env: Readonly<Record<string, string>>): RunningCommand {
  return host.spawn(["dockerd", "--userland-proxy=false", `--cgroup-parent=${CGROUP}`], { env });
}
