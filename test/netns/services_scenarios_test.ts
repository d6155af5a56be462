/** What people do with weave and iptables by hand, and the same by our commands; both side by side, neither in the other's way. */

import assert from "node:assert/strict";
import type { Container, EmulatedHost } from "./host.ts";
import { Lab, makeRouter } from "./lab.ts";
import { waitEstablished, waitPing } from "./mesh.ts";
import { ask, rulesOf, serveName, service, settle, twoSites, waitAnswer, waitKnown } from "./services.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/**
 *     client ── host2 ══ mesh ══ host1 ── host3, host4
 *                 └ b1            └ a1
 */
interface Setting {
  readonly host1: EmulatedHost;
  readonly host2: EmulatedHost;
  readonly host3: EmulatedHost;
  readonly host4: EmulatedHost;
  readonly client: EmulatedHost;
  readonly a1: Container;
  readonly b1: Container;
}

async function setting(lab: Lab): Promise<Setting> {
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  const [host3, host4, client] = [await lab.host("host3"), await lab.host("host4"), await lab.host("client")];
  await lab.link(host1, host2);
  await lab.link(host1, host3);
  await lab.link(host1, host4);
  await lab.link(host2, client);
  await host1.weave("launch");
  await host2.weave("launch", host1.address(host2));
  await waitEstablished(host1, [host2]);
  const a1 = await attachNamed(host1, "a1");
  const b1 = await attachNamed(host2, "b1");
  for (const transport of ["tcp", "udp"] as const) {
    await serveName(a1, 4422, transport);
    await serveName(host3, 2211, transport);
    await serveName(host4, 2211, transport);
  }
  return { host1, host2, host3, host4, client, a1, b1 };
}

async function attachNamed(host: EmulatedHost, name: string): Promise<Container> {
  const container = await host.container(name);
  await host.weave("attach", "--hostname", `${name}.weave.local`, container.reference);
  return container;
}

/** One of the well-known lines: `words` say what is translated, `to` where to. */
async function translate(host: EmulatedHost, words: string, to: string, action = "-A"): Promise<void> {
  for (const protocol of ["tcp", "udp"]) {
    const [before, port] = words.split(" --dport ") as [string, string];
    await host.sh(
      `iptables -t nat ${action} PREROUTING -p ${protocol} ${before} --dport ${port} -j DNAT --to-destination ${to}`,
    );
  }
}

const BOTH = ["tcp", "udp"] as const;

testAsRoot("export, by hand: a container's port at another host's address", async () => {
  await using lab = new Lab();
  const { host2, client } = await setting(lab);
  await makeRouter(host2);
  await host2.weave("expose");
  await translate(host2, "-i eth1 --dport 2211", `$(${host2.weaveCommand().join(" ")} dns-lookup a1):4422`);
  for (const transport of BOTH) await waitAnswer(client, host2.address(client), 2211, "a1", { transport });
});

testAsRoot("export: a container's port at another host's address", async () => {
  await using lab = new Lab();
  const { host2, client, b1, a1 } = await setting(lab);
  for (const suffix of ["", "/udp"]) {
    const printed = await service(
      host2,
      "export",
      "a1.weave.local:4422",
      "--listen",
      `${host2.address(client)}:2211${suffix}`,
    );
    assert.equal(printed, `${host2.address(client)}:2211`);
  }
  for (const transport of BOTH) await waitAnswer(client, host2.address(client), 2211, "a1", { transport });
  for (const transport of BOTH) await waitAnswer(host2, host2.address(client), 2211, "a1", { transport });
  assert.equal(await ask(b1, (await host2.weave("dns-lookup", "a1")).trim(), 4422), "a1", "as before");
  assert.equal(await ask(client, host2.address(client), 4422), "", "that port is not exported");

  // The container comes back elsewhere, with another address: the name leads there.
  await a1.remove();
  const again = await attachNamed(host2, "a1");
  for (const transport of BOTH) await serveName(again, 4422, transport);
  for (const transport of BOTH) await waitAnswer(client, host2.address(client), 2211, "a1", { transport });

  await service(host2, "rm", "a1.weave.local", "--export");
  assert.equal(await ask(client, host2.address(client), 2211), "");
});

