import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, line, routerPid, waitEstablished, waitPing } from "./mesh.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** Several hosts at once: an attach mostly waits for whoever has the address. */
const CYCLING_HOSTS = 4;

/** On each. `deno task test --long` goes on for longer. */
const CYCLES = Deno.env.get("WEAVE_SOAK_SECONDS") === undefined ? 50 : 200;

testAsRoot("weave attach gives a container ethwe and its address, the same when done twice", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  const c1 = await host.container("c1");
  for (let i = 0; i < 2; i++) {
    assert.equal(await host.weave("attach", "10.0.0.1/24", "10.1.0.1/24", c1.reference), "10.0.0.1 10.1.0.1");
  }
  assert.match(await c1.sh("ip -4 -o address show ethwe"), /10\.0\.0\.1\/24.*\n.*10\.1\.0\.1\/24/);
  assert.match(await c1.sh("ip link show ethwe"), /mtu 1376 .*state UP/);
  assert.match(await c1.sh("ip route show 224.0.0.0/4"), /dev ethwe/);

  const mac = (await c1.sh("cat /sys/class/net/ethwe/address")).trim();
  const id = await c1.sh("stat -L -c '%d-%i' /run/netns/c1");
  const shown = (await host.weave("ps")).split("\n");
  assert.match(shown[0]!, /^weave:expose ([0-9a-f]{2}:){5}[0-9a-f]{2}$/);
  assert.equal(shown[1], `netns-${id} ${mac} 10.0.0.1/24 10.1.0.1/24`);

  assert.equal(await host.weave("detach", "10.0.0.1/24", c1.reference), "10.0.0.1");
  assert.doesNotMatch(await c1.sh("ip -4 -o address show ethwe"), /10\.0\.0\.1\//);
  await host.weave("detach", "10.1.0.1/24", c1.reference);
  assert.equal((await c1.attempt(["ip", "link", "show", "ethwe"])).code, 1);

  await host.weave("attach", "--no-multicast-route", "10.0.0.1/24", c1.reference);
  assert.equal(await c1.sh("ip route show 224.0.0.0/4"), "");
});

testAsRoot("the MTU is that of the launch, in containers too", async () => {
  for (
    const [env, bridge, tap] of [[{ WEAVE_MTU: "1200" }, 1200, 1200], [{ WEAVE_NO_FASTDP: "1" }, 65535, 65521]] as const
  ) {
    await using lab = new Lab({ env: { ...env } });
    const host = await lab.host("a");
    await host.weave("launch");
    const c1 = await attachNew(host, "c1", "10.0.0.1/24");
    const mtu = (device: string) => `cat /sys/class/net/${device}/mtu`;
    assert.equal(await c1.sh(mtu("ethwe")), String(bridge));
    assert.equal(await host.sh(mtu("weave")), String(bridge));
    assert.equal(await host.sh(mtu("vethwe-bridge")), String(tap));
  }
});

testAsRoot(
  "status says so where containers have a larger MTU than the launch, until they are attached again",
  async () => {
    await using lab = new Lab();
    const host = await lab.host("a");
    await host.weave("launch", "--mtu", "1500");
    const c1 = await attachNew(host, "c1", "10.0.0.1/24");
    await attachNew(host, "c2", "10.0.0.2/24");
    await host.weave("stop");
    await host.weave("launch");
    assert.match(await host.weave("status"), /^ +Warning: Containers .* larger MTU than 1376: 2; /m);
    await host.weave("attach", "10.0.0.1/24", c1.reference);
    assert.ok(await c1.pings("10.0.0.2", "-s", "1300"));
    await waitFor("one less", async () => /larger MTU than 1376: 1; /.test(await host.weave("status")), 12_000, [host]);
  },
);

testAsRoot(
  "containers of different subnets do not reach each other, and one moves live from one to the other",
  async () => {
    await using lab = new Lab();
    const { hosts: [a, b] } = await line(lab, 2);
    await a!.weave("launch");
    await b!.weave("launch", a!.address());
    await waitEstablished(a!, [b!]);
    const mover = await attachNew(a!, "mover", "10.0.0.1/24");
    await attachNew(b!, "c2", "10.0.0.2/24");
    await attachNew(b!, "c3", "10.10.0.3/24");
    await waitPing(mover, "10.0.0.2");
    assert.ok(!await mover.pings("10.10.0.3"));

    await a!.weave("attach", "10.10.0.1/24", mover.reference);
    await a!.weave("detach", "10.0.0.1/24", mover.reference);
    await waitPing(mover, "10.10.0.3", 2_000);
    assert.ok(!await mover.pings("10.0.0.2"));
  },
);

