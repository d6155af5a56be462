import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab, makeRouter } from "./lab.ts";
import { attachNew, line, waitEstablished, waitPing } from "./mesh.ts";
import { waitFor } from "./wait.ts";
import { isThere } from "../packages.ts";
import { testAsRoot, testUnless } from "../skip.ts";

testAsRoot("weave expose opens a subnet to the host, and weave hide closes it", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  const rulesBefore = await rules(a!);
  const local = await attachNew(a!, "c1", "10.0.0.1/24");
  const remote = await attachNew(b!, "c2", "10.0.0.2/24");
  await attachNew(a!, "c3", "10.2.0.3/24");
  await waitPing(local, "10.0.0.2");
  assert.ok(!await hostPings(a!, "10.0.0.1"));

  for (let i = 0; i < 2; i++) {
    assert.equal(await a!.weave("expose", "10.0.0.100/24"), "10.0.0.100");
    assert.ok(await hostPings(a!, "10.0.0.1"));
    assert.ok(await hostPings(a!, "10.0.0.2"));
    assert.ok(!await hostPings(a!, "10.2.0.3"));
    assert.ok(await remote.pings("10.0.0.100"));
  }
  assert.match((await a!.weave("ps")).split("\n")[0]!, /^weave:expose \S+ 10\.0\.0\.100\/24$/);
  const exposed = await rules(a!);
  assert.ok(exposed.includes("-A WEAVE -s 10.0.0.0/24 -d 224.0.0.0/4 -j RETURN"), exposed.join("\n"));
  assert.ok(exposed.includes("-A WEAVE-EXPOSE -d 10.0.0.0/24 -j ACCEPT"));

  for (let i = 0; i < 2; i++) {
    assert.equal(await a!.weave("hide", "10.0.0.100/24"), "10.0.0.100");
    assert.ok(!await hostPings(a!, "10.0.0.1"));
  }
  assert.deepEqual(await rules(a!), rulesBefore);
});

testAsRoot(
  "an exposed subnet reaches beyond the host and is reached from there, but from no other subnet",
  async () => {
    for (const bridgeNetfilter of ["0", "1"]) {
      await using lab = new Lab();
      const [a, b, outside] = [await lab.host("a"), await lab.host("b"), await lab.host("outside")];
      await lab.link(a, b);
      await lab.link(a, outside);
      await makeRouter(a);
      await a.sh("iptables -P FORWARD DROP"); // as Docker sets it
      await a.weave("launch");
      await b.weave("launch", a.address(b));
      await waitEstablished(a, [b]);
      await a.sh(
        `[ ! -e /proc/sys/net/bridge ] || echo ${bridgeNetfilter} > /proc/sys/net/bridge/bridge-nf-call-iptables`,
      );
      const local = await attachNew(a, "c1", "10.0.0.1/24");
      const remote = await attachNew(b, "c2", "10.0.0.2/24");
      await waitPing(local, "10.0.0.2");
      await a.weave("expose", "10.0.0.100/24");

      // Out of the subnet, masqueraded: the outside host has no way back to 10.0.0.0/24.
      await remote.sh("ip route add default via 10.0.0.100");
      await waitPing(remote, outside.address(), 5_000);
      // Into the subnet, through a route.
      await outside.sh(`ip route add 10.0.0.0/24 via ${a.address(outside)}`);
      assert.ok(await hostPings(outside, "10.0.0.2"));
      // Nor does the host lead from one exposed subnet to another.
      const other = await attachNew(b, "c3", "10.2.0.3/24");
      await a.weave("expose", "10.2.0.100/24");
      await other.sh("ip route add default via 10.2.0.100");
      await waitPing(other, "10.2.0.100", 5_000);
      assert.ok(!await remote.pings("10.2.0.3"));
      await a.weave("hide", "10.0.0.100/24");
      assert.ok(!await hostPings(outside, "10.0.0.2"));
    }
  },
);

testAsRoot("exposures survive a restart of the router, --without-masquerade included", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  await host.weave("expose", "10.0.0.100/24");
  await host.weave("expose", "--without-masquerade", "10.1.0.100/24");
  const links = () =>
    host.sh("ip -o link show weave; ip -o link show vethwe-bridge | cut -d' ' -f1-4; ip -4 address show weave");
  const before = [await rules(host), await links()];
  await host.weave("stop");
  await host.weave("launch");
  assert.deepEqual([await rules(host), await links()], before, "what is there is adopted");
  assert.match(await host.weave("ps", "weave:expose"), /10\.0\.0\.100\/24 10\.1\.0\.100\/24/);
});

