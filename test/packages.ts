/** Debian packages that tests need: said before they are installed, no service among them is ever started. */

import { homedir } from "node:os";
import { join } from "node:path";
import { run } from "./netns/command.ts";

export interface Tool {
  readonly package: string;
  /** The program or file that shows that it is there. */
  readonly probe: string;
  readonly why: string;
}

/** What the demonstration needs. */
export const DEMO_TOOLS: readonly Tool[] = [
  { package: "iproute2", probe: "ip", why: "makes namespaces and links" },
  { package: "iptables", probe: "iptables", why: "weave's rules for expose" },
  { package: "nftables", probe: "nft", why: "weave's rules for services" },
  { package: "netcat-openbsd", probe: "nc", why: "sends a line" },
];

/** What tests with emulated hosts need. */
export const NETWORK_TOOLS: readonly Tool[] = [
  ...DEMO_TOOLS,
  { package: "iputils-ping", probe: "ping", why: "asks whether a host answers" },
  { package: "socat", probe: "socat", why: "serves and asks, over TCP and UDP" },
  { package: "curl", probe: "curl", why: "downloads" },
  { package: "iperf3", probe: "iperf3", why: "loads the network" },
  { package: "tcpdump", probe: "tcpdump", why: "looks at what is on the wire" },
  { package: "ethtool", probe: "ethtool", why: "shows offload settings" },
  { package: "procps", probe: "ps", why: "looks for processes left behind" },
  { package: "bind9-dnsutils", probe: "dig", why: "asks DNS servers" },
  { package: "dnsmasq-base", probe: "dnsmasq", why: "a DNS server to ask for what is not ours" },
  { package: "libsodium23", probe: "/usr/lib/*/libsodium.so.23", why: "the fast way to encrypt" },
];

/** What measures the DNS server, and what it is measured beside. */
export const DNS_TOOLS: readonly Tool[] = [
  { package: "dnsperf", probe: "dnsperf", why: "asks a DNS server as fast as it can" },
  { package: "dnsmasq-base", probe: "dnsmasq", why: "answers the same names" },
  { package: "unbound", probe: "unbound", why: "answers the same names" },
];

/** What services are measured beside. */
export const PROXY: Tool = { package: "haproxy", probe: "haproxy", why: "passes connections on in user space" };

/** What compares C structs with what a compiler says, and starts the executable for arm64. */
export const COMPILERS: readonly Tool[] = [
  { package: "gcc", probe: "gcc", why: "prints the layouts of C structs" },
  { package: "libc6-dev", probe: "/usr/include/linux/if_tun.h", why: "the kernel's headers" },
  { package: "gcc-aarch64-linux-gnu", probe: "aarch64-linux-gnu-gcc", why: "prints them for arm64" },
  { package: "libc6-dev-arm64-cross", probe: "/usr/aarch64-linux-gnu/include/linux/if_tun.h", why: "the same headers" },
  { package: "qemu-user-static", probe: "qemu-aarch64-static", why: "starts arm64 programs" },
  { package: "libc6-arm64-cross", probe: "/usr/aarch64-linux-gnu/lib/libc.so.6", why: "what they are linked with" },
  {
    package: "libgcc-s1-arm64-cross",
    probe: "/usr/aarch64-linux-gnu/lib/libgcc_s.so.1",
    why: "what they are linked with",
  },
];

/** What the runtime base is fetched with where Deno cannot fetch it. */
export const PIP: Tool = { package: "python3-pip", probe: "pip3", why: "fetches the runtime base of the executable" };

/** A Docker engine and an image, unpacked and never installed: an engine that is installed is started at the next boot. */
const DOCKER_PACKAGES = ["docker.io", "containerd", "runc", "tini", "libdevmapper1.02.1", "busybox-static"];

/** Installs what is missing; says first what and why. Throws when it cannot. */
export async function ensureTools(tools: readonly Tool[]): Promise<void> {
  const missing = tools.filter((tool) => !isThere(tool.probe));
  if (missing.length === 0) return;
  console.log("Installing Debian packages:");
  for (const tool of missing) console.log(`  ${tool.package.padEnd(22)} ${tool.why}`);
  await withServicesDenied(async () => {
    await apt(["update", "-qq"]);
    await apt(["install", "-qq", "--yes", "--no-install-recommends", ...missing.map((tool) => tool.package)]);
  });
}

const DOCKERD = "usr/sbin/dockerd";

/** The folder of an unpacked Docker engine (`usr/sbin/dockerd`, `bin/busybox`), downloaded once. */
export function dockerTree(): Promise<string> {
  return unpackedTree("docker", DOCKERD, DOCKER_PACKAGES);
}

