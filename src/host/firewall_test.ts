import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import { findProgram, run } from "./command.ts";
import {
  canaryIntact,
  DEFAULT_FIREWALL,
  ensureFirewall,
  ensureMulticastRules,
  type Exposure,
  type FirewallOptions,
  removeFirewall,
  wantedFirewall,
  wantedNothing,
} from "./firewall.ts";
import { parseSave, planRestore } from "./iptables.ts";

Deno.test("wantedFirewall() has the rules of Weave Net, in its order", () => {
  const wanted = wantedFirewall(WITH_DOCKER, [exposure("10.0.0.100/24")]);
  assert.deepEqual(wanted.get("filter")!.top.get("FORWARD"), FORWARD);
  assert.deepEqual(wanted.get("filter")!.anywhere.get("INPUT"), INPUT);
  assert.deepEqual(wanted.get("filter")!.chains.get("WEAVE-EXPOSE"), ["-d 10.0.0.0/24 -j ACCEPT"]);
  assert.deepEqual(wanted.get("nat")!.anywhere.get("POSTROUTING"), ["-j WEAVE"]);
  assert.deepEqual(wanted.get("nat")!.chains.get("WEAVE"), [
    "-s 10.0.0.0/24 -d 224.0.0.0/4 -j RETURN",
    "! -s 10.0.0.0/24 -d 10.0.0.0/24 -j MASQUERADE",
    "-s 10.0.0.0/24 ! -d 10.0.0.0/24 -j MASQUERADE",
  ]);
  for (const table of ["filter", "nat", "mangle"] as const) {
    assert.deepEqual(wanted.get(table)!.chains.get("WEAVE-CANARY"), []);
  }
  assert.equal(wanted.get("mangle")!.chains.has("weave-isolate"), false);
});

Deno.test("wantedFirewall() masquerades a subnet once, and only where some exposure of it asks for it", () => {
  const chain = (...exposures: Exposure[]) => wantedFirewall(WITH_DOCKER, exposures).get("nat")!.chains.get("WEAVE")!;
  assert.equal(chain(exposure("10.0.0.1/24"), exposure("10.0.0.2/24")).length, 3);
  assert.equal(chain(exposure("10.0.0.1/24", false)).length, 0);
  assert.equal(chain(exposure("10.0.0.1/24", false), exposure("10.0.0.2/24")).length, 3);
});

Deno.test("wantedFirewall() keeps exposed subnets apart unless one lies in the other", () => {
  const isolate = (...cidrs: string[]) =>
    wantedFirewall(WITH_DOCKER, cidrs.map((c) => exposure(c))).get("mangle")!.chains.get("weave-isolate");
  assert.deepEqual(isolate("10.0.2.1/24", "10.0.1.1/24"), [
    "-s 10.0.1.0/24 -d 10.0.2.0/24 -j DROP",
    "-s 10.0.2.0/24 -d 10.0.1.0/24 -j DROP",
  ]);
  assert.equal(isolate("10.0.2.1/24", "10.0.0.1/16"), undefined);
  assert.equal(isolate("10.0.2.1/24", "10.0.2.2/24"), undefined);
});

Deno.test("wantedFirewall() needs no Docker, and takes no port that does not exist", () => {
  const { dockerBridgeIp: _, ...without } = WITH_DOCKER;
  assert.deepEqual(wantedFirewall(without, []).get("filter")!.anywhere.get("INPUT"), [INPUT[5]]);
  const last = wantedFirewall({ ...WITH_DOCKER, port: 65535 }, []).get("filter")!.anywhere.get("INPUT")!;
  assert.equal(last.some((rule) => rule.includes("65536")), false);
});

Deno.test("wantedFirewall() is lifted above what Docker puts on top when it starts after us", () => {
  const saved = (rules: string, more = "") => parseSave(`*filter\n:FORWARD DROP [0:0]\n${more}${rules}COMMIT\n`);
  const ours = FORWARD.map((rule) => `-A FORWARD ${rule}\n`).join("");
  const lifts = (rules: string, more = "") =>
    planRestore(saved(rules, more), wantedFirewall(WITH_DOCKER, [])).includes(
      "-I FORWARD 1 -i docker0 -o weave -j DROP",
    );
  assert.equal(lifts(ours), false);
  assert.equal(lifts("-A FORWARD -j DOCKER-USER\n" + ours, ":DOCKER-USER - [0:0]\n-A DOCKER-USER -j RETURN\n"), false);
  assert.equal(lifts("-A FORWARD -i docker0 -o docker0 -j ACCEPT\n" + ours), false);
  assert.equal(lifts("-A FORWARD -i docker0 ! -o docker0 -j ACCEPT\n" + ours), true);
  assert.equal(
    lifts("-A FORWARD -j DOCKER-FORWARD\n" + ours, ":DOCKER-FORWARD - [0:0]\n-A DOCKER-FORWARD -i docker0 -j ACCEPT\n"),
    true,
  );
  const loop = ":LOOP - [0:0]\n-A LOOP -j LOOP\n";
  assert.equal(lifts("-A FORWARD -j LOOP\n" + ours, loop), false);
});

