/** Addresses on emulated hosts: allocating, claiming, giving to each other, agreeing, leaving, and coming back. */
import assert from "node:assert/strict";
import { testAsRoot } from "../skip.ts";
import type { RunningCommand } from "./command.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, line, routerPid, waitEstablished, waitPing } from "./mesh.ts";
import { delay, measure, waitFor } from "./wait.ts";

/** How long an allocation may take once there is somebody to give. */
const ALLOCATE_MS = 10_000;
const RANGE = ["--ipalloc-range", "10.40.0.0/24"];

testAsRoot("containers get addresses by themselves, reach each other, and give them back", async () => {
  await using lab = new Lab();
  const [a, b] = await launched(lab, 2, ["--ipalloc-init", "consensus=2"]);
  const c1 = await a!.container("c1");
  const c2 = await b!.container("c2");
  const first = await allocate(a!, ["attach", c1.reference]);
  const second = await allocate(b!, ["attach", c2.reference]);
  assert.deepEqual([first, second].sort(), ["10.40.0.1", "10.40.0.128"]);
  await waitPing(c1, second);
  // The same one again; another one in another subnet, beside it.
  assert.equal(await a!.weave("attach", c1.reference), first);
  const other = await a!.weave("attach", "net:10.40.0.64/26", c1.reference);
  assert.match(other, /^10\.40\.0\.(6[5-9]|[7-9]\d|1[01]\d|12[0-6])$/);
  assert.match(await a!.weave("ps"), new RegExp(`netns-.* ${first}/24 ${other}/26$`, "m"));
  assert.match(
    await a!.weave("status"),
    /Service: ipam\n +Status: ready\n +Range: 10\.40\.0\.0\/24\n +DefaultSubnet: 10\.40\.0\.0\/24/,
  );
  assert.match(await a!.weave("status", "ipam"), /^..:.*\(a\) +\d+ IPs \(\d\d\.\d% of total\) \(2 active\)$/m);
  // What a given address inside the range was, is free when it is detached.
  const c3 = await attachNew(a!, "c3", "10.40.0.77/24");
  assert.equal(
    (await a!.attemptWeave("attach", "10.40.0.77/24", c1.reference)).stderr.trim(),
    `Unable to claim: address 10.40.0.77/24 is already owned by ${await idOf(a!, "10.40.0.77")}`,
  );
  await a!.weave("detach", "10.40.0.77/24", c3.reference);
  assert.deepEqual(await held(a!, "10.40.0.77"), undefined);
  assert.equal(await a!.weave("detach", "net:10.40.0.64/26", c1.reference), other);
  assert.equal(await a!.weave("detach", c1.reference), first);
  assert.deepEqual(await owned(a!), {});
  // The host too.
  const exposed = await a!.weave("expose");
  assert.match(exposed, /^10\.40\.0\.\d+$/);
  assert.deepEqual(Object.keys(await owned(a!)), ["weave:expose"]);
  assert.equal(await a!.weave("hide"), exposed);
  assert.deepEqual(await owned(a!), {});
});

testAsRoot("an address is claimed from the peer that owns it, and refused where it is in use there", async () => {
  await using lab = new Lab();
  const [a, b] = await launched(lab, 2, ["--ipalloc-init", "consensus=2"]);
  const c1 = await b!.container("c1");
  const theirs = await allocate(b!, ["attach", c1.reference]);
  const c2 = await a!.container("c2");
  await allocate(a!, ["attach", c2.reference]);
  const free = theirs === "10.40.0.1" ? "10.40.0.100" : "10.40.0.200";
  assert.equal(await allocate(a!, ["attach", `${free}/24`, c2.reference]), free);
  const refused = await a!.attemptWeave("attach", `${theirs}/24`, c2.reference);
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    new RegExp(`^Unable to claim: address ${theirs}/24 is owned by other peer ..:\\S+ \\(b\\)$`, "m"),
  );
  await waitPing(c2, theirs);
});

