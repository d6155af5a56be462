/**
 * `deno task demo`: three emulated hosts in a line, of which the first and the last cannot reach each other; weave joins their
 * containers, those of Docker where an engine is there, and then two sites behind them that use the same addresses. It tells each
 * step, and leaves nothing behind.
 */

import { dirname, join } from "node:path";
import { compile, NoRuntimeBaseError } from "../dist/compile.ts";
import { ARCHITECTURES } from "../dist/runtime_base.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./docker/engine.ts";
import type { RunningCommand } from "./netns/command.ts";
import { weaveFromSources } from "./netns/executable.ts";
import type { Container, EmulatedHost } from "./netns/host.ts";
import { Lab } from "./netns/lab.ts";
import { waitFor } from "./netns/wait.ts";
import { DEMO_TOOLS, ensureTools, findDockerTree } from "./packages.ts";

const NETWORK_PORT = "4000";
const SERVICE_PORT = "5432";

async function main(): Promise<void> {
  if (Deno.uid() !== 0) throw new Error("The demonstration needs root, to make emulated hosts: run it with sudo");
  await ensureTools(DEMO_TOOLS);
  const weave = await buildWeave();
  const started = performance.now();
  const tree = findDockerTree();
  await using lab = new Lab(tree === undefined ? { weave } : { weave, env: await dockerEnvironment(tree) });
  const closeOnInterrupt = () => void lab[Symbol.asyncDispose]().finally(() => Deno.exit(130));
  Deno.addSignalListener("SIGINT", closeOnInterrupt);
  try {
    await show(lab, tree);
  } finally {
    Deno.removeSignalListener("SIGINT", closeOnInterrupt);
  }
  say(
    `That took ${
      Math.round((performance.now() - started) / 1000)
    } s. The emulated hosts are going now, with all that was on them.`,
  );
}

async function show(lab: Lab, tree: string | undefined): Promise<void> {
  say("Three hosts in a line. Each is a set of namespaces on this machine: host1 --- host2 --- host3");
  const [host1, host2, host3] = [await lab.host("host1"), await lab.host("host2"), await lab.host("host3")];
  await lab.link(host1, host2, ["198.51.100.1", "198.51.100.2"]);
  await lab.link(host2, host3, ["203.0.113.2", "203.0.113.3"]);
  for (const [host, near] of [[host1, host2], [host3, host2]] as const) {
    tell(`${host.name} has ${host.address()}, next to ${near.name} at ${near.address(host)}`);
  }

  say("host1 and host3 cannot reach each other: host2 does not pass their packets on.");
  await host3.sh(`nc -l -k ${NETWORK_PORT} >/dev/null 2>&1 &`);
  const tried = await host1.attempt(["nc", "-z", "-w", "1", host3.address(), NETWORK_PORT]);
  if (tried.code === 0) throw new Error("host1 reaches host3 already, so there is nothing to show");
  tell(`host1$ nc ${host3.address()} ${NETWORK_PORT}   -> no answer`);

  await using engine = tree === undefined ? undefined : await startEngine(host1, tree);

  say("A router on each. host1 and host3 are told of host2; nobody is told of more.");
  await weave(host2, "launch");
  await weave(host1, "launch", host2.address(host1));
  await weave(host3, "launch", host2.address(host3));
  await waitFor(
    "both connections of host2",
    async () => {
      const connections = await host2.weave("status", "connections");
      return connections.split("\n").filter((line) => line.includes(" established ")).length === 2;
    },
    15_000,
    lab.hosts,
  );

  say("A container on host1 and one on host3, and nothing on host2. Routers give out addresses, none of them twice.");
  const [one] = await attach(host1, "c1");
  const [three, address] = await attach(host3, "c3");

  say("c1 sends a line to c3, over the host in the middle.");
  await sendLine(one, three, address, "Hello from c1, two hosts away");

  say("The network is opened to host1 itself, which is no container, and it does the same.");
  const exposed = await weave(host1, "expose");
  await sendLine(host1, three, address, "Hello from host1, which is no container");

  say("Every router answers DNS for all names of the network. c1 asks host1, and sends a line to c3 by its name.");
  tell("c1$ cat /etc/resolv.conf");
  tell(`nameserver ${exposed}`);
  await host1.sh(`mkdir -p /etc/netns/c1; echo nameserver ${exposed} > /etc/netns/c1/resolv.conf`);
  await sendLine(one, three, address, "Hello from c1, which knows no address", "c3");

  await showRuntime(host1, three);
  if (engine !== undefined) await showDocker(engine, three);
  else say("There is no Docker engine on this machine to show how its containers are joined.");

  say("What host2 says about its connections:");
  await weave(host2, "status", "connections");
  await showServices(lab, host1, host3);
}