Deno.test("wantedNothing() finds our chains and every jump to them, and no rule of others", () => {
  const actual = parseSave(
    "*filter\n:INPUT ACCEPT [0:0]\n:FORWARD ACCEPT [0:0]\n:WEAVE-EXPOSE - [0:0]\n:MINE - [0:0]\n-A INPUT -i docker0 -p udp -m udp --dport 53 -j ACCEPT\n" +
      "-A FORWARD -i weave -o weave -j ACCEPT\n-A FORWARD -i weave -j MINE\n-A MINE -j WEAVE-EXPOSE\n-A MINE -j ACCEPT\nCOMMIT\n",
  );
  assert.equal(
    planRestore(actual, wantedNothing(actual, WITH_DOCKER, [])),
    "*filter\n:WEAVE-EXPOSE - [0:0]\n-D FORWARD -i weave -o weave -j ACCEPT\n-D MINE -j WEAVE-EXPOSE\n-X WEAVE-EXPOSE\nCOMMIT\n",
  );
});

inOwnNamespace(import.meta.url, () => {
  for (const kind of ["nft", "legacy"] as const) {
    Deno.test(`ensureFirewall() puts everything into iptables-${kind}, once, and removeFirewall() takes it away`, async () => {
      await using state = await freshState(kind);
      const { options, exposures, runDir } = state;
      await shell(
        `iptables-${kind} -P FORWARD DROP; iptables-${kind} -N DOCKER; iptables-${kind} -A INPUT -i docker0 -p udp --dport 53 -j ACCEPT
        iptables-${kind} -t nat -A POSTROUTING -s 192.0.2.0/24 -j MASQUERADE`,
      );
      const before = await saved(kind);
      assert.equal(await ensureFirewall({ runDir, options, exposures }), true);
      const after = await saved(kind);
      for (const rule of FORWARD) assert.ok(after.includes(`-A FORWARD ${rule}`), rule);
      for (const rule of INPUT) assert.ok(after.includes(`-A INPUT ${rule}`), rule);
      assert.equal(await ensureFirewall({ runDir, options, exposures }), false);
      assert.equal(await canaryIntact({ runDir, options, exposures }), true);
      assert.equal(await saved(kind), after);
      assert.equal(await saved(kind === "nft" ? "legacy" : "nft"), "");
      await removeFirewall(runDir);
      assert.equal(await saved(kind), before);
      await removeFirewall(runDir);
    });

    Deno.test(`canaryIntact() notices a flushed iptables-${kind} and a missing rule, and ensureFirewall() mends them`, async () => {
      await using state = await freshState(kind);
      await shell(`iptables-${kind} -N DOCKER`);
      await ensureFirewall(state);
      const whole = await saved(kind);
      const injuries = [
        `iptables-${kind} -t mangle -X WEAVE-CANARY`,
        `iptables-${kind} -F`,
        `iptables-${kind} -t nat -F POSTROUTING`,
        `iptables-${kind} -D FORWARD -i weave -o weave -j ACCEPT`,
        `iptables-${kind} -F WEAVE-EXPOSE`,
        `iptables-${kind} -I FORWARD -i docker0 ! -o docker0 -j ACCEPT`,
      ];
      for (const injury of injuries) {
        await shell(injury);
        assert.equal(await canaryIntact(state), false, injury);
        await ensureFirewall(state);
        assert.equal(await canaryIntact(state), true, injury);
      }
      await shell(`iptables-${kind} -D FORWARD -i docker0 ! -o docker0 -j ACCEPT`);
      assert.deepEqual((await saved(kind)).split("\n").sort(), whole.split("\n").sort());
      await removeFirewall(state.runDir);
    });
  }

  Deno.test("ensureFirewall() follows Docker to another variant, another port and another bridge address", async () => {
    await using state = await freshState("nft");
    await ensureFirewall(state);
    assert.match(await saved("nft"), /WEAVE-EXPOSE/);
    await shell("iptables-legacy -N DOCKER");
    assert.equal(await canaryIntact(state), false);
    await ensureFirewall(state);
    assert.doesNotMatch(await saved("nft"), /WEAVE|weave|docker0|6783/);
    assert.match(await saved("legacy"), /-d 172.17.0.1\/32 -i docker0 -p udp -m udp --dport 6784 -j DROP/);
    const options = { ...WITH_DOCKER, port: 7000, dockerBridgeIp: parseIpv4("172.18.0.1")! };
    await ensureFirewall({ ...state, options });
    const input = await saved("legacy");
    assert.doesNotMatch(input, /172\.17|6783/);
    assert.equal(input.match(/-d 172.18.0.1/g)!.length, 3);
    assert.equal(input.match(/--dport 53/g)!.length, 2);
    // A command that does not know the router's options goes by the record.
    await ensureFirewall({ runDir: state.runDir, exposures: [] });
    assert.match(await saved("legacy"), /--dport 7000/);
    await removeFirewall(state.runDir);
    await shell("iptables-legacy -X DOCKER");
    assert.doesNotMatch(await saved("legacy"), /-A|WEAVE/);
  });

  Deno.test("removeFirewall() without a record takes away what is unmistakably ours", async () => {
    await using state = await freshState("nft");
    await ensureFirewall(state);
    await Deno.remove(`${state.runDir}/firewall.json`);
    await removeFirewall(state.runDir);
    assert.doesNotMatch(await saved("nft"), /WEAVE|weave|Weave/);
  });

  Deno.test("ensureMulticastRules() keeps one ACCEPT per subnet above the DROP, and follows changes", async () => {
    await using _ = await freshState("nft");
    const within = <T>(start: () => T) => start();
    const ensure = (...cidrs: string[]) =>
      ensureMulticastRules({ link: "ethwe", subnets: cidrs.map((c) => parseCidr(c)!), within });
    const input = async () => (await saved("nft")).split("\n").filter((line) => line.startsWith("-A INPUT"));
    await shell("iptables-nft -A INPUT -i lo -j ACCEPT");
    assert.equal(await ensure("10.0.0.1/24"), true);
    assert.equal(await ensure("10.0.0.1/24", "10.0.1.1/24"), true);
    assert.deepEqual(await input(), [
      "-A INPUT -s 10.0.0.0/24 -d 224.0.0.0/4 -i ethwe -j ACCEPT",
      "-A INPUT -s 10.0.1.0/24 -d 224.0.0.0/4 -i ethwe -j ACCEPT",
      "-A INPUT -i lo -j ACCEPT",
      "-A INPUT -d 224.0.0.0/4 -i ethwe -j DROP",
    ]);
    await ensure("10.0.1.1/24");
    assert.deepEqual((await input()).length, 3);
    await ensure();
    assert.deepEqual(await input(), ["-A INPUT -i lo -j ACCEPT"]);
    await shell("iptables-nft -F");
  });
});