testAsRoot(
  "import, by hand, and bind to another host: what only one host reaches is used from containers",
  async () => {
    await using lab = new Lab();
    const { host1, host3, host4, a1, b1 } = await setting(lab);
    await makeRouter(host1);
    const exposed = await host1.weave("expose", "-h", "host1.weave.local");
    await translate(host1, `-d ${exposed} --dport 3322`, `${host3.address()}:2211`);
    for (const transport of BOTH) {
      await waitAnswer(b1, exposed, 3322, "host3", { transport });
      await waitAnswer(a1, exposed, 3322, "host3", { transport });
    }
    await translate(host1, `-d ${exposed} --dport 3322`, `${host3.address()}:2211`, "-D");
    await translate(host1, `-d ${exposed} --dport 3322`, `${host4.address()}:2211`);
    for (const transport of BOTH) await waitAnswer(b1, exposed, 3322, "host4", { transport });
  },
);

testAsRoot("import, and bind to another host: what only one host reaches is used from containers", async () => {
  await using lab = new Lab();
  const { host1, host2, host3, host4, a1, b1 } = await setting(lab);
  const to = (host: EmulatedHost) => [`${host.address()}:2211`, `${host.address()}:2211/udp`];
  const ports = ["--port", "3322,3322/udp"];
  const address = await service(host1, "import", "things", ...to(host3).flatMap((one) => ["--to", one]), ...ports);
  assert.match(address, /^10\.\d+\.\d+\.\d+$/);
  for (const transport of BOTH) {
    await waitAnswer(b1, address, 3322, "host3", { transport, witnesses: [host1, host2] });
    await waitAnswer(a1, address, 3322, "host3", { transport });
  }
  assert.equal(await host2.weave("dns-lookup", "things"), address);
  const server = await host2.weave("expose");
  await host2.sh(`mkdir -p /etc/netns/b1; echo nameserver ${server} > /etc/netns/b1/resolv.conf`);
  await waitAnswer(b1, "things.weave.local", 3322, "host3");
  assert.equal(await ask(b1, address, 2211), "", "a port that the service has not");

  await service(host1, "bind", "things", ...to(host4));
  for (const transport of BOTH) await waitAnswer(b1, address, 3322, "host4", { transport, deadlineMs: 3_000 });
  assert.equal(await host2.weave("dns-lookup", "things"), address, "name and address stay");

  await service(host1, "rm", "things");
  await waitFor("the name to go", async () => (await host2.weave("dns-lookup", "things")) === "", 5_000);
  assert.equal(await ask(b1, address, 3322), "");
});

testAsRoot("route, by hand: two sites of one range behind firewalls, through a third host", async () => {
  await using lab = new Lab();
  const { here, there, machine, backend, other } = await sites(lab);
  for (const gateway of [here, there]) await makeRouter(gateway);
  const entry = await there.weave("expose", "-h", "gw.weave.local");
  await here.weave("expose");
  await translate(there, `-d ${entry} --dport 3322`, `${backend.address()}:2211`);
  await translate(here, "-i eth0 --dport 4433", `${entry}:3322`);
  for (const transport of BOTH) await waitAnswer(machine, here.address(), 4433, "backend", { transport });
  await translate(there, `-d ${entry} --dport 3322`, `${backend.address()}:2211`, "-D");
  await translate(there, `-d ${entry} --dport 3322`, `${other.address()}:2211`);
  for (const transport of BOTH) await waitAnswer(machine, here.address(), 4433, "other", { transport });
});

testAsRoot("route: two sites of one range behind firewalls, through a third host", async () => {
  await using lab = new Lab();
  const { here, there, machine, backend, other } = await sites(lab);
  assert.equal(machine.address(), backend.address(), "client and backend have the same address");
  const to = (host: EmulatedHost) => [`${host.address()}:2211`, `${host.address()}:2211/udp`];
  await service(there, "import", "things", ...to(backend).flatMap((one) => ["--to", one]), "--port", "3322,3322/udp");
  const address = await waitKnown(here, "things");
  await service(here, "export", "things:3322", "--listen", `${here.address()}:4433`);
  await service(here, "export", "things:3322", "--listen", `${here.address()}:4433/udp`);
  for (const transport of BOTH) {
    await waitAnswer(machine, here.address(), 4433, "backend", { transport, witnesses: [here, there] });
    await waitAnswer(here, address, 3322, "backend", { transport });
  }
  await service(there, "bind", "things", ...to(other));
  for (const transport of BOTH) {
    await waitAnswer(machine, here.address(), 4433, "other", { transport, deadlineMs: 3_000 });
  }
  assert.equal(await ask(machine, here.address(), 2211), "");
});

interface Sites {
  /** The gateway of the site whose machines are clients, and of the one with the backends. */
  readonly here: EmulatedHost;
  readonly there: EmulatedHost;
  readonly hub: EmulatedHost;
  readonly machine: EmulatedHost;
  readonly backend: EmulatedHost;
  readonly other: EmulatedHost;
}