/** Such a folder, if there is one: of an earlier download, or `/` where Docker and busybox are installed. */
export function findDockerTree(): string | undefined {
  return [join(cacheFolder(), "docker"), "/"].find((tree) =>
    isThere(join(tree, DOCKERD)) && isThere(join(tree, "bin/busybox"))
  );
}

/** The reference plugins of CNI (`usr/lib/cni/portmap`), downloaded once; undefined where they are not to be had. */
export async function cniPlugins(): Promise<string | undefined> {
  try {
    return join(
      await unpackedTree("cni-plugins", "usr/lib/cni/portmap", ["containernetworking-plugins"]),
      "usr/lib/cni",
    );
  } catch {
    return undefined;
  }
}

const CNITOOL = "github.com/containernetworking/cni/cnitool@v1.1.2";

/** A container runtime that does nothing but call CNI plugins, built once; a reason instead where it is not to be had. */
export async function cniTool(): Promise<{ readonly path: string } | { readonly reason: string }> {
  const path = join(cacheFolder(), "cnitool");
  if (isThere(path)) return { path };
  const go = isThere("go") ? "go" : "/usr/local/go/bin/go";
  if (!isThere(go)) return { reason: "there is no Go to build cnitool with" };
  const folder = await Deno.makeTempDir({ prefix: "weave-cnitool-" });
  try {
    console.log(`Building ${CNITOOL}`);
    await run([go, "install", CNITOOL], { env: { GOBIN: folder }, timeoutMs: 300_000 });
    await Deno.mkdir(cacheFolder(), { recursive: true });
    await run(["cp", join(folder, "cnitool"), path]);
    return { path };
  } catch (error) {
    return { reason: `cnitool cannot be built: ${(error as Error).message.split("\n", 2).join(" ")}` };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function cacheFolder(): string {
  return join(Deno.env.get("XDG_CACHE_HOME") || join(homedir(), ".cache"), "weave-build");
}

/** Debian packages, unpacked into our cache and never installed. Nothing outside it changes. */
async function unpackedTree(name: string, probe: string, packages: readonly string[]): Promise<string> {
  const tree = join(cacheFolder(), name);
  if (isThere(join(tree, probe))) return tree;
  console.log(`Unpacking Debian packages into ${tree}: ${packages.join(", ")}`);
  const folder = await Deno.makeTempDir({ prefix: "weave-packages-" });
  try {
    await apt(["update", "-qq"]);
    // As root and into a folder that apt's own user cannot write: it would warn about that.
    await run(
      ["sh", "-ec", `cd "$1"; shift; apt-get download -qq -o APT::Sandbox::User=root "$@"`, "sh", folder].concat(
        packages,
      ),
      { timeoutMs: 300_000 },
    );
    const unpacked = join(folder, "tree");
    for (const entry of Deno.readDirSync(folder)) {
      if (entry.name.endsWith(".deb")) await run(["dpkg-deb", "-x", join(folder, entry.name), unpacked]);
    }
    await Deno.mkdir(cacheFolder(), { recursive: true });
    await run(["cp", "-a", unpacked, tree], { timeoutMs: 60_000 });
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
  return tree;
}

/** Is this program in the path, or does this path exist? A `*` stands for one folder's name. */
export function isThere(probe: string): boolean {
  if (probe.includes("*")) {
    const [before, after] = probe.split("*") as [string, string];
    return namesIn(before).some((name) => exists(before + name + after));
  }
  if (probe.startsWith("/")) return exists(probe);
  const path = `${Deno.env.get("PATH") ?? ""}:/usr/local/sbin:/usr/sbin:/sbin`;
  return path.split(":").some((folder) => exists(join(folder, probe)));
}

/** Debian asks this file before it starts a service; ours says no, and goes again. An administrator's own stays. */
async function withServicesDenied(action: () => Promise<void>): Promise<void> {
  const policy = "/usr/sbin/policy-rc.d";
  const ours = !exists(policy);
  if (ours) await Deno.writeTextFile(policy, "#!/bin/sh\nexit 101\n", { mode: 0o755 });
  try {
    await action();
  } finally {
    if (ours) await Deno.remove(policy);
  }
}

async function apt(args: string[]): Promise<void> {
  if (!isThere("apt-get")) throw new Error("Cannot install packages: there is no apt-get; please install them by hand");
  await run(["apt-get", "-o", "DPkg::Lock::Timeout=120", ...args], {
    env: { DEBIAN_FRONTEND: "noninteractive" },
    timeoutMs: 600_000,
  });
}

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

function namesIn(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map((entry) => entry.name);
  } catch {
    return [];
  }
}
