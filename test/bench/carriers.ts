/** What carries frames between two emulated hosts, one way each: set up on fresh hosts, gone with them. */

import { join } from "node:path";
import type { Container, EmulatedHost } from "../netns/host.ts";
import { attachNew, routerPid, waitEstablished } from "../netns/mesh.ts";
import { isThere } from "../packages.ts";

/** Where traffic starts and ends: a container, or the host itself where there is nothing between. */
export type Endpoint = Pick<Container, "exec" | "attempt" | "spawn" | "sh">;

export interface Path {
  readonly from: Endpoint;
  readonly to: Endpoint;
  /** Of `to`. */
  readonly address: string;
  /** The carrier's processes on both hosts, by their numbers outside; none for what the kernel does. */
  readonly processes: readonly number[];
}

export interface Carrier {
  readonly name: string;
  readonly encrypted: boolean;
  /** Why it cannot be measured here, if so. */
  readonly missing?: string | undefined;
  setUp(a: EmulatedHost, b: EmulatedHost): Promise<Path>;
}

export const CARRIERS: readonly Carrier[] = [
  { name: "no overlay", encrypted: false, setUp: noOverlay },
  { name: "kernel VXLAN", encrypted: false, setUp: vxlan },
  { name: "weave", encrypted: false, setUp: (a, b) => weave(a, b, {}) },
  { name: "weave encrypted", encrypted: true, setUp: (a, b) => weave(a, b, { WEAVE_PASSWORD: "secret" }) },
  { name: "weave encrypted (WebAssembly)", encrypted: true, setUp: weaveWithoutLibrary },
  { name: "tinc (switch)", encrypted: true, missing: without("tincd"), setUp: tinc },
  { name: "nebula (host to host)", encrypted: true, missing: without("nebula-cert"), setUp: nebula },
  { name: "OpenVPN (TAP)", encrypted: true, missing: without("openvpn", "openssl"), setUp: openvpn },
];

function without(...programs: string[]): string | undefined {
  const missing = programs.filter((program) => !isThere(program));
  return missing.length > 0 ? `${missing.join(" and ")} not installed` : undefined;
}

function noOverlay(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  return Promise.resolve({ from: a, to: b, address: b.address(a), processes: [] });
}

async function vxlan(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  for (const [host, other] of [[a, b], [b, a]] as const) {
    const ends = ["local", host.address(other), "remote", other.address(host), "dstport", "4789"];
    await host.exec(["ip", "link", "add", "tunnel", "type", "vxlan", "id", "7", ...ends, "dev", "eth0"]);
  }
  return { ...await bridged(a, b), processes: [] };
}

async function weave(a: EmulatedHost, b: EmulatedHost, env: Record<string, string>): Promise<Path> {
  const password = env.WEAVE_PASSWORD ? ["--password", env.WEAVE_PASSWORD] : [];
  await a.weave("launch", ...password);
  await b.weave("launch", ...password, a.address(b));
  await waitEstablished(a, [b]);
  const from = await attachNew(a, "c1", "10.0.0.1/24");
  const to = await attachNew(b, "c2", "10.0.0.2/24");
  const processes = await Promise.all([a, b].map(async (host) => pidOutside(host, await routerPid(host))));
  return { from, to, address: "10.0.0.2", processes };
}

/** As on a host without libsodium: the executable brings a build of it along. */
async function weaveWithoutLibrary(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  for (const host of [a, b]) {
    await host.sh(
      'for file in /usr/lib/*/libsodium.so.[0-9]*; do [ ! -e "$file" ] || mount --bind /dev/null "$file"; done',
    );
  }
  const path = await weave(a, b, { WEAVE_PASSWORD: "secret" });
  const used = await a.weave("report", "-f", "{{.Router.SecretBox}}");
  if (!used.includes("WebAssembly")) throw new Error(`Cannot measure WebAssembly: ${used} encrypts`);
  return path;
}

async function tinc(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  const names = new Map([[a, "a"], [b, "b"]]);
  for (const [host, other] of [[a, b], [b, a]] as const) {
    const connect = host === b ? "ConnectTo = a\n" : "";
    await host.sh("mkdir -p /run/tinc/hosts");
    await write(
      host,
      "/run/tinc/tinc.conf",
      `Name = ${names.get(host)}\nMode = switch\nInterface = tunnel\n${connect}`,
    );
    await write(host, `/run/tinc/hosts/${names.get(host)}`, `Address = ${host.address(other)}\n`);
    await host.sh("tincd -c /run/tinc -K2048 </dev/null");
  }
  for (const [host, other] of [[a, b], [b, a]] as const) {
    const file = `/run/tinc/hosts/${names.get(other)}`;
    await write(host, file, await other.sh(`cat ${file}`));
  }
  const running = [a, b].map((host) => host.spawn(["tincd", "-c", "/run/tinc", "-D"]));
  return { ...await bridged(a, b), processes: await pidsOf([a, b], "tincd", running.length) };
}