const WITH_DOCKER: FirewallOptions = { ...DEFAULT_FIREWALL, dockerBridgeIp: parseIpv4("172.17.0.1")! };

/** Those of Weave Net 2.8, as `iptables -S` prints it. */
const FORWARD = [
  "-i docker0 -o weave -j DROP",
  "-i weave -o weave -j ACCEPT",
  "-o weave -j WEAVE-EXPOSE",
  "-i weave ! -o weave -j ACCEPT",
  "-o weave -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
];
const INPUT = [
  "-d 172.17.0.1/32 -i docker0 -p tcp -m tcp --dport 6783 -j DROP",
  "-d 172.17.0.1/32 -i docker0 -p udp -m udp --dport 6783 -j DROP",
  "-d 172.17.0.1/32 -i docker0 -p udp -m udp --dport 6784 -j DROP",
  "-i docker0 -p udp -m udp --dport 53 -j ACCEPT",
  "-i docker0 -p tcp -m tcp --dport 53 -j ACCEPT",
  "-d 127.0.0.1/32 -p tcp -m tcp --dport 6784 -m addrtype ! --src-type LOCAL -m conntrack ! --ctstate RELATED,ESTABLISHED " +
  '-m comment --comment "Block non-local access to Weave Net control port" -j DROP',
];

function exposure(cidr: string, masquerade = true): Exposure {
  return { cidr: parseCidr(cidr)!, masquerade };
}

async function freshState(kind: "nft" | "legacy") {
  await shell(
    ["nft", "legacy"].flatMap((v) =>
      ["filter", "nat", "mangle"].flatMap((t) => [`iptables-${v} -t ${t} -F`, `iptables-${v} -t ${t} -X`])
    ).join("; "),
  );
  await shell(`iptables-nft -P FORWARD ACCEPT; iptables-legacy -P FORWARD ACCEPT; iptables-${kind} -w -S >/dev/null`);
  const runDir = await Deno.makeTempDir();
  return {
    runDir,
    options: WITH_DOCKER,
    exposures: [exposure("10.0.0.100/24"), exposure("10.0.1.100/24", false)],
    [Symbol.asyncDispose]: () => Deno.remove(runDir, { recursive: true }),
  };
}

/** Rules and chains of ours or others, without counters and the chains that are always there. */
async function saved(kind: string): Promise<string> {
  const { stdout } = await run(findProgram(`iptables-${kind}-save`)!, []);
  return stdout.split("\n").filter((line) => /^-A|^:[^ ]+ (-|DROP)/.test(line)).join("\n");
}

async function shell(script: string): Promise<void> {
  const { code, stderr } = await run("/bin/sh", ["-ec", script]);
  assert.equal(code, 0, stderr);
}