testAsRoot(
  "without a quorum allocating waits and can be called off, while detaching and hiding do not wait",
  async () => {
    await using lab = new Lab();
    const [a] = await launched(lab, 1, ["--ipalloc-init", "consensus=3"]);
    const c1 = await attachNew(a!, "c1", "192.168.77.1/24");
    await using waiting = a!.spawn([...a!.weaveCommand(), "attach", c1.reference]);
    await waitFor(
      "awaiting consensus",
      async () => (await a!.weave("status")).includes("Status: awaiting consensus (quorum: 2, known: 1)"),
      5_000,
      [a!],
    );
    assert.match(
      await a!.weave("status", "connections"),
      /^ *hint +no agreement on addresses yet: 2 peers are needed, 1 known$/m,
    );
    assert.ok(await measure(() => a!.weave("detach", "192.168.77.1/24", c1.reference)) < 2_000);
    assert.ok(await measure(() => a!.weave("hide")) < 2_000);
    assert.equal(waiting.ended, false);
    assert.equal(await pendingAllocations(a!), 1);
    waiting.signal("SIGKILL");
    await waitFor("no request any more", async () => await pendingAllocations(a!) === 0, 2_000, [a!]);
    // An address outside the range is nobody's business.
    assert.ok(await measure(() => a!.weave("expose", "192.168.78.1/24")) < 5_000);
  },
);

testAsRoot("observers cannot vote, and are given a ring when the others have one", async () => {
  await using lab = new Lab();
  const { hosts: [a, b, c] } = await line(lab, 3);
  await a!.weave("launch", ...RANGE, "--ipalloc-init", "consensus=2");
  await b!.weave("launch", ...RANGE, "--ipalloc-init", "observer", a!.address(b!));
  await waitEstablished(b!, [a!]);
  const c1 = await b!.container("c1");
  await using waiting = b!.spawn([...b!.weaveCommand(), "attach", c1.reference]);
  await delay(3_000);
  assert.equal(waiting.ended, false);
  assert.match(await b!.weave("status"), /Status: priming/);
  assert.equal(await b!.weave("status", "ipam"), "");
  await c!.weave("launch", ...RANGE, "--ipalloc-init", "consensus=2", b!.address(c!));
  const { code, stdout } = await waiting.finished(15_000);
  assert.equal(code, 0);
  assert.match(stdout, /^10\.40\.0\.\d+\n$/);
});

testAsRoot("a peer that has no more is given some over a relay that has no allocator", async () => {
  await using lab = new Lab();
  const { hosts: [a, b, c] } = await line(lab, 3);
  const names = ["02:00:00:00:00:0a", "02:00:00:00:00:0c"];
  const seed = ["--ipalloc-init", `seed=${names.join(",")}`, "--no-discovery"];
  await b!.weave("launch", "--ipalloc-range", "", "--no-discovery");
  await a!.weave("launch", "--ipalloc-range", "10.40.0.0/28", ...seed, "--name", names[0]!, b!.address(a!));
  await c!.weave("launch", "--ipalloc-range", "10.40.0.0/28", ...seed, "--name", names[1]!, b!.address(c!));
  await waitEstablished(b!, [a!, c!]);
  const got: string[] = [];
  for (let i = 0; i < 13; i++) {
    const container = await a!.container(`c${i}`);
    got.push(await allocate(a!, ["attach", container.reference]));
  }
  assert.equal(new Set(got).size, 13);
  assert.match(await a!.weave("status", "ipam"), /\(c\) +\d+ IPs/);
  const missing = await b!.attemptWeave("attach", (await b!.container("x")).reference);
  assert.equal(missing.code, 1);
  assert.match(missing.stderr, /IP address allocation must be enabled to use 'net:'/);
  assert.equal((await b!.attemptWeave("prime")).code, 4);
  assert.equal((await a!.attemptWeave("prime")).code, 0);
});

testAsRoot("the space of a killed peer is usable within 5 s after rmpeer", async () => {
  await using lab = new Lab();
  const [a, b, c] = await launched(lab, 3, ["--no-restart", "--ipalloc-init", "consensus=3"], "10.40.0.0/27");
  for (const host of [a!, b!, c!]) await allocate(host, ["attach", (await host.container("c0")).reference]);
  await waitFor("three owners", async () => (await ipam(a!)).Owners?.length === 3, 35_000, [a!]);
  await c!.sh(`kill -9 ${await routerPid(c!)}`);
  await waitFor(
    "an owner out of reach",
    async () => /- unreachable!$/m.test(await a!.weave("status", "ipam")),
    20_000,
    [a!],
  );
  const name = (await ipam(a!)).Owners!.find(({ NickName }) => NickName === "c")!.Peer;
  assert.match(
    await a!.weave("status", "ipam"),
    new RegExp(`^ +stranded +\\d+ IPs .* of ${name}\\(c\\).*'weave rmpeer ${name}'`, "m"),
  );
  assert.match(await a!.weave("rmpeer", "c"), /^\d+ IPs taken over from c$/);
  assert.equal(await a!.weave("rmpeer", "c", "nobody"), "0 IPs taken over from c\n0 IPs taken over from nobody");
  // Of 30 addresses two are in use, and b does not own that many without those that were c's.
  const times: number[] = [];
  for (let i = 1; i < 20; i++) {
    const container = await b!.container(`c${i}`);
    times.push(await measure(() => allocate(b!, ["attach", container.reference])));
  }
  console.log(`addresses after rmpeer: ${times.join(", ")} ms`);
  assert.ok(Math.max(...times) < 5_000);
  assert.doesNotMatch(await b!.weave("status", "ipam"), /unreachable/);
});

