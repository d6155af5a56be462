/** What hosts, networks and strangers do to a router, and how it goes on. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { setFilter } from "./link.ts";
import { attachNew, connections, line, PingStream, report, routerPid, waitEstablished, waitPing } from "./mesh.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** The router looks after its bridge every 10 s. */
const REPAIR_MS = 13_000;

testAsRoot("a bridge or TAP that somebody takes away is put back, with all that was plugged in", async (t) => {
  await using lab = new Lab({ errorsExpected: true });
  const { hosts: [a, b] } = await line(lab, 2);
  await launchBoth(a!, b!);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const c3 = await attachNew(a!, "c3", "10.0.0.3/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await a!.weave("expose", "10.0.0.100/24");
  await waitPing(c1, "10.0.0.2");
  const damage = [
    ["the TAP deleted", "ip link del vethwe-bridge"],
    ["the TAP pulled out", "ip link set vethwe-bridge nomaster"],
    ["the bridge down", "ip link set weave down"],
    ["the bridge deleted", "ip link del weave"],
  ] as const;
  for (const [what, script] of damage) {
    await t.step(what, async () => {
      await a!.sh(script);
      await using stream = new PingStream(c1, "10.0.0.2");
      const took = await measure(() => stream.waitAnswers(1, REPAIR_MS));
      console.log(`${what}: right again after ${took} ms`);
      assert.ok(await c1.pings("10.0.0.100"));
      assert.ok(await c3.pings("10.0.0.1"));
    });
  }
});

testAsRoot("a router that stands still for a while joins again", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await launchBoth(a!, b!);
  const pid = await routerPid(a!);
  await a!.sh(`kill -STOP ${pid}`);
  await waitFor("b to notice", async () => (await report(b!)).Router.Peers?.length === 1, 10_000, [b!]);
  await a!.sh(`kill -CONT ${pid}`);
  console.log(`connected again after ${await measure(() => waitEstablished(b!, [a!], 15_000))} ms`);
  assert.equal(await routerPid(a!), pid);
});

testAsRoot("commands say that a router does not answer, and end", async () => {
  await using lab = new Lab();
  const { hosts: [a] } = await line(lab, 1);
  await a!.weave("launch");
  const pid = await routerPid(a!);
  await a!.sh(`kill -STOP ${pid}`);
  const attach = ["attach", "10.0.0.1/24", (await a!.container("c1")).reference];
  const answers = await Promise.all(
    [["status"], ["report"], ["forget", "b"], attach].map((c) => a!.attemptWeave(...c)),
  );
  for (const { code, stdout, stderr } of answers) {
    assert.deepEqual([code, stdout], [1, ""]);
    assert.match(
      stderr,
      /^Waiting for the router at 127.0.0.1:6784 to answer\nCannot talk to the router at 127.0.0.1:6784: it has not answered within 10 s$/m,
    );
  }
  await a!.sh(`kill -CONT ${pid}`);
  await a!.weave(...attach);
});

testAsRoot("status says that no UDP comes through, and it is noticed when it does", async () => {
  await using lab = new Lab();
  const { hosts: [a, b], links: [link] } = await line(lab, 2);
  const block = async (rules: string[]) => {
    for (const { host, device } of link!.ports) {
      const hook = `type filter hook ingress device "${device}" priority 1`;
      await setFilter(host, { family: "netdev", table: "lab_no_udp", hook, rules });
    }
  };
  await block(["ip protocol udp drop"]);
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  const hint =
    / pending [^]*\n +hint +UDP packets to and from .* do not come through; let UDP port 6783 pass both ways$/m;
  for (const host of [a!, b!]) {
    await waitFor("the hint", async () => hint.test(await host.weave("status", "connections")), 5_000, [host]);
  }
  await delay(2_000);
  assert.ok(!(await connections(b!)).some((connection) => connection.State === "established"));
  await block([]);
  await waitEstablished(b!, [a!]);
});

testAsRoot("a host that changes its address is found by its new one", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await launchBoth(a!, b!);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  await using stream = new PingStream(c1, "10.0.0.2");
  await stream.waitAnswers(5, 2_000);
  await b!.sh("ip address del 192.168.1.2/24 dev eth0; ip address add 192.168.1.22/24 dev eth0");
  const shown = async () => /^<- 192\.168\.1\.22:\d+ +established /m.test(await a!.weave("status", "connections"));
  await waitFor("the new address", shown, 10_000, [a!, b!]);
  await stream.waitAnswers(10, 5_000);
  console.log(`no answer for ${stream.longestGapMs} ms`);
});

testAsRoot("strangers at the router's ports do no harm", async () => {
  await using lab = new Lab();
  const { hosts: [a, b, c] } = await line(lab, 3);
  await launchBoth(a!, b!);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  const pid = await routerPid(b!);
  const descriptors = async () => Number(await b!.sh(`ls /proc/${pid}/fd | wc -l`));
  const before = await descriptors();
  const to = b!.address(c!);
  // Noise, half a greeting, and nothing at all, for as long as they are let.
  await c!.sh(`
    for i in $(seq 30); do
      head -c 2000 /dev/urandom | nc -N -w 12 ${to} 6783 >/dev/null &
      printf 'weave\\\\1\\\\2\\\\0\\\\0\\\\020' | nc -w 12 ${to} 6783 >/dev/null &
      nc -d -w 12 ${to} 6783 >/dev/null &
      head -c 1400 /dev/urandom | nc -u -w 1 ${to} 6783 >/dev/null &
    done
    { for i in $(seq 20); do head -c 1000000 /dev/zero; done | nc -w 12 ${to} 6783 >/dev/null; } &
  `);
  await using stream = new PingStream(c1, "10.0.0.2");
  await stream.waitAnswers(50, 10_000);
  assert.ok(stream.longestGapMs < 500, `${stream.longestGapMs} ms without an answer`);
  await waitFor("strangers to be gone", async () => await descriptors() <= before, 20_000, [b!]);
  assert.equal(await routerPid(b!), pid);
  assert.equal((await report(b!)).Router.Peers?.length, 2);
});

async function launchBoth(a: EmulatedHost, b: EmulatedHost): Promise<void> {
  await a.weave("launch");
  await b.weave("launch", a.address(b));
  await waitEstablished(a, [b]);
}
