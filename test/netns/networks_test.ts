/** Isolated networks by command: what is refused, and what is given back when weave goes. */

import assert from "node:assert/strict";
import { testAsRoot } from "../skip.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { routerPid, waitEstablished } from "./mesh.ts";
import { waitFor } from "./wait.ts";

testAsRoot("reset gives the links of isolated networks back, and what would cut the host off is refused", async () => {
  await using lab = new Lab();
  const [gateway, one, two] = [await lab.host("gateway"), await lab.host("one"), await lab.host("two")];
  await lab.link(gateway, one, ["192.168.1.1", "192.168.1.10"]);
  await lab.link(gateway, two, ["192.168.1.1", "192.168.1.10"]);
  await gateway.sh(
    "ip route add 10.9.0.0/16 via 192.168.1.10 dev eth0; ip route add default via 192.168.1.10 dev eth1",
  );
  const before = await linksOf(gateway);
  await gateway.weave("launch", "--network", "one=eth0:isolated");
  await waitFor("eth0 to move", async () => !(await linksOf(gateway)).includes("eth0"), 5_000);
  const inside = ["ip", "netns", "exec", "weave-one"];
  await gateway.exec([...inside, "ping", "-nqc", "1", "-W", "2", "192.168.1.10"]);
  assert.match((await gateway.exec([...inside, "ip", "route"])).stdout, /10\.9\.0\.0\/16 via 192\.168\.1\.10 dev eth0/);

  const refused = await gateway.attemptWeave("network", "add", "two=eth1", "--isolated");
  assert.deepEqual([refused.code, refused.stdout], [1, ""]);
  assert.match(
    refused.stderr,
    /^Cannot put interface "eth1" into network "two": this host's default route leaves by it, .*\n$/,
  );
  assert.doesNotMatch(await gateway.weave("network", "ls"), /two/);
  await gateway.sh(
    "ip route del default; ip route add default dev eth1 metric 5; ip route add default via 192.168.1.10 dev eth1 metric 9",
  );
  assert.match((await gateway.attemptWeave("network", "add", "two=eth1", "--isolated")).stderr, /default route/);

  // The plainest end of a router, then everything of it goes.
  await gateway.sh(`kill -9 ${await routerPid(gateway)}`);
  await gateway.weave("reset", "--force");
  await gateway.sh(
    "ip route del default metric 5; ip route del default metric 9; ip route add default via 192.168.1.10 dev eth1",
  );
  assert.equal(await linksOf(gateway), before);
  assert.equal(await gateway.sh("ip netns; ip -o link | grep -o weave || true"), "");
});

testAsRoot("an interface by which a peer or a target is reached is isolated by force alone", async () => {
  await using lab = new Lab();
  const [one, two] = [await lab.host("one"), await lab.host("two")];
  await lab.link(one, two);
  const target = two.address();
  const launched = await one.attemptWeave("launch", "--network", "m=eth0:isolated", target);
  assert.deepEqual([launched.code, launched.stdout, launched.stderr], [
    1,
    "",
    `Cannot put interface "eth0" into network "m": target ${target} is reached by it, and would not be any more\n`,
  ]);
  await two.weave("launch");
  await one.weave("launch", target);
  await waitEstablished(one, [two]);
  for (const [host, peer] of [[one, two], [two, one]] as const) {
    const refused = await host.attemptWeave("network", "add", "m=eth0", "--isolated");
    assert.deepEqual([refused.code, refused.stdout], [1, ""]);
    assert.match(
      refused.stderr,
      new RegExp(
        `^Cannot put interface "eth0" into network "m": peer [0-9a-f:]{17}\\(${peer.name}\\), at ${peer.address()}, is reached by it, .*; --force .*\n$`,
      ),
    );
    assert.doesNotMatch(await host.weave("network", "ls"), /m/);
  }
  await one.sh("ip link add spare type veth peer name spare1");
  await one.weave("network", "add", "other=spare", "--isolated");
  await one.weave("network", "add", "m=eth0", "--isolated", "--force");
  assert.doesNotMatch(await linksOf(one), /eth0/);
  await one.weave("network", "rm", "m");
  await waitEstablished(one, [two]);
});

async function linksOf(host: EmulatedHost): Promise<string> {
  return await host.sh(
    "ip -o -4 address | sed 's/ valid_lft.*//;s/^[0-9]*: //' | grep eth | sort; ip -4 route show table all | grep -v weave | sort",
  );
}
