/**
 * `deno task demo`: three emulated hosts in a line, of which the first and the last cannot reach each other; weave joins their
 * containers. It tells each step, and leaves nothing behind.
 */

import { dirname, join } from "node:path";
import { compile, NoRuntimeBaseError } from "../dist/compile.ts";
import { ARCHITECTURES } from "../dist/runtime_base.ts";
import { weaveFromSources } from "./netns/executable.ts";
import type { Container, EmulatedHost } from "./netns/host.ts";
import { Lab } from "./netns/lab.ts";
import { waitFor } from "./netns/wait.ts";
import { DEMO_TOOLS, ensureTools } from "./packages.ts";

const NETWORK_PORT = "4000";

async function main(): Promise<void> {
  if (Deno.uid() !== 0) throw new Error("The demonstration needs root, to make emulated hosts: run it with sudo");
  await ensureTools(DEMO_TOOLS);
  const weave = await buildWeave();
  const started = performance.now();
  await using lab = new Lab({ weave });
  const closeOnInterrupt = () => void lab[Symbol.asyncDispose]().finally(() => Deno.exit(130));
  Deno.addSignalListener("SIGINT", closeOnInterrupt);
  try {
    await show(lab);
  } finally {
    Deno.removeSignalListener("SIGINT", closeOnInterrupt);
  }
  say(
    `That took ${
      Math.round((performance.now() - started) / 1000)
    } s. The emulated hosts are going now, with all that was on them.`,
  );
}

async function show(lab: Lab): Promise<void> {
  say("Three hosts in a line. Each is a set of namespaces on this machine: host1 --- host2 --- host3");
  const [host1, host2, host3] = [await lab.host("host1"), await lab.host("host2"), await lab.host("host3")];
  await lab.link(host1, host2);
  await lab.link(host2, host3);
  for (const [host, near] of [[host1, host2], [host3, host2]] as const) {
    tell(`${host.name} has ${host.address()}, next to ${near.name} at ${near.address(host)}`);
  }

  say("host1 and host3 cannot reach each other: host2 does not pass their packets on.");
  await host3.sh(`nc -l -k ${NETWORK_PORT} >/dev/null 2>&1 &`);
  const tried = await host1.attempt(["nc", "-z", "-w", "1", host3.address(), NETWORK_PORT]);
  if (tried.code === 0) throw new Error("host1 reaches host3 already, so there is nothing to show");
  tell(`host1$ nc ${host3.address()} ${NETWORK_PORT}   -> no answer`);

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

  say("What host2 says about its connections:");
  await weave(host2, "status", "connections");
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
