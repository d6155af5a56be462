/** A laboratory: emulated hosts and what joins them, all gone when it is disposed of. */

import { allEnded, run } from "./command.ts";
import { EmulatedHost, type HostOptions } from "./host.ts";
import { Link, Port, setFilter } from "./link.ts";

export class Lab implements AsyncDisposable {
  readonly hosts: EmulatedHost[] = [];
  #subnets = 0;

  constructor(readonly defaults: HostOptions = {}) {}

  async host(name: string, options: HostOptions = {}): Promise<EmulatedHost> {
    const host = await EmulatedHost.create(name, { ...this.defaults, ...options });
    this.hosts.push(host);
    return host;
  }

  /** Joins two hosts by a cable with a subnet of its own; unless told otherwise, the first gets `.1`, the second `.2`. */
  async link(a: EmulatedHost, b: EmulatedHost, addresses?: readonly [string, string]): Promise<Link> {
    const subnet = this.#nextSubnet();
    const [ofA, ofB] = addresses ?? [`${subnet}.1`, `${subnet}.2`];
    const ports: [Port, Port] = [nextPort(a, ofA), nextPort(b, ofB)];
    await plug(ports[0], { host: b, device: ports[1].device });
    for (const port of ports) await configure(port);
    ports[0].neighbours.push(b);
    ports[1].neighbours.push(a);
    return new Link(ports);
  }

  /** Joins hosts by a switch: one subnet of 256, unless told otherwise with addresses in their order from `.1` on. */
  async switch(hosts: readonly EmulatedHost[], addresses?: readonly string[]): Promise<Port[]> {
    const subnet = this.#nextSubnet();
    const box = await this.host(`switch${this.#subnets}`);
    await box.exec(["ip", "link", "add", "switch", "type", "bridge"]);
    await box.exec(["ip", "link", "set", "switch", "up"]);
    const ports: Port[] = [];
    for (const [i, host] of hosts.entries()) {
      const port = nextPort(host, addresses?.[i] ?? `${subnet}.${i + 1}`);
      await plug(port, { host: box, device: `port${i}` });
      await box.exec(["ip", "link", "set", `port${i}`, "master", "switch", "up"]);
      await configure(port);
      port.neighbours.push(...hosts.filter((other) => other !== host));
      ports.push(port);
    }
    return ports;
  }

  #nextSubnet(): string {
    return `192.168.${++this.#subnets}`;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const ends = await Promise.allSettled(this.hosts.map((host) => host[Symbol.asyncDispose]()));
    await allEnded();
    const failures = ends.filter((end) => end.status === "rejected").map(({ reason }) => (reason as Error).message);
    if (failures.length > 0) throw new Error(failures.join("\n"));
  }
}

/** Lets a host pass on what is not for it, and be the others' way to each other. */
export async function makeRouter(host: EmulatedHost): Promise<void> {
  await host.sh("echo 1 > /proc/sys/net/ipv4/ip_forward");
}

/** Hides what comes from behind a router behind its own address on one port, as home routers do. */
export async function masquerade(port: Port): Promise<void> {
  const hook = "type nat hook postrouting priority srcnat";
  const rules = [`oifname "${port.device}" masquerade`];
  await setFilter(port.host, { family: "ip", table: "lab_nat", hook, rules });
}

/** Makes a router a path-MTU black hole: it keeps to itself that a packet was too large. */
export async function dropFragmentationNeeded(router: EmulatedHost): Promise<void> {
  const hook = "type filter hook output priority 0";
  const rules = ["icmp type destination-unreachable icmp code 4 drop"];
  await setFilter(router, { family: "ip", table: "lab_black_hole", hook, rules });
}

function nextPort(host: EmulatedHost, address: string): Port {
  return new Port(host, `eth${host.ports.length}`, address);
}

/** Creates both ends of a cable where they belong, so that no name is ever taken outside. */
async function plug(port: Port, far: { host: EmulatedHost; device: string }): Promise<void> {
  const near = ["ip", "link", "add", port.device, "netns", String(port.host.pid), "type", "veth"];
  await run([...near, "peer", "name", far.device, "netns", String(far.host.pid)]);
}

async function configure(port: Port): Promise<void> {
  await port.host.exec(["ip", "address", "add", `${port.address}/24`, "dev", port.device]);
  await port.host.exec(["ip", "link", "set", port.device, "up"]);
}
