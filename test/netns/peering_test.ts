/** Who connects with whom, who is refused, and what the operator is told of it. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, connections, establishedPeers, line, report, waitEstablished, waitPing } from "./mesh.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** How long a connection that must not come about is watched. */
const REFUSED_MS = 4_000;

testAsRoot("a router that is told of one peer finds the others, unless discovery is off", async () => {
  for (const discovery of [true, false]) {
    await using lab = new Lab();
    const [a, b, c] = await switched(lab, "a", "b", "c");
    const flags = discovery ? [] : ["--no-discovery"];
    await a.weave("launch", ...flags);
    await b.weave("launch", ...flags, a.address());
    await c.weave("launch", ...flags, b.address());
    if (discovery) {
      console.log(`third connection after ${await measure(() => waitEstablished(a, [b, c]))} ms`);
      assert.match(await a.weave("status"), /PeerDiscovery: enabled/);
    } else {
      await waitEstablished(b, [a, c]);
      await delay(REFUSED_MS);
      assert.equal(`${await establishedPeers(a)}`, "b");
      assert.match(await a.weave("status"), /PeerDiscovery: disabled/);
      const name = (await report(c)).Router.Name;
      const relayed = new RegExp(`^ +relayed +${name}\\(c\\) via ${(await report(b)).Router.Name}\\(b\\)$`, "m");
      assert.match(await a.weave("status", "connections"), relayed);
    }
    assert.equal(await a.weave("status", "targets"), "", "what was discovered is no target");
  }
});

testAsRoot("two hosts of one name are told so, and each may take a name of its own", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await b!.sh(`echo ${await a!.sh("cat /etc/machine-id")} > /etc/machine-id`);
  const name = await a!.weave("launch");
  assert.equal(await b!.weave("launch", a!.address()), name);
  await waitConnectionsSay(b!, /peer names collision/);
  assert.ok(!(await connections(a!)).some((connection) => connection.State === "established"));
  await b!.weave("stop");
  assert.equal(await b!.weave("launch", "--name", "::2", a!.address()), "00:00:00:00:00:02");
  await waitEstablished(b!, [a!]);
});

testAsRoot("a router does not connect to itself, and takes no more connections than it may", async () => {
  await using lab = new Lab();
  const [hub, b, c] = await switched(lab, "hub", "b", "c");
  await hub.weave("launch", "--conn-limit", "1", hub.address());
  await waitConnectionsSay(hub, /cannot connect to ourself/);
  await b.weave("launch", hub.address());
  await waitEstablished(b, [hub]);
  await c.weave("launch", hub.address());
  await waitFor("the refusal", async () => (await hub.weave("logs")).includes("Connection limit reached (1)"), 5_000, [
    hub,
    c,
  ]);
  await delay(REFUSED_MS);
  assert.equal(`${await establishedPeers(hub)}`, "b");
  assert.equal(`${await establishedPeers(c)}`, "");
  await b.weave("stop");
  await waitEstablished(c, [hub], 30_000);
});

testAsRoot("weave launch --host serves peers at that address only", async () => {
  await using lab = new Lab();
  const [a, b, c] = [await lab.host("a"), await lab.host("b"), await lab.host("c")];
  await lab.link(a, b);
  await lab.link(a, c);
  await a.weave("launch", "--host", a.address(b));
  const sockets = await a.sh("ss -Hltun sport = :6783 | awk '{print $1, $5}' | sort -u");
  assert.equal(sockets, `tcp ${a.address(b)}:6783\nudp ${a.address(b)}:6783`);
  await b.weave("launch", a.address(b));
  await c.weave("launch", a.address(c));
  await waitEstablished(a, [b]);
  await waitConnectionsSay(c, new RegExp(`^-> ${a.address(c)}:6783 +(failed|retrying) .*refused`, "m"));
  const c1 = await attachNew(a, "c1", "10.0.0.1/24");
  await attachNew(b, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
});

/** Hosts that reach each other directly. */
async function switched<Names extends string[]>(
  lab: Lab,
  ...names: Names
): Promise<{ [I in keyof Names]: EmulatedHost }> {
  const hosts: EmulatedHost[] = [];
  for (const name of names) hosts.push(await lab.host(name));
  await lab.switch(hosts);
  return hosts as { [I in keyof Names]: EmulatedHost };
}

async function waitConnectionsSay(host: EmulatedHost, what: RegExp): Promise<void> {
  const says = async () => what.test(await host.weave("status", "connections"));
  await waitFor(`${what} in the connections of ${host.name}`, says, 10_000, [host]);
}