/** A machine of one site uses a service of another one, although the two have the same addresses. */
async function showServices(lab: Lab, host1: EmulatedHost, host3: EmulatedHost): Promise<void> {
  say("Behind host1 and host3 there is a site each, with plain machines that know nothing of weave. Both sites use");
  console.log("192.168.1.0/24, as half of all sites do. No route leads from one to the other, and none could.");
  const [till, stock, newStock] = [await lab.host("till"), await lab.host("stock"), await lab.host("new-stock")];
  await lab.switch([host1, till], ["192.168.1.1", "192.168.1.10"]);
  await lab.switch([host3, stock, newStock], ["192.168.1.1", "192.168.1.10", "192.168.1.11"]);
  for (const [machine, host] of [[till, host1], [stock, host3], [newStock, host3]] as const) {
    tell(`${machine.name.padEnd(9)} has ${machine.address()}, next to ${host.name}, which has 192.168.1.1`);
  }
  // Told to go on, as its health is checked by connecting to it.
  const listen = (machine: EmulatedHost) => machine.spawn(["nc", "-l", "-k", "-d", machine.address(), SERVICE_PORT]);
  await using arriving = listen(stock);
  await using arrivingNew = listen(newStock);
  for (const machine of [stock, newStock]) {
    await waitFor("nc to listen", async () => (await machine.sh("ss -ltn")).includes(`:${SERVICE_PORT}`), 5_000);
    tell(`${machine.name}$ nc -l -k ${machine.address()} ${SERVICE_PORT}`);
  }

  say("The till needs the stock. Its gateway host1 is to offer at 192.168.1.1 what host3 finds at 192.168.1.10.");
  await weave(host3, "service", "import", "stock", "--to", `${stock.address()}:${SERVICE_PORT}`);
  await waitFor(
    "host1 to know of it",
    async () => (await host1.weave("dns-lookup", "stock")) !== "",
    10_000,
    lab.hosts,
  );
  await weave(host1, "service", "export", "stock", "--listen", `192.168.1.1:${SERVICE_PORT}`);

  say("The till sends a line there. It arrives two hosts away, at a machine with the till's own address.");
  await sendToService(till, stock, arriving, "One bicycle sold");

  say("The stock moves to another machine. Nobody tells the till, which goes on as before.");
  await weave(host3, "service", "bind", "stock", `${newStock.address()}:${SERVICE_PORT}`);
  await sendToService(till, newStock, arrivingNew, "Two bicycles sold");

  say("What host1 says about it:");
  await weave(host1, "service", "show", "stock");
}

async function sendToService(
  from: EmulatedHost,
  to: EmulatedHost,
  arriving: RunningCommand,
  line: string,
): Promise<void> {
  tell(`${from.name}$ echo "${line}" | nc -N 192.168.1.1 ${SERVICE_PORT}`);
  const command = ["nc", "-N", "-w", "2", "192.168.1.1", SERVICE_PORT];
  // A name that was made a moment ago may not be in use everywhere yet.
  await waitFor(
    "the service",
    async () => (await from.attempt(command, { input: `${line}\n` })).code === 0,
    10_000,
  );
  await waitFor(`"${line}" at ${to.name}`, () => arriving.stdout.includes(line), 5_000);
  tell(`${to.name} received: ${arriving.stdout.trim()}`);
}

async function startEngine(host: EmulatedHost, tree: string): Promise<DockerEngine | undefined> {
  say(`There is a Docker engine on this machine: one of its own runs on ${host.name}, with an image of busybox.`);
  try {
    return await DockerEngine.start(host, tree);
  } catch (error) {
    tell(`It does not start: ${(error as Error).message.split("\n")[0]}`);
    return undefined;
  }
}

/** What a container runtime does that uses CNI. */
async function showRuntime(host: EmulatedHost, other: Container): Promise<void> {
  say(`Container runtimes call plugins (CNI) for the network of a container. On ${host.name} weave is one of them.`);
  const { code, stderr } = await host.attemptWeave("setup");
  tell(`${host.name}$ weave setup`);
  // Only the executable can be called by another name.
  if (code !== 0) return tell(stderr.trim());
  const container = await host.container("c4");
  const env = {
    CNI_COMMAND: "ADD",
    CNI_CONTAINERID: "c4",
    CNI_NETNS: "/run/netns/c4",
    CNI_IFNAME: "eth0",
    CNI_PATH: "/opt/cni/bin",
  };
  tell(`${host.name}$ CNI_COMMAND=ADD CNI_NETNS=${env.CNI_NETNS} … /opt/cni/bin/weave-net < weave.conf`);
  const input = JSON.stringify({ cniVersion: "1.0.0", name: "weave", type: "weave-net" });
  const { stdout } = await host.exec(["/opt/cni/bin/weave-net"], { env, input });
  const address: string = JSON.parse(stdout).ips[0].address;
  tell(address);
  await ping(other, address.replace(/\/.*/, ""), container.name);
}

