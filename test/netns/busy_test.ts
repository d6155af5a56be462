/** What goes on while the main thread is busy: the packet thread needs it for nothing that it has learned. */

import assert from "node:assert/strict";
import { Lab } from "./lab.ts";
import type { Container, EmulatedHost } from "./host.ts";
import { attachNew, line, report, waitEstablished, waitPing } from "./mesh.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

const SPIN_MS = 1_000;

const PACKETS_PER_SECOND = 20_000;
const STREAM_SECONDS = 3;

/** A frame of 64 octets less Ethernet, IPv4 and UDP headers. */
const PAYLOAD_OCTETS = 64 - 14 - 20 - 8;

/** This machine may be too busy to run everybody for a moment, which is no fault of the router: one stream in so many must be whole. */
const ATTEMPTS = 3;

testAsRoot("a stream of 20000 packets a second loses nothing while the main threads of both routers spin", async () => {
  await using lab = new Lab({ env: { WEAVE_TEST_SPIN: "1" } });
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const c2 = await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  await using _server = c2.spawn(["iperf3", "-s"]);
  await waitFor("iperf3 to listen", async () => await c2.sh("ss -Htln sport = :5201") !== "", 5_000);
  const terminations = await Promise.all([a!, b!].map(terminationCount));

  const lost: number[] = [];
  while (lost.length < ATTEMPTS && !lost.includes(0)) {
    const before = { sent: (await udp(c1)).OutDatagrams!, arrived: arrived(await udp(c2)) };
    await using stream = c1.spawn(iperf());
    await waitFor(
      "the stream",
      async () => (await udp(c1)).OutDatagrams! > before.sent + PACKETS_PER_SECOND / 2,
      5_000,
    );
    const spun = await Promise.all([a!, b!].map((host) => measure(() => spin(host))));
    assert.ok(Math.min(...spun) >= SPIN_MS, "the main threads were busy");
    const end = await stream.finished(20_000);
    assert.equal(end.code, 0, end.stdout + end.stderr);
    const sent = (await udp(c1)).OutDatagrams! - before.sent;
    assert.ok(sent >= PACKETS_PER_SECOND * STREAM_SECONDS * 0.9, `sent ${sent}`);
    lost.push(sent - (arrived(await udp(c2)) - before.arrived));
    console.log(`sent ${sent} packets, lost ${lost.at(-1)}; spun for ${spun.join(" and ")} ms`);
  }
  assert.equal(Math.min(...lost), 0, [await a!.report(), await b!.report()].join("\n"));
  // Long enough for a peer to be found dead, had it been.
  await delay(2_500);
  assert.deepEqual(await Promise.all([a!, b!].map(terminationCount)), terminations, "the connection has lived on");
});

function iperf(): string[] {
  const rate = PACKETS_PER_SECOND * PAYLOAD_OCTETS * 8;
  const stream = ["-u", "-b", String(rate), "-l", String(PAYLOAD_OCTETS), "-t", String(STREAM_SECONDS)];
  return ["iperf3", "-c", "10.0.0.2", ...stream];
}

async function spin(host: EmulatedHost): Promise<void> {
  const request =
    `POST /debug/spin?ms=${SPIN_MS} HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nConnection: close\r\n\r\n`;
  const { stdout } = await host.exec(["nc", "-w", "10", "127.0.0.1", "6784"], { input: request });
  assert.match(stdout, /^HTTP\/1\.1 204 /);
}

async function terminationCount(host: EmulatedHost): Promise<number> {
  return (await report(host)).Router.TerminationCount;
}

/** The kernel's counters of UDP in a container, by their names in /proc/net/snmp. */
async function udp(container: Container): Promise<Readonly<Record<string, number>>> {
  const [names, values] = (await container.sh("grep ^Udp: /proc/net/snmp")).split("\n").map((text) => text.split(" "));
  return Object.fromEntries(names!.map((name, i) => [name, Number(values![i])]));
}

/** What came to the container, whether or not its program was fast enough to take it. */
function arrived({ InDatagrams, RcvbufErrors, NoPorts }: Readonly<Record<string, number>>): number {
  return InDatagrams! + RcvbufErrors! + NoPorts!;
}
