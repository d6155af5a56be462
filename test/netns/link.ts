/** The underlay: cables and switches between emulated hosts, and everything that can be wrong with them. */

import type { EmulatedHost } from "./host.ts";

/** A host's end of a cable, `eth0` and so on, with its IPv4 address. */
export class Port {
  /** Who is on the other end: one host, or all that a switch joins. */
  readonly neighbours: EmulatedHost[] = [];
  #cut = false;
  #lossPercent = 0;
  #largestOctets = Infinity;

  constructor(readonly host: EmulatedHost, readonly device: string, readonly address: string) {
    host.ports.push(this);
  }

  /** Loses every arriving packet without a word, as a broken path does; the carrier stays. */
  async cut(cut = true): Promise<void> {
    this.#cut = cut;
    await this.#applyFilter();
  }

  /** Loses that share of the arriving packets at random. */
  async lose(percent: number): Promise<void> {
    this.#lossPercent = percent;
    await this.#applyFilter();
  }

  /** Loses arriving packets of more than so many octets, IP header included; the sender must not segment late. */
  async dropLarger(octets: number): Promise<void> {
    this.#largestOctets = octets;
    await this.#applyFilter();
  }

  async setMtu(octets: number): Promise<void> {
    await this.host.exec(["ip", "link", "set", this.device, "mtu", String(octets)]);
  }

  /** Sends what the kernel cuts into packets as these, not whole for the other end to cut: loss is for each then. */
  async segmentEarly(): Promise<void> {
    await this.host.exec(["ethtool", "-K", this.device, "gso", "off", "tso", "off", "tx-udp-segmentation", "off"]);
  }

  /** Lets at most so much leave, in words of tc(8): `100mbit`. */
  async limitRate(rate: string): Promise<void> {
    const shape = ["tbf", "rate", rate, "burst", "256kb", "latency", "50ms"];
    await this.host.exec(["tc", "qdisc", "replace", "dev", this.device, "root", ...shape]);
  }

  /** Takes the carrier away, as pulling the cable does. */
  async unplug(): Promise<void> {
    await this.host.exec(["ip", "link", "set", this.device, "down"]);
  }

  async #applyFilter(): Promise<void> {
    const rules: string[] = [];
    if (this.#cut) rules.push("drop");
    if (this.#lossPercent > 0) rules.push(`numgen random mod 100 < ${this.#lossPercent} drop`);
    if (this.#largestOctets < Infinity) rules.push(`meta protocol ip ip length > ${this.#largestOctets} drop`);
    const hook = `type filter hook ingress device "${this.device}" priority 0`;
    await setFilter(this.host, { family: "netdev", table: `lab_${this.device}`, hook, rules });
  }
}

/** Replaces a table of ours on a host by one chain with these rules, or by nothing when there are none. */
export async function setFilter(
  host: EmulatedHost,
  filter: { family: string; table: string; hook: string; rules: readonly string[] },
): Promise<void> {
  const table = `${filter.family} ${filter.table}`;
  const lines = [`add table ${table}`, `delete table ${table}`];
  if (filter.rules.length > 0) {
    lines.push(`table ${table} {`, "chain packets {", `${filter.hook};`, ...filter.rules, "}", "}");
  }
  await host.exec(["nft", "-f", "-"], { input: lines.join("\n") + "\n" });
}

/** A cable between two hosts. */
export class Link {
  constructor(readonly ports: readonly [Port, Port]) {}

  async cut(): Promise<void> {
    await Promise.all(this.ports.map((port) => port.cut()));
  }

  async heal(): Promise<void> {
    await Promise.all(this.ports.map((port) => port.cut(false)));
  }

  async lose(percent: number): Promise<void> {
    await this.segmentEarly();
    await Promise.all(this.ports.map((port) => port.lose(percent)));
  }

  async dropLarger(octets: number): Promise<void> {
    await this.segmentEarly();
    await Promise.all(this.ports.map((port) => port.dropLarger(octets)));
  }

  async segmentEarly(): Promise<void> {
    await Promise.all(this.ports.map((port) => port.segmentEarly()));
  }

  async setMtu(octets: number): Promise<void> {
    await Promise.all(this.ports.map((port) => port.setMtu(octets)));
  }

  async limitRate(rate: string): Promise<void> {
    await Promise.all(this.ports.map((port) => port.limitRate(rate)));
  }
}