async function nebula(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  await a.sh(
    "mkdir /run/nebula; cd /run/nebula; nebula-cert ca -name bench; for n in 1 2; do nebula-cert sign -name h$n -ip 10.9.0.$n/24; done",
  );
  await b.sh("mkdir /run/nebula");
  for (const file of ["ca.crt", "h2.crt", "h2.key"]) {
    await write(b, `/run/nebula/${file}`, await a.sh(`cat /run/nebula/${file}`) + "\n");
  }
  for (const [host, n] of [[a, 1], [b, 2]] as const) {
    const config = {
      pki: { ca: "/run/nebula/ca.crt", cert: `/run/nebula/h${n}.crt`, key: `/run/nebula/h${n}.key` },
      static_host_map: { "10.9.0.1": [`${a.address(b)}:4242`] },
      lighthouse: { am_lighthouse: n === 1, hosts: n === 1 ? [] : ["10.9.0.1"] },
      listen: { host: "0.0.0.0", port: 4242 },
      cipher: "aes",
      tun: { dev: "tunnel", mtu: 1440 },
      firewall: {
        outbound: [{ port: "any", proto: "any", host: "any" }],
        inbound: [{ port: "any", proto: "any", host: "any" }],
      },
    };
    await write(host, "/run/nebula/config.yml", JSON.stringify(config)); // which is YAML
    host.spawn(["nebula", "-config", "/run/nebula/config.yml"]);
  }
  return { from: a, to: b, address: "10.9.0.2", processes: await pidsOf([a, b], "nebula", 2) };
}

async function openvpn(a: EmulatedHost, b: EmulatedHost): Promise<Path> {
  const subject = [
    "-newkey",
    "ec",
    "-pkeyopt",
    "ec_paramgen_curve:prime256v1",
    "-nodes",
    "-days",
    "9",
    "-subj",
    "/CN=bench",
  ];
  const fingerprints = await Promise.all([a, b].map(async (host) => {
    await host.exec(["openssl", "req", "-x509", ...subject, "-keyout", "/run/key.pem", "-out", "/run/cert.pem"]);
    return (await host.sh("openssl x509 -in /run/cert.pem -noout -fingerprint -sha256")).split("=")[1]!;
  }));
  const common = ["--dev", "tunnel", "--dev-type", "tap", "--proto", "udp", "--cipher", "AES-256-GCM"];
  const identity = ["--key", "/run/key.pem", "--cert", "/run/cert.pem"];
  const peer = (fingerprint: string) => ["--peer-fingerprint", fingerprint];
  a.spawn(["openvpn", ...common, ...identity, ...peer(fingerprints[1]!), "--tls-server", "--dh", "none"]);
  const remote = ["--tls-client", "--remote", a.address(b)];
  b.spawn(["openvpn", ...common, ...identity, ...peer(fingerprints[0]!), ...remote]);
  return { ...await bridged(a, b), processes: await pidsOf([a, b], "openvpn", 2) };
}

/** A container on each host, joined by a bridge to the device `tunnel`, with the MTU that an underlay of 1500 leaves. */
async function bridged(a: EmulatedHost, b: EmulatedHost): Promise<Omit<Path, "processes">> {
  const ends: Container[] = [];
  for (const [host, number] of [[a, 1], [b, 2]] as const) {
    const container = await host.container("c1");
    await host.sh(`
      ip link add br0 type bridge
      for i in $(seq 50); do ip link show tunnel >/dev/null 2>&1 && break; sleep 0.1; done
      ip link add plug type veth peer name ethwe netns c1
      ip link set plug master br0 up
      ip link set tunnel master br0 up
      ip link set br0 up`);
    await container.sh(`ip link set ethwe mtu 1400 up; ip address add 10.0.0.${number}/24 dev ethwe`);
    ends.push(container);
  }
  return { from: ends[0]!, to: ends[1]!, address: "10.0.0.2" };
}

async function write(host: EmulatedHost, path: string, content: string): Promise<void> {
  await host.exec(["sh", "-ec", 'cat > "$0"', path], { input: content });
}

/** The processes of that name on these hosts, once so many of them run. */
async function pidsOf(hosts: readonly EmulatedHost[], name: string, count: number): Promise<number[]> {
  for (let tries = 0; tries < 50; tries++) {
    const inside = await Promise.all(hosts.map(async (host) => {
      const { stdout } = await host.attempt(["pidof", name]);
      return stdout.trim().split(" ").filter(Boolean).map((pid) => pidOutside(host, Number(pid)));
    }));
    const pids = inside.flat();
    if (pids.length >= count) return pids;
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  throw new Error(`Cannot measure ${name}: it does not run`);
}

/** The number that a process inside a host has out here: the last column of NSpid is the one inside. */
function pidOutside(host: EmulatedHost, inside: number): number {
  const namespace = Deno.readLinkSync(`/proc/${host.pid}/ns/pid`);
  for (const entry of Deno.readDirSync("/proc")) {
    if (!/^\d+$/.test(entry.name)) continue;
    try {
      if (Deno.readLinkSync(join("/proc", entry.name, "ns/pid")) !== namespace) continue;
      const columns = /NSpid:\s+(.*)/.exec(Deno.readTextFileSync(join("/proc", entry.name, "status")))![1]!.split(
        /\s+/,
      );
      if (Number(columns.at(-1)) === inside) return Number(entry.name);
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`No process ${inside} on ${host.name}`);
}