testAsRoot("weave reset leaves nothing of ours on the host", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.sh("iptables -t nat -A PREROUTING -p tcp --dport 2211 -j DNAT --to-destination 10.0.0.1:4422");
  const c1 = await a!.container("c1");
  const all = async () => ({ host: await everything(a!), container: await everything(c1) });
  const before = await all();
  await a!.weave("launch", b!.address());
  await b!.weave("launch");
  await waitEstablished(a!, [b!]);
  await a!.weave("attach", "10.0.0.1/24", c1.reference);
  await a!.weave("expose", "10.0.0.100/24");
  await a!.weave("expose", "10.2.0.100/24");
  for (let i = 0; i < 2; i++) {
    await a!.weave("reset");
    assert.deepEqual(await all(), before);
  }
  await a!.weave("launch", b!.address());
  await waitEstablished(a!, [b!]);
});

testUnless(
  withoutLegacy(),
  "rules go where Docker's are, or else where iptables leads, and move with Docker",
  async () => {
    await using lab = new Lab();
    const host = await lab.host("a");
    await host.sh("iptables-legacy -N DOCKER-USER");
    await host.weave("launch");
    await host.weave("expose", "10.0.0.100/24");
    const inLegacy = await ourRules(host, "legacy");
    assert.ok(inLegacy.includes("-A WEAVE-EXPOSE -d 10.0.0.0/24 -j ACCEPT"), inLegacy.join("\n"));
    assert.deepEqual(await ourRules(host, "nft"), []);
    await host.sh("iptables-legacy -X DOCKER-USER; iptables-nft -N DOCKER-USER");
    await host.weave("expose", "10.0.0.100/24");
    assert.deepEqual(await ourRules(host, "nft"), inLegacy);
    assert.deepEqual(await ourRules(host, "legacy"), []);

    await host.sh("iptables-nft -X DOCKER-USER; ln -sf /usr/sbin/iptables-legacy /etc/alternatives/iptables");
    await waitFor("the router to notice", async () => `${await ourRules(host, "legacy")}` === `${inLegacy}`, 13_000, [
      host,
    ]);
    assert.deepEqual(await ourRules(host, "nft"), []);
    await host.weave("reset");
    assert.deepEqual([...await ourRules(host, "legacy"), ...await ourRules(host, "nft")], []);
  },
);

/** Why there is no older packet filter here to tell from the newer. */
function withoutLegacy(): string | undefined {
  if (Deno.uid() !== 0) return "it needs root";
  if (!isThere("/usr/sbin/iptables-legacy") || !isThere("/usr/sbin/iptables-nft")) {
    return "only one variant of iptables";
  }
  const probe = new Deno.Command("unshare", { args: ["-n", "iptables-legacy", "-S"], stdout: "null", stderr: "null" });
  return probe.outputSync().success ? undefined : "this kernel has no legacy iptables";
}

async function ourRules(host: EmulatedHost, variant: "nft" | "legacy"): Promise<string[]> {
  const lines = (await host.sh(`iptables-${variant}-save | grep -iE '^(-A|:).*weave' | sed 's/ \\[.*//' || true`))
    .split("\n");
  return lines.filter((line) => line !== "").sort();
}

async function hostPings(host: EmulatedHost, address: string): Promise<boolean> {
  return (await host.attempt(["ping", "-n", "-q", "-c", "1", "-W", "2", address])).code === 0;
}

/** All rules and chains of our own, without counters. */
async function rules(host: EmulatedHost): Promise<string[]> {
  return (await host.sh("iptables-save | grep -E '^(-A|:WEAVE)' | sed 's/ \\[.*//'")).split("\n");
}

/** What a host or a container is like: links, addresses, rules, settings, processes, files. */
async function everything(host: Pick<EmulatedHost, "sh">): Promise<Record<string, string>> {
  return {
    links: await host.sh("ip -o link | cut -d: -f2- | sed 's/ qlen.*//'"),
    addresses: await host.sh("ip -o address | cut -d' ' -f2-7"),
    routes: await host.sh("ip route; ip rule"),
    // A policy of ACCEPT is what a chain has that nobody touched; tables appear when they are first read.
    rules: await host.sh(
      "for p in iptables ip6tables; do $p-save; done | grep -E '^(-A|:[A-Za-z-]+ -)' | sed 's/ \\[.*//'",
    ),
    settings: await host.sh(
      "sysctl -a 2>/dev/null | grep -E '^net\\.(ipv4|ipv6|bridge)\\.' | grep -vE '(random|_seq|inuse)'",
    ),
    processes: await host.sh("ps -eo comm --no-headers | grep -vE '^(ps|sh|grep|cat|sort)$' | sort || true"),
    // What is written to /etc and /var/lib lies in /run/.host.
    files: await host.sh("find /run /var/lib/weave /var/log -mindepth 1 | grep -v '^/run/[.]work' | sort"),
  };
}