testAsRoot("a host that is reset hands its addresses over, and joins anew", async () => {
  await using lab = new Lab();
  const [a, b] = await launched(lab, 2, ["--ipalloc-init", "consensus=2"]);
  await allocate(a!, ["attach", (await a!.container("c1")).reference]);
  await allocate(b!, ["attach", (await b!.container("c1")).reference]);
  await b!.weave("reset");
  await waitFor("one owner", async () => (await ipam(a!)).Owners?.map(({ Size }) => Size).join() === "256", 5_000, [
    a!,
  ]);
  await b!.weave("launch", ...RANGE, "--ipalloc-init", "consensus=2", a!.address(b!));
  const again = await allocate(b!, ["attach", (await b!.container("c2")).reference]);
  assert.match(again, /^10\.40\.0\.\d+$/);
});

testAsRoot(
  "addresses outlive a restart and kill -9, and those of containers that went meanwhile are free",
  async () => {
    await using lab = new Lab();
    const [a] = await launched(lab, 1, ["--ipalloc-init", "consensus=1"]);
    const c1 = await a!.container("c1");
    const c2 = await a!.container("c2");
    for (const container of [c1, c2]) await allocate(a!, ["attach", container.reference]);
    assert.equal(await a!.weave("expose"), "10.40.0.3");
    await a!.weave("stop");
    await c2.remove();
    await a!.weave("launch", ...RANGE, "--ipalloc-init", "consensus=1");
    assert.deepEqual(await addresses(a!), ["10.40.0.1/24", "10.40.0.3/24"]);
    assert.equal(await a!.weave("attach", c1.reference), "10.40.0.1");
    assert.equal(await allocate(a!, ["attach", (await a!.container("c3")).reference]), "10.40.0.2");

    await a!.sh(`kill -9 ${await routerPid(a!)}`);
    await waitFor("the router is back", async () => (await a!.weave("status")).includes("Status: ready"), 10_000, [a!]);
    assert.deepEqual(await addresses(a!), ["10.40.0.1/24", "10.40.0.2/24", "10.40.0.3/24"]);

    // Another range, or another name, begins anew; what is in use is still known.
    await a!.weave("stop");
    await a!.weave("launch", "--ipalloc-range", "10.41.0.0/24", "--ipalloc-init", "consensus=1");
    assert.equal(await allocate(a!, ["attach", (await a!.container("c4")).reference]), "10.41.0.1");
    await a!.weave("stop");
    await a!.weave("launch", ...RANGE, "--name", "02:00:00:00:00:99", "--ipalloc-init", "consensus=1");
    assert.equal(await allocate(a!, ["attach", (await a!.container("c5")).reference]), "10.40.0.4");
  },
);

testAsRoot("a lost store does not make addresses be given out twice: what runs is asked for", async () => {
  await using lab = new Lab();
  const [a, b] = await launched(lab, 2, ["--ipalloc-init", "consensus=2"]);
  const c1 = await a!.container("c1");
  const mine = await allocate(a!, ["attach", c1.reference]);
  await allocate(b!, ["attach", (await b!.container("c1")).reference]);
  await a!.weave("stop");
  await a!.sh("rm -f /var/lib/weave/*-ipam.json");
  await a!.weave("launch", ...RANGE, "--ipalloc-init", "consensus=2", b!.address(a!));
  assert.notEqual(await allocate(a!, ["attach", (await a!.container("c2")).reference]), mine);
  assert.equal(await a!.weave("attach", c1.reference), mine);
});