/** A container of Docker's in each way. */
async function showDocker(engine: DockerEngine, other: Container): Promise<void> {
  const { host } = engine;
  const busybox = [IMAGE, "sleep", "1000"];
  say("Docker: weave run starts a container whose process begins when its network is there.");
  const id = await weave(host, "run", "--name", "d1", ...busybox);
  await ping(other, await addressOf(host, id), "d1");

  say("The docker command itself, when it talks to the router's proxy.");
  const proxy = await weave(host, "config");
  tell(`${host.name}$ docker ${proxy} run -d --name d2 ${busybox.join(" ")}`);
  await ping(other, await addressOf(host, await engine.docker(proxy, "run", "-d", "--name", "d2", ...busybox)), "d2");

  say("Docker without the proxy: the router is a network of Docker's, named weave.");
  tell(`${host.name}$ docker run -d --net=weave --name d3 ${busybox.join(" ")}`);
  await ping(
    other,
    await addressOf(host, await engine.docker("run", "-d", "--net=weave", "--name", "d3", ...busybox)),
    "d3",
  );
}

async function addressOf(host: EmulatedHost, id: string): Promise<string> {
  const line = await host.weave("ps", id);
  const address = /(\d+\.\d+\.\d+\.\d+)\/\d+$/.exec(line)?.[1];
  if (address === undefined) throw new Error(`Cannot find the address of ${id}: ${line}`);
  return address;
}

/** From a container two hosts away. */
async function ping(from: Container, address: string, name: string): Promise<void> {
  tell(`${from.name}$ ping ${address}   (${name})`);
  await waitFor(`an answer of ${name}`, () => answers(from, address), 10_000, [from.host]);
  tell(`${name} answers`);
}

/** Without \`ping\`, which not every machine has: who is there refuses a connection at once. */
async function answers(from: Container, address: string): Promise<boolean> {
  return /refused/.test((await from.attempt(["nc", "-z", "-v", "-w", "2", address, "9"])).stderr);
}

async function attach(host: EmulatedHost, name: string): Promise<[Container, address: string]> {
  const container = await host.container(name);
  return [container, await weave(host, "attach", "--hostname", `${name}.weave.local`, container.reference)];
}

/** Listens in `to`, sends from `from`, and checks that what arrives is what was sent. @param name to send to, not the address */
async function sendLine(
  from: Container | EmulatedHost,
  to: Container,
  address: string,
  line: string,
  name = address,
): Promise<void> {
  await using listener = to.spawn(["nc", "-l", address, NETWORK_PORT]);
  await waitFor("nc to listen", async () => (await to.sh("ss -ltn")).includes(`:${NETWORK_PORT}`), 5_000);
  tell(`${to.name}$ nc -l ${address} ${NETWORK_PORT}`);
  tell(`${from.name}$ echo "${line}" | nc -N ${name} ${NETWORK_PORT}`);
  await from.exec(["nc", "-N", "-w", "10", name, NETWORK_PORT], { input: `${line}\n` });
  const arrived = (await listener.finished(10_000)).stdout.trim();
  if (arrived !== line) throw new Error(`${to.name} received "${arrived}"`);
  tell(`${to.name} received: ${arrived}`);
}

/** Runs a weave command on a host and shows both, as a terminal would. @returns what it printed */
async function weave(host: EmulatedHost, ...args: string[]): Promise<string> {
  tell(`${host.name}$ weave ${args.join(" ")}`);
  const output = await host.weave(...args);
  for (const line of output.split("\n").filter(Boolean)) tell(line);
  return output;
}

async function buildWeave(): Promise<string[]> {
  const architectures = ARCHITECTURES.filter((architecture) => architecture.name === Deno.build.arch);
  try {
    const output = join(dirname(import.meta.dirname!), "dist");
    return await compile({ architectures, output, say: console.log });
  } catch (error) {
    if (!(error instanceof NoRuntimeBaseError)) throw error;
    console.log(`Running from the sources. ${error.message}`);
    return await weaveFromSources();
  }
}

function say(words: string): void {
  console.log(`\n${words}`);
}

function tell(line: string): void {
  console.log(`    ${line}`);
}

if (import.meta.main) {
  try {
    await main();
  } catch (error) {
    console.error(error instanceof Error ? error.message : error);
    Deno.exit(1);
  }
}
