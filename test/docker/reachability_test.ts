import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

const RANGE = ["--ipalloc-range", "10.40.0.0/16", "--ipalloc-default-subnet", "10.40.0.0/24"];
const OTHER_SUBNET = "10.40.1.0/24";
/** Everybody is in it, without asking. */
const GROUP = "224.0.0.1";

/** A container, by whatever way it came into the network. */
interface Member {
  readonly name: string;
  readonly engine: DockerEngine;
  readonly subnet: string;
  readonly device: string;
  address: string;
}

testAsRoot("containers reach those of their subnet, by unicast and by multicast, and no others", async (t) => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch", ...RANGE);
  await host2.weave("launch", ...RANGE, host1.address());
  await waitEstablished(host1, [host2]);

  const members: Member[] = [];
  for (const [number, engine] of [[1, engine1], [2, engine2]] as const) {
    const { host } = engine;
    await engine.docker(
      ...["network", "create", "-d", "weavemesh", "--ipam-driver", "weavemesh", "--subnet", OTHER_SUBNET],
      ...["-o", "works.weave.multicast=true", "other"],
    );
    const proxy = await host.weave("config");
    for (const [name, subnet] of [["proxy", "10.40.0.0/24"], ["proxy-other", OTHER_SUBNET]] as const) {
      const run = [proxy, "run", "-d", "-e", `WEAVE_CIDR=net:${subnet}`, "--name", `${name}${number}`, ...sysctl];
      await engine.docker(...run, IMAGE, "sleep", "1000");
      members.push({ name: `${name}${number}`, engine, subnet, device: "ethwe", address: "" });
    }
    for (
      const [name, subnet, network] of [["net", "10.40.0.0/24", "weave"], ["net-other", OTHER_SUBNET, "other"]] as const
    ) {
      await engine.docker(
        "run",
        "-d",
        "--name",
        `${name}${number}`,
        ...sysctl,
        "--net",
        network,
        IMAGE,
        "sleep",
        "1000",
      );
      members.push({ name: `${name}${number}`, engine, subnet, device: "ethwe0", address: "" });
    }
  }
  for (const member of members) {
    const shown = await inside(member, "ip", "-4", "-o", "address", "show", member.device);
    member.address = /inet ([\d.]+)\/24/.exec(shown)?.[1] ?? assert.fail(`${member.name}: ${shown}`);
  }
  await t.step("unicast", async () => await check(members, lab.hosts, unicast));
  await t.step("multicast", async () => await check(members, lab.hosts, multicast));
});

const sysctl = ["--sysctl", "net.ipv4.icmp_echo_ignore_broadcasts=0"];

type Reach = (from: Member, members: readonly Member[]) => Promise<ReadonlySet<Member>>;

/** Prints the matrix, and compares it with what subnets say. */
async function check(members: readonly Member[], hosts: readonly EmulatedHost[], reach: Reach): Promise<void> {
  const wanted = members.map((from) => members.map((to) => from.subnet === to.subnet));
  let seen: boolean[][] = [];
  try {
    await waitFor(
      "those of one subnet to reach each other",
      async () => {
        const reached = await Promise.all(members.map((from) => reach(from, members)));
        seen = reached.map((set, i) => members.map((to) => set.has(to) || to === members[i]));
        return wanted.every((row, i) => row.every((want, j) => !want || seen[i]![j]));
      },
      20_000,
      hosts,
    );
  } finally {
    print(members, seen);
  }
  assert.deepEqual(seen, wanted);
}

async function unicast(from: Member, members: readonly Member[]): Promise<ReadonlySet<Member>> {
  const answers = await Promise.all(members.map((to) => pings(from, to.address)));
  return new Set(members.filter((_, i) => answers[i]!.length > 0));
}

async function multicast(from: Member, members: readonly Member[]): Promise<ReadonlySet<Member>> {
  const answering = await pings(from, GROUP);
  return new Set(members.filter(({ address }) => answering.includes(address)));
}

/** Who answers. */
async function pings(from: Member, address: string): Promise<string[]> {
  const { host } = from.engine;
  const { stdout } = await host.attempt([
    ...await enter(from),
    "ping",
    "-n",
    "-c",
    "2",
    "-i",
    "0.3",
    "-W",
    "1",
    address,
  ]);
  return [...stdout.matchAll(/bytes from ([\d.]+)/g)].map(([, who]) => who!);
}

async function inside(member: Member, ...command: string[]): Promise<string> {
  return (await member.engine.host.exec([...await enter(member), ...command])).stdout;
}

async function enter({ name, engine }: Member): Promise<string[]> {
  return ["nsenter", "-t", await engine.docker("inspect", "-f", "{{.State.Pid}}", name), "-n", "--"];
}

function print(members: readonly Member[], seen: readonly (readonly boolean[])[]): void {
  const width = Math.max(...members.map(({ name }) => name.length));
  console.log([" ".repeat(width), ...members.map(({ name }) => name)].join(" "));
  for (const [i, { name }] of members.entries()) {
    const row = members.map((to, j) => (seen[i]?.[j] ? "x" : ".").padStart(to.name.length));
    console.log([name.padEnd(width), ...row].join(" "));
  }
}