testAsRoot("seeds and ranges that differ are shown with both values, and routers survive them", async () => {
  await using lab = new Lab();
  const { hosts: [a, b, c] } = await line(lab, 3);
  const name = (letter: string) => `02:00:00:00:00:0${letter}`;
  await a!.weave("launch", ...RANGE, "--name", name("a"), "--ipalloc-init", `seed=${name("a")}`);
  await b!.weave("launch", ...RANGE, "--name", name("b"), "--ipalloc-init", `seed=${name("b")}`, a!.address(b!));
  await c!.weave(
    "launch",
    "--ipalloc-range",
    "10.50.0.0/16",
    "--name",
    name("c"),
    "--ipalloc-init",
    `seed=${name("c")}`,
    b!.address(c!),
  );
  const seeded = /IP allocation was seeded by different peers \(received: \[02:\S+\], ours: \[02:\S+\]\)/;
  const ranges = /Incompatible IP allocation ranges \(received: 10\.50\.0\.0\/16, ours: 10\.40\.0\.0\/24\)/;
  for (const host of [a!, b!]) {
    for (const command of [["status"], ["status", "connections"], ["status", "ipam"]]) {
      await waitFor(
        `conflict in ${command.join(" ")} of ${host.name}`,
        async () => seeded.test(await host.weave(...command)),
        10_000,
        [host],
      );
    }
    assert.match(await host.sh("cat /var/log/weave.log"), seeded);
  }
  await waitFor("the other range", async () => ranges.test(await b!.weave("status")), 15_000, [b!, c!]);
  for (const host of [a!, b!, c!]) {
    assert.match(await allocate(host, ["attach", (await host.container("c1")).reference]), /^10\.[45]0\.0\.1$/);
  }
});

testAsRoot("a default range that a route of the host overlaps is refused, a chosen one is warned about", async () => {
  await using lab = new Lab();
  const a = await lab.host("a");
  await a.sh("ip link add br7 type bridge && ip link set br7 up && ip route add 10.32.4.0/24 dev br7");
  const refused = await a.attemptWeave("launch");
  assert.equal(refused.code, 1);
  assert.match(
    refused.stderr,
    /^ERROR: Default --ipalloc-range 10\.32\.0\.0\/12 overlaps with existing route 10\.32\.4\.0\/24 \(device br7\) on host\.$/m,
  );
  const warned = await a.attemptWeave("launch", "--ipalloc-range", "10.32.0.0/12");
  assert.equal(warned.code, 0);
  assert.match(warned.stderr, /^WARNING: .* 10\.32\.4\.0\/24 \(device br7\)/m);
  assert.match(await a.weave("status"), /Range: 10\.32\.0\.0\/12/);
});

/** Hosts in a row, all connected. */
async function launched(lab: Lab, count: number, init: readonly string[], range = RANGE[1]!): Promise<EmulatedHost[]> {
  const { hosts } = await line(lab, count);
  for (const [i, host] of hosts.entries()) {
    const before = hosts[i - 1];
    const peers = before === undefined ? [] : [before.address(host)];
    await host.weave("launch", "--ipalloc-range", range, ...init, ...peers);
    if (before !== undefined) await waitEstablished(host, [before]);
  }
  return hosts;
}

/** A command that may have to wait for an address. */
async function allocate(host: EmulatedHost, args: readonly string[]): Promise<string> {
  await using command: RunningCommand = host.spawn([...host.weaveCommand(), ...args]);
  const { code, stdout, stderr } = await command.finished(ALLOCATE_MS);
  assert.equal(code, 0, stderr);
  return stdout.trim();
}

interface IpamReport {
  readonly PendingAllocates: readonly string[] | null;
  readonly Owners: readonly { readonly Peer: string; readonly NickName: string; readonly Size: number }[] | null;
}

async function ipam(host: EmulatedHost): Promise<IpamReport> {
  return JSON.parse(await host.weave("report")).IPAM;
}

async function pendingAllocations(host: EmulatedHost): Promise<number> {
  return (await ipam(host)).PendingAllocates?.length ?? 0;
}

/** Who holds what, as the API says. */
async function owned(host: EmulatedHost): Promise<Record<string, string[]>> {
  const { owned } = JSON.parse(await host.sh("curl -s http://127.0.0.1:6784/ip"));
  return Object.fromEntries(
    (owned ?? []).map((o: { containerid: string; addrs: string[] }) => [o.containerid, o.addrs]),
  );
}

async function addresses(host: EmulatedHost): Promise<string[]> {
  return Object.values(await owned(host)).flat().sort();
}

async function held(host: EmulatedHost, address: string): Promise<string | undefined> {
  return Object.entries(await owned(host)).find(([, cidrs]) => cidrs.some((cidr) => cidr.startsWith(`${address}/`)))
    ?.[0];
}

async function idOf(host: EmulatedHost, address: string): Promise<string> {
  return await held(host, address) ?? "nobody";
}