testAsRoot("weave attach refuses an address that somebody answers for, and names the MAC", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  const holder = (await c1.sh("cat /sys/class/net/ethwe/address")).trim();
  // A router tells of a new connection a second after it has it.
  await waitPing(await attachNew(b!, "c3", "10.0.0.3/24"), "10.0.0.1");
  const c2 = await b!.container("c2");
  const refused = await b!.attemptWeave("attach", "10.0.0.1/24", c2.reference);
  assert.equal(refused.code, 1);
  assert.ok(refused.stderr.includes(holder), refused.stderr);
  assert.equal((await c2.attempt(["ip", "link", "show", "ethwe"])).code, 1, "nothing is left of the attempt");
});

testAsRoot("attached containers of one host talk while its router is stopped", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  const c1 = await attachNew(host, "c1", "10.0.0.1/24");
  await host.weave("stop");
  await attachNew(host, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2", 2_000);
});

testAsRoot("an attach that is killed at any moment leaves nothing that the next one trips over", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  const c1 = await host.container("c1");
  await host.weave("attach", "10.0.0.1/24", c1.reference);
  await host.weave("detach", "10.0.0.1/24", c1.reference);
  const before = await inventory(host);
  for (const afterMs of [100, 300, 500, 550, 600, 650]) {
    await using attach = host.spawn([...host.weaveCommand(), "attach", "10.0.0.1/24", c1.reference]);
    await delay(afterMs);
    attach.signal("SIGKILL");
    await attach.finished();
    assert.equal(await host.weave("attach", "10.0.0.1/24", c1.reference), "10.0.0.1");
    await host.weave("detach", "10.0.0.1/24", c1.reference);
    assert.deepEqual(await inventory(host), before, `killed after ${afterMs} ms`);
  }
});

testAsRoot("containers that are attached at once all are", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  const numbers = [1, 2, 3, 4];
  const [c1] = await Promise.all(numbers.map((n) => attachNew(host, `c${n}`, `10.0.0.${n}/24`)));
  for (const n of numbers.slice(1)) assert.ok(await c1!.pings(`10.0.0.${n}`));
});

testAsRoot(`${CYCLING_HOSTS * CYCLES} times attach and detach leave nothing behind`, async () => {
  await using lab = new Lab();
  const hosts: EmulatedHost[] = [];
  for (let i = 0; i < CYCLING_HOSTS; i++) hosts.push(await lab.host(`host${i}`));
  const times = await Promise.all(hosts.map(async (host) => {
    await host.weave("launch");
    const c1 = await host.container("c1");
    const cycle = async () => {
      await host.weave("attach", "10.0.0.1/24", c1.reference);
      await host.weave("detach", "10.0.0.1/24", c1.reference);
    };
    await cycle();
    const before = await inventory(host);
    const took = await measure(async () => {
      for (let i = 0; i < CYCLES; i++) await cycle();
    });
    assert.deepEqual(await inventory(host), before);
    return took;
  }));
  console.log(`attach and detach: ${times.map((ms) => Math.round(ms / CYCLES)).join(", ")} ms`);
});

/** All that could be left behind on a host: links, rules, descriptors, processes, files. */
async function inventory(host: EmulatedHost): Promise<Record<string, string>> {
  const pid = await routerPid(host);
  return {
    links: await host.sh("ip -o link | cut -d: -f2 | sort"),
    containerLinks: await host.sh("ip -n c1 -o link | cut -d: -f2 | sort"),
    rules: await host.sh("iptables-save | grep '^[-:]' | sed 's/ \\[.*//' | sort"),
    descriptors: await host.sh(`ls /proc/${pid}/fd | wc -l`),
    processes: await host.sh(
      "ps -eo s,comm --no-headers | grep -vE ' (ps|sh|grep|cat|sed|sort)$' | sed '/^Z/!s/^./-/' | sort",
    ),
    files: await host.sh("find /run /var/lib/weave -xdev -type f | grep -v '^/run/\\.' | sort"),
  };
}