async function sites(lab: Lab): Promise<Sites> {
  const { hub, sites: [a, b] } = await twoSites(lab, { here: ["machine"], there: ["backend", "other"] });
  await hub.weave("launch");
  for (const { gateway } of [a, b]) await gateway.weave("launch", hub.address());
  await waitEstablished(hub, [a.gateway, b.gateway]);
  const [machine] = a.machines, [backend, other] = b.machines;
  for (const transport of BOTH) {
    await serveName(backend!, 2211, transport);
    await serveName(other!, 2211, transport);
  }
  // Nothing but the mesh joins them.
  assert.equal(await ask(a.gateway, b.firewall.address(), 2211), "");
  assert.notEqual((await a.gateway.attempt(["nc", "-z", "-w", "1", hub.address(), "22"])).code, 0);
  return { here: a.gateway, there: b.gateway, hub, machine: machine!, backend: backend!, other: other! };
}

testAsRoot("rules typed by hand and ours survive each other's changes, launch, stop, hide and reset", async () => {
  await using lab = new Lab();
  const { host1, host2, host3, client, b1 } = await setting(lab);
  for (const host of [host1, host2]) await makeRouter(host);
  const entry = await host1.weave("expose");
  await host2.weave("expose");
  const at = host2.address(client);
  const byHand = async () => {
    await translate(host1, `-d ${entry} --dport 3322`, `${host3.address()}:2211`);
    await translate(host2, "-i eth1 --dport 2211", `${entry}:3322`);
  };
  const flushByHand = async () => {
    for (const host of [host1, host2]) await host.sh("iptables -t nat -F PREROUTING");
  };
  await byHand();
  const targets = [`${host3.address()}:2211`, `${host3.address()}:2211/udp`].flatMap((one) => ["--to", one]);
  const address = await service(host1, "import", "things", ...targets);
  await waitKnown(host2, "things");
  for (const suffix of ["", "/udp"]) await service(host2, "export", "things:2211", "--listen", `${at}:2212${suffix}`);

  const handWorks = async (deadlineMs = 10_000) => {
    for (const transport of BOTH) {
      await waitAnswer(client, at, 2211, "host3", { transport, deadlineMs });
      await waitAnswer(b1, entry, 3322, "host3", { transport, deadlineMs });
    }
  };
  const oursWork = async (deadlineMs = 10_000) => {
    for (const transport of BOTH) {
      await waitAnswer(client, at, 2212, "host3", { transport, deadlineMs, witnesses: [host1, host2] });
      await waitAnswer(b1, address, 2211, "host3", { transport, deadlineMs });
    }
  };
  const prerouting = (host: EmulatedHost) => host.sh("iptables -t nat -S PREROUTING");
  await handWorks();
  await oursWork();

  // Ours change: the user's rules are as they were, and work.
  const theirs = await Promise.all([host1, host2].map(prerouting));
  await service(host1, "import", "more", "--to", `${host3.address()}:2211`, "--port", "99");
  await service(host2, "export", "a1.weave.local:4422", "--listen", `${at}:98`);
  await handWorks(3_000);
  await service(host1, "rm", "more");
  await service(host2, "rm", "a1.weave.local", "--export");
  await handWorks(3_000);
  assert.deepEqual(await Promise.all([host1, host2].map(prerouting)), theirs);

  // The user's change: ours are as they were, and work.
  const ours = await Promise.all([host1, host2].map(async (host) => (await rulesOf(host)).services));
  assert.ok(ours.every((text) => text !== ""));
  await flushByHand();
  await oursWork(3_000);
  for (const host of [host1, host2]) await host.sh("iptables -F; iptables -t nat -F; iptables -t mangle -F");
  await oursWork(3_000);
  assert.deepEqual(
    await Promise.all([host1, host2].map(async (host) => (await rulesOf(host)).services)),
    ours,
  );
  await byHand();
  await waitFor(
    "the rules of expose to be back",
    async () => (await rulesOf(host1)).iptables.includes("WEAVE-EXPOSE"),
    15_000,
  );
  await handWorks(15_000);

  // Hidden: what goes through the exposed address ends, ours does not need it.
  await host1.weave("hide");
  await host2.weave("hide");
  await oursWork(3_000);
  assert.deepEqual(await Promise.all([host1, host2].map(prerouting)), theirs);
  assert.equal(await host1.weave("expose"), entry);
  await host2.weave("expose");
  await handWorks();
  await oursWork(3_000);

  // Stopped: all rules stay. Launched: all work again.
  for (const host of [host1, host2]) {
    await host.weave("stop");
    await settle();
    assert.ok((await rulesOf(host)).services.includes("things") || (await rulesOf(host)).services !== "");
    assert.deepEqual(await Promise.all([host1, host2].map(prerouting)), theirs);
    await host.weave("launch", ...(host === host2 ? [host1.address(host2)] : []));
    await waitEstablished(host2, [host1], 20_000);
    await handWorks();
    await oursWork();
  }

  // Reset: ours go, the user's stay.
  await host2.weave("reset");
  assert.equal((await rulesOf(host2)).services, "");
  assert.deepEqual(await Promise.all([host1, host2].map(prerouting)), theirs);
  await host2.weave("launch", host1.address(host2));
  await waitEstablished(host2, [host1], 20_000);
  await host2.weave("expose");
  for (const transport of BOTH) await waitAnswer(client, at, 2211, "host3", { transport });
  await host1.weave("reset");
  assert.equal((await rulesOf(host1)).services, "");
  assert.deepEqual(await Promise.all([host1, host2].map(prerouting)), theirs);
});

