import assert from "node:assert/strict";
import { CAPABILITIES } from "../../src/daemon/systemd.ts";
import { Lab } from "./lab.ts";
import type { EmulatedHost } from "./host.ts";
import { attachNew, routerPid, waitEstablished } from "./mesh.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

const UNIT = "/etc/systemd/system/weave.service";

/** Writes down what it is told, as far as it is not asked to do it. */
const FAKE_SYSTEMCTL = `#!/bin/sh
echo "$*" >> /run/systemctl.log
[ ! -e /run/systemctl.fails ] || { echo "Unit is bad." >&2; exit 1; }
`;

testAsRoot("weave setup systemd writes a unit, has it started, and takes it away again", async () => {
  await using lab = new Lab({ env: { PATH: `/run/bin:${Deno.env.get("PATH")}` } });
  const host = await lab.host("a");
  const refused = await host.attemptWeave("setup", "systemd");
  assert.match(refused.stderr, /^Cannot set a unit up: .*'weave launch' starts the router without it$/m);
  assert.equal(refused.code, 1);
  await fakeSystemd(host);

  const before = await host.sh("cat /etc/default/weave 2>/dev/null || true");
  const words = ["--nickname", "50% $a b", "--ipalloc-range=10.40.0.0/16", "host2", "192.0.2.7"];
  await host.sh(`${setupLine(host)} "$@"`.replace('"$@"', words.map(quote).join(" ")), {
    env: { PATH: `/run/bin:${Deno.env.get("PATH")}`, WEAVE_PASSWORD: 'wf"Av$t' },
  });
  const unit = await host.sh(`cat ${UNIT}`);
  const line = /^ExecStart=(.*)$/m.exec(unit)![1]!;
  assert.ok(
    line.endsWith(' launch --foreground "--nickname=50%% $$a b" --ipalloc-range=10.40.0.0/16 host2 192.0.2.7'),
    line,
  );
  assert.doesNotMatch(unit, /wf"Av/, "the password is for root alone");
  assert.equal(await host.sh("cat /etc/default/weave"), 'WEAVE_PASSWORD="wf\\"Av\\$t"');
  assert.equal(await host.sh("stat -c %a /etc/default/weave"), "600");
  assert.equal(before, "");
  assert.equal(
    await host.sh("cat /run/systemctl.log"),
    "daemon-reload\nenable weave.service\nrestart weave.service",
  );
  await host.weave("setup", "systemd", "host3");
  assert.match(await host.sh(`cat ${UNIT}`), / launch --foreground host3$/m);
  assert.equal(await host.sh("cat /etc/default/weave"), 'WEAVE_PASSWORD="wf\\"Av\\$t"', "not named, so not changed");

  for (
    const [args, says] of [
      [["--no-such-flag"], /^Unknown flag --no-such-flag/],
      [["--port", "0"], /^Cannot use "0" as port/],
      [["--resume", "host2"], /^You must not specify an initial peer list/],
      [["--container"], /^--container is not for a router that systemd runs/],
      [["--remove", "x"], /^--remove takes nothing else/],
    ] as const
  ) {
    const wrong = await host.attemptWeave("setup", "systemd", ...args);
    assert.match(wrong.stderr, says);
    assert.notEqual(wrong.code, 0);
  }
  assert.match(await host.sh(`cat ${UNIT}`), / launch --foreground host3$/m);

  await host.sh("touch /run/systemctl.fails");
  const failed = await host.attemptWeave("setup", "systemd");
  assert.equal(failed.stderr, "Cannot run systemctl daemon-reload: Unit is bad.\n");
  await host.sh("rm /run/systemctl.fails /run/systemctl.log");

  for (const said of ["disable --now weave.service\ndaemon-reload", "daemon-reload"]) {
    await host.weave("setup", "systemd", "--remove");
    assert.equal(await host.sh("cat /run/systemctl.log; rm /run/systemctl.log"), said);
    assert.equal(await host.sh(`ls ${UNIT} /etc/default/weave 2>/dev/null || true`), "");
  }

  await host.weave("launch");
  const running = await host.attemptWeave("setup", "systemd");
  assert.match(running.stderr, /^weave is already running; stop it with 'weave stop'/);
  assert.equal(running.code, 3);
});

testAsRoot("a router can do all its work with what the unit leaves it, and says that it lives", async () => {
  await using lab = new Lab();
  const [a, b] = [await lab.host("a"), await lab.host("b")];
  await lab.link(a, b);
  await using manager = a.spawn(["nc", "-l", "-k", "-u", "-U", "/run/notify"]);
  await waitFor("the service manager", () => a.sh("ls /run/notify"), 5_000);
  const set = `-all,${CAPABILITIES.map((name) => name.toLowerCase().replace("cap_", "+")).join(",")}`;
  const limits = ["setpriv", `--bounding-set=${set}`, "--inh-caps=-all", "--no-new-privs"];
  // As systemd starts a service: with hardly a variable.
  const env = ["env", "-i", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
  const told = ["NOTIFY_SOCKET=/run/notify", "WATCHDOG_USEC=400000"];
  const command = [...a.weaveCommand(), "launch", "--foreground", "--ipalloc-range", "10.40.0.0/16"];
  await using router = a.spawn([...limits, ...env, ...told, ...command]);
  await waitFor("READY=1", () => manager.stdout.startsWith("READY=1"), 10_000, [a]);
  await b.weave("launch", "--ipalloc-range", "10.40.0.0/16", a.address());
  await waitEstablished(b, [a]);
  const pid = await routerPid(a);
  assert.match(
    await a.sh(`cat /proc/${pid}/status`),
    new RegExp(`^CapEff:\\s+${maskOf(CAPABILITIES)}$`, "m"),
  );
  const one = await attachNew(a, "one");
  const two = await attachNew(b, "two");
  const address = /inet ([\d.]+)/.exec(await two.sh("ip -4 -o address show ethwe"))![1]!;
  await waitFor("ping", () => one.pings(address), 10_000, lab.hosts);
  await a.weave("expose");
  await a.sh("iptables -F WEAVE-EXPOSE; iptables -t mangle -F WEAVE-CANARY; iptables -t mangle -X WEAVE-CANARY");
  await waitFor(
    "its rules to be put back",
    async () => (await a.sh("iptables-save")).includes("-A WEAVE-EXPOSE -d"),
    15_000,
    [a],
  );

  const count = manager.stdout.length;
  await waitFor("WATCHDOG=1", () => manager.stdout.slice(count).includes("WATCHDOG=1WATCHDOG=1"), 3_000);
  await a.sh(`kill -STOP ${pid}`);
  await new Promise((resolve) => setTimeout(resolve, 300));
  const stopped = manager.stdout.length;
  await new Promise((resolve) => setTimeout(resolve, 1_000));
  assert.equal(manager.stdout.length, stopped, "one that hangs says nothing");
  await a.sh(`kill -CONT ${pid}`);
  Deno.kill(router.pid, "SIGCONT"); // nsenter stops with it, and does not go on with it
  router.signal("SIGTERM");
  assert.equal((await router.finished(10_000)).code, 0);
  assert.match(manager.stdout, /^READY=1(WATCHDOG=1)+STOPPING=1(WATCHDOG=1)*$/);
});

async function fakeSystemd(host: EmulatedHost): Promise<void> {
  await host.sh("mkdir -p /run/systemd/system /run/bin");
  await host.exec(["sh", "-c", "cat > /run/bin/systemctl; chmod 755 /run/bin/systemctl"], { input: FAKE_SYSTEMCTL });
}

function setupLine(host: EmulatedHost): string {
  return [...host.weaveCommand(), "setup", "systemd"].join(" ");
}

function quote(word: string): string {
  return `'${word}'`;
}

const NUMBERS: Readonly<Record<string, number>> = {
  CAP_CHOWN: 0,
  CAP_DAC_OVERRIDE: 1,
  CAP_FOWNER: 3,
  CAP_KILL: 5,
  CAP_NET_BIND_SERVICE: 10,
  CAP_NET_ADMIN: 12,
  CAP_NET_RAW: 13,
  CAP_SYS_PTRACE: 19,
  CAP_SYS_ADMIN: 21,
};

/** As /proc/PID/status has it: capabilities(7). */
function maskOf(capabilities: readonly string[]): string {
  return capabilities.reduce((mask, name) => mask | 1n << BigInt(NUMBERS[name]!), 0n).toString(16).padStart(16, "0");
}
