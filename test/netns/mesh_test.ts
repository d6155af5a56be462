import assert from "node:assert/strict";
import { Lab, makeRouter, masquerade } from "./lab.ts";
import {
  attachNew,
  CONNECT_MS,
  connections,
  establishedPeers,
  launchLine,
  line,
  PingStream,
  report,
  routerPid,
  waitEstablished,
  waitPing,
} from "./mesh.ts";
import { measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** From a cut to traffic over another way: a dead peer is noticed within 2.5 s, then gossip and routes follow. */
const REROUTE_MS = 4_000;

/** From `kill -9` to traffic: the router is started again, dialled again and learns the others. */
const RESTART_MS = 10_000;

testAsRoot("weave launch joins two hosts, and their containers reach each other", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  const name = await a!.weave("launch");
  assert.match(name, /^([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  await waitEstablished(b!, [a!]);

  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const c2 = await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  await waitPing(c2, "10.0.0.1");

  assert.match(await a!.weave("status"), new RegExp(`Name: ${name}\\(a\\)`));
  assert.match(
    await a!.weave("status", "connections"),
    new RegExp(`^<- ${b!.address()}:\\d+ +established +sleeve `, "m"),
  );
  assert.match(await b!.weave("status", "targets"), new RegExp(`^${a!.address()}$`, "m"));
  assert.match(await b!.weave("status", "peers"), new RegExp(`^${name}\\(a\\)$`, "m"));
});

testAsRoot("a chain of four hosts carries frames over three hops, encrypted anew on each", async () => {
  await using lab = new Lab({ env: { WEAVE_PASSWORD: "secret" } });
  const { hosts } = await line(lab, 4);
  await launchLine(hosts);
  const [a, , , d] = hosts;
  await waitFor("four peers", async () => (await report(a!)).Router.Peers?.length === 4, CONNECT_MS, hosts);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(d!, "c4", "10.0.0.4/24");
  await waitPing(c1, "10.0.0.4");
  assert.equal((await establishedPeers(a!)).join(), "b");
  assert.ok(await c1.pings("10.0.0.4", "-s", "4000", "-M", "dont"));
});

testAsRoot("a ring goes round the other way when a link is cut, and back", async () => {
  await using lab = new Lab();
  const { hosts, links } = await line(lab, 4);
  const [a, b, c, d] = hosts;
  links.push(await lab.link(d!, a!));
  await launchLine(hosts);
  await d!.weave("connect", a!.address(d!));
  await waitEstablished(a!, [b!, d!]);
  await waitEstablished(c!, [b!, d!]);

  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const c2 = await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  // What is for all arrives once, whichever ways there are.
  await c2.sh("echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_broadcasts");
  const { stdout } = await c1.exec(["ping", "-n", "-b", "-c", "3", "-i", "0.2", "10.0.0.255"]);
  assert.match(stdout, /3 packets transmitted, 3 received, 0% packet loss/);

  await using stream = new PingStream(c1, "10.0.0.2");
  await stream.waitAnswers(10, 2_000);
  await links[0]!.cut();
  await stream.waitAnswers(10, REROUTE_MS);
  console.log(`re-routed after ${stream.longestGapMs} ms`);
  assert.ok(stream.longestGapMs < REROUTE_MS);

  await links[0]!.heal();
  await waitEstablished(a!, [b!, d!], 30_000);
  await stream.waitAnswers(10, REROUTE_MS);
});

testAsRoot("a partition heals by itself", async () => {
  await using lab = new Lab();
  const { hosts, links } = await line(lab, 4);
  const [a, b, c, d] = hosts;
  await launchLine(hosts);
  await waitFor("four peers", async () => (await report(a!)).Router.Peers?.length === 4, CONNECT_MS, hosts);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await attachNew(d!, "c4", "10.0.0.4/24");
  await waitPing(c1, "10.0.0.4");

  await links[1]!.cut();
  await waitFor(
    "two peers on each side",
    async () => {
      const counts = await Promise.all([a!, d!].map(async (host) => (await report(host)).Router.Peers?.length));
      return counts.every((count) => count === 2);
    },
    10_000,
    hosts,
  );
  assert.ok(await c1.pings("10.0.0.2"));
  assert.ok(!await c1.pings("10.0.0.4"));

  await using stream = new PingStream(c1, "10.0.0.4");
  await links[1]!.heal();
  const healed = await measure(() => stream.waitAnswers(1, 30_000));
  console.log(`healed ${healed} ms after the link did`);
  assert.equal((await establishedPeers(c!)).join(), "b,d");
});

testAsRoot("containers keep talking after kill -9 of a router, untouched", async () => {
  await using lab = new Lab();
  const { hosts } = await line(lab, 3);
  const [a, b, c] = hosts;
  await launchLine(hosts);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const local = await attachNew(a!, "c5", "10.0.0.5/24");
  await attachNew(c!, "c3", "10.0.0.3/24");
  await waitPing(c1, "10.0.0.3");

  for (const victim of [a!, b!]) {
    await using stream = new PingStream(c1, "10.0.0.3");
    await stream.waitAnswers(10, 2_000);
    const pid = await routerPid(victim);
    await victim.sh(`kill -9 ${pid}`);
    if (victim === a) assert.ok(await local.pings("10.0.0.1"), "containers of one host need no router");
    await stream.waitAnswers(10, RESTART_MS);
    assert.notEqual(await routerPid(victim), pid);
    console.log(`${victim === a ? "own" : "relaying"} router killed: no answer for ${stream.longestGapMs} ms`);
    assert.ok(stream.longestGapMs < RESTART_MS);
  }
});

testAsRoot("two peers behind different NATs relay over the one both reach", async () => {
  await using lab = new Lab();
  const [left, leftRouter] = [await lab.host("left"), await lab.host("nat1")];
  const [right, rightRouter] = [await lab.host("right"), await lab.host("nat2")];
  const middle = await lab.host("middle");
  await lab.link(left, leftRouter);
  await lab.link(right, rightRouter);
  const [, leftOuter, rightOuter] = await lab.switch([middle, leftRouter, rightRouter]);
  for (const [router, inside, port] of [[leftRouter, left, leftOuter!], [rightRouter, right, rightOuter!]] as const) {
    await makeRouter(router);
    await masquerade(port);
    await inside.sh(`ip route add default via ${router.address(inside)}`);
  }
  await middle.weave("launch");
  await left.weave("launch", middle.address());
  await right.weave("launch", middle.address());
  await waitEstablished(middle, [left, right]);
  const c1 = await attachNew(left, "c1", "10.0.0.1/24");
  await attachNew(right, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  assert.equal((await establishedPeers(left)).join(), "middle");
  // They know of each other, and cannot connect.
  const behind = new RegExp(`^ +relayed +${(await report(right)).Router.Name}\\(right\\) via .*\\(middle\\)$`, "m");
  await waitFor("the way to right", async () => behind.test(await left.weave("status", "connections")), 5_000, [left]);
  const tried = (await connections(left)).find((connection) => connection.State !== "established");
  assert.match(tried?.Address ?? "", new RegExp(`^${rightOuter!.address}:`), "by the address that its router has");
});

testAsRoot("a router that goes for good takes its peers' way with it", async () => {
  await using lab = new Lab();
  const { hosts } = await line(lab, 3);
  const [a, b, c] = hosts;
  await launchLine(hosts);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(c!, "c3", "10.0.0.3/24");
  await waitPing(c1, "10.0.0.3");
  await b!.weave("stop");
  await waitFor("the others to be forgotten", async () => (await report(a!)).Router.Peers?.length === 1, 10_000, [a!]);
  assert.ok(!await c1.pings("10.0.0.3"));
});