testAsRoot("weave reset takes all of the services from a host, and what they had set on it", async () => {
  await using lab = new Lab();
  const { host1, host2, host3, client, b1 } = await setting(lab);
  await host2.weave("reset");
  await host1.weave("reset");
  const before = await Promise.all([host1, host2].map(everything));
  await host1.weave("launch", "--network", "red=eth1");
  await host2.weave("launch", host1.address(host2));
  await waitEstablished(host1, [host2]);
  const address = await service(host1, "import", "things", "--network", "red", "--to", `${host3.address()}:2211`);
  await waitKnown(host2, "things");
  await service(host2, "export", "things", "--listen", "2212");
  await waitAnswer(client, host2.address(client), 2212, "host3", { witnesses: [host1, host2] });
  await waitAnswer(host2, address, 2211, "host3");
  await waitAnswer(host2, "127.0.0.1", 2212, "host3");
  for (const host of [host2, host1]) {
    await host.weave("reset");
    assert.deepEqual(await everything(host), before[host === host1 ? 0 : 1]);
  }
  assert.ok(!await b1.pings(address));
});

testAsRoot("a service survives a reboot of its gateway", async () => {
  await using lab = new Lab();
  const { host1, host2, host3, b1 } = await setting(lab);
  const address = await service(host1, "import", "things", "--to", `${host3.address()}:2211`);
  await waitAnswer(b1, address, 2211, "host3");
  // What a reboot leaves: the files, and nothing that was in memory.
  await host1.weave("stop");
  await host1.sh(
    "nft flush ruleset; ip link del weave; ip rule flush; ip rule add pref 32766 lookup main; ip rule add pref 32767 lookup default; rm -rf /run/weave",
  );
  await host1.weave("launch");
  await waitEstablished(host2, [host1], 20_000);
  await waitAnswer(b1, address, 2211, "host3", { deadlineMs: 20_000, witnesses: [host1, host2] });
});

testAsRoot("a container's answer comes back the way it came whatever the routes of the backend's network", async () => {
  await using lab = new Lab();
  const { host1, host2, host3, client, b1 } = await setting(lab);
  // host3 has a default route that leads nowhere near.
  await host3.sh("ip route add blackhole default");
  const address = await service(host1, "import", "things", "--to", `${host3.address()}:2211`);
  await waitAnswer(b1, address, 2211, "host3");
  await waitKnown(host2, "things");
  await service(host2, "export", "things", "--listen", "2212");
  await client.sh("ip route add blackhole default");
  await waitAnswer(client, host2.address(client), 2212, "host3");
  await waitPing(b1, (await host2.weave("dns-lookup", "a1")).trim());
});

/** What services may have changed on a host. */
async function everything(host: EmulatedHost): Promise<Record<string, string>> {
  return {
    links: await host.sh("ip -o link | cut -d: -f2- | sed 's/ qlen.*//'"),
    addresses: await host.sh("ip -o address | cut -d' ' -f2-7"),
    routes: await host.sh("ip route show table all; ip rule"),
    rules: await host.sh(
      "nft -s list ruleset | grep -v '^#' | grep -vE '^(table ip6? (nat|filter|mangle|raw)|.chain|\t\ttype|\t?}|$)' || true",
    ),
    settings: await host.sh(
      "sysctl -a 2>/dev/null | grep -E '^net\\.(ipv4|ipv6|bridge|netfilter)\\.' | grep -vE '(random|_seq|inuse|_count|secret)'",
    ),
    files: await host.sh("find /run /var/lib/weave -mindepth 1 | grep -v '^/run/[.]work' | sort"),
    namespaces: await host.sh("ip netns list | sort"),
  };
}
