/** How a router starts, fails to start, is looked after and ends, as seen from its host. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { report, routerPid } from "./mesh.ts";
import { measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("weave launch says why a router cannot start, and leaves no process behind", async (t) => {
  const failing: { name: string; before: string; args?: string[]; says: RegExp }[] = [
    {
      name: "port in use",
      before: "nc -l -k 6783 >/dev/null 2>&1 & sleep 0.3",
      says: /^weave died while it was starting: .*6783/,
    },
    {
      name: "UDP port in use",
      before: "nc -l -u 6783 >/dev/null 2>&1 & sleep 0.3",
      says: /^weave died while it was starting: bind: EADDRINUSE \(Address already in use\), address ".*:6783"/,
    },
    {
      name: "API port in use, by one who says nothing",
      before: "nc -l -k 127.0.0.1 6784 >/dev/null 2>&1 & sleep 0.3",
      says: /^weave died while it was starting: .*127\.0\.0\.1:6784 for the control API: EADDRINUSE /,
    },
    {
      name: "status port in use",
      before: "nc -l -k 127.0.0.1 6782 >/dev/null 2>&1 & sleep 0.3",
      says: /^weave died while it was starting: .*127\.0\.0\.1:6782 for status: EADDRINUSE /,
    },
    {
      name: "state of a newer version",
      before: `echo '{"version":"99.0","data":[]}' > /var/lib/weave/weave-targets.json`,
      args: ["--resume"],
      says: /^weave died while it was starting: .*weave-targets\.json.* 99\.0/,
    },
  ];
  for (const { name, before, args = [], says } of failing) {
    await t.step(name, async () => {
      await using lab = new Lab({ errorsExpected: true });
      const host = await lab.host("a");
      await host.sh(before);
      const processes = await processesOf(host);
      const state = await host.sh("cat /var/lib/weave/* 2>/dev/null || true");
      const result = await host.attemptWeave("launch", ...args);
      assert.match(result.stderr, says);
      assert.match(result.stderr, /\nConsult 'weave logs' for further details\.\n$/);
      assert.equal(result.stdout, "");
      assert.equal(result.code, 1);
      assert.deepEqual(await processesOf(host), processes);
      assert.equal(await host.sh("cat /var/lib/weave/*-targets.json 2>/dev/null || true"), state);
    });
  }
});

testAsRoot("weave launch names what the machine lacks before anything is made", async (t) => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const before = await everything(host);
  const without = async (what: string, script: string, says: RegExp) => {
    await t.step(what, async () => {
      const command = [...host.weaveCommand(), "launch"].join(" ");
      const result = await host.attempt(["unshare", "-m", "sh", "-c", `${script}; exec ${command}`]);
      assert.match(result.stderr, says);
      assert.equal(result.code, 1);
      assert.equal(await everything(host), before);
    });
  };
  await without(
    "no /dev/net/tun",
    "mount -t tmpfs tmpfs /dev/net",
    /^Cannot do without \/dev\/net\/tun: open: ENOENT \(No such file or directory\)/,
  );
  await without(
    "no iptables",
    "mkdir -p /run/.none; for p in /usr/local/sbin /usr/sbin /sbin; do [ -L $p ] || mount --bind /run/.none $p 2>/dev/null; done",
    /^Cannot do without iptables: stat: ENOENT/,
  );
  await t.step("no CAP_NET_ADMIN", async () => {
    const command = ["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", ...host.weaveCommand(), "launch"];
    const result = await host.attempt(command);
    assert.match(result.stderr, /^Cannot do without CAP_NET_ADMIN: netlink: EPERM/);
    assert.equal(result.code, 1);
    assert.equal(await everything(host), before);
  });
});

testAsRoot(
  "a router that dies again and again is not started without a pause, and can be stopped meanwhile",
  async () => {
    await using lab = new Lab();
    const host = await lab.host("a");
    await host.weave("launch");
    let last = 0;
    for (let i = 0; i < 3; i++) {
      const next = async () => {
        const pid = await routerPid(host);
        return pid === last ? undefined : pid;
      };
      last = await waitFor("a router", next, 10_000, [host]);
      await host.sh(`kill -9 ${last}`);
    }
    await waitFor("the pause", async () => (await host.weave("logs")).includes("restart_in_s=2"), 5_000, [host]);
    const stopped = await measure(() => host.weave("stop"));
    assert.ok(stopped < 1_000, `${stopped} ms`);
    assert.deepEqual(await processesOf(host), []);
  },
);

testAsRoot("weave stop ends a router that hangs, and one whose loop is gone", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  await host.sh(`kill -STOP ${await routerPid(host)}`);
  const took = await measure(() => host.weave("stop"));
  assert.ok(took > 9_000 && took < 13_000, `${took} ms`);
  assert.deepEqual(await processesOf(host), []);

  await host.weave("launch");
  await host.sh(`kill -9 $(cut -d' ' -f4 /proc/${await routerPid(host)}/stat)`);
  assert.equal((await host.attemptWeave("launch")).code, 3);
  await host.weave("stop");
  assert.deepEqual(await processesOf(host), []);
});

testAsRoot(
  "a second router on one host is refused, also one that shares neither state nor ports with the first",
  async () => {
    await using lab = new Lab({ errorsExpected: true });
    const host = await lab.host("a");
    await host.weave("launch");
    const elsewhere = ["--port", "7783", "--http-addr", "127.0.0.1:7784", "--status-addr", ""];
    for (const flags of [elsewhere, ["--foreground"]]) {
      const again = await host.attemptWeave("launch", ...flags);
      assert.equal(again.stderr, "weave is already running; you can stop it with 'weave stop'.\n");
      assert.equal(again.code, 3);
    }
    const picture = () => host.sh("ip -o link; iptables-save | grep '^-A'");
    const before = await picture();
    const apart = async (...flags: string[]) => {
      const script = 'mount -t tmpfs tmpfs /run; mount -t tmpfs tmpfs /var/lib/weave; exec "$@"';
      return await host.attempt([
        "unshare",
        "-m",
        "sh",
        "-c",
        script,
        "sh",
        ...host.weaveCommand(),
        "launch",
        ...flags,
      ]);
    };
    for (
      const [flags, says] of [
        [[], /^Weave Net is already running$/m],
        [elsewhere.slice(2), /EADDRINUSE \(Address already in use\), address ".*:6783"/],
        [elsewhere, /Another weave router runs on this host: .*EBUSY .*"vethwe-bridge"/],
      ] as const
    ) {
      const refused = await apart(...flags);
      assert.match(refused.stderr, says);
      assert.equal(refused.code, 1);
    }
    assert.equal(await picture(), before);
    assert.match(await host.weave("status"), /Service: router/);
  },
);

testAsRoot("a router says on SIGQUIT how it is, and goes on at SIGHUP", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const name = await host.weave("launch");
  const pid = await routerPid(host);
  await host.sh(`kill -HUP ${pid}; kill -QUIT ${pid}`);
  const state = new RegExp(`^INFO: \\S+ \\S+ state value=.*${name}`, "m");
  await waitFor("its state in the log", async () => state.test(await host.weave("logs")), 5_000, [host]);
  assert.equal(await routerPid(host), pid);
});

testAsRoot("two launches at once start one router", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const results = await Promise.all([1, 2, 3].map(() => host.attemptWeave("launch")));
  assert.deepEqual(results.map(({ code }) => code).sort(), [0, 3, 3]);
  assert.equal((await processesOf(host)).filter((line) => line.startsWith("weave")).length, 1);
});

testAsRoot("a launched router holds nothing of whoever launched it", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const command = [...host.weaveCommand(), "launch"].join(" ");
  await host.exec(["bash", "-c", `cd /run; exec 5>/run/.five 200>/run/.lock; flock 200; ${command}`]);
  await host.exec(["flock", "-n", "/run/.lock", "true"]);
  const pid = await routerPid(host);
  assert.equal(await host.sh(`ls -l /proc/${pid}/fd | grep -c /run/. || true`), "0");
  assert.equal(await host.sh(`readlink /proc/${pid}/cwd`), "/");
});

testAsRoot("the control API may be a socket in the file system, and later commands find it by themselves", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const name = await host.weave(
    "launch",
    "--http-addr",
    "/run/api.sock",
    "--status-addr",
    "",
    "--db-prefix",
    "/var/lib/other/w",
  );
  assert.equal((await report(host)).Router.Name, name);
  assert.equal(await host.sh("ss -Htln sport = :6784 or sport = :6782"), "");
  assert.match(await host.sh("ls /var/lib/other"), /^w-running$/m);
  await host.weave("stop");
  assert.doesNotMatch(await host.sh("ls /var/lib/other"), /running/);
});

testAsRoot("weave launch --foreground tells the service manager when it is ready and when it stops", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await using manager = host.spawn(["nc", "-l", "-k", "-u", "-U", "/run/notify"]);
  await waitFor("the service manager", () => host.sh("ls /run/notify"), 5_000);
  const command = [...host.weaveCommand(), "launch", "--foreground"];
  await using router = host.spawn(command, { env: { NOTIFY_SOCKET: "/run/notify" } });
  await waitFor("READY=1", () => manager.stdout.includes("READY=1"), 10_000, [host]);
  assert.equal((await host.attemptWeave("status")).code, 0, "it is ready when it says so");
  router.signal("SIGTERM");
  assert.equal((await router.finished(10_000)).code, 0);
  assert.equal(manager.stdout, "READY=1STOPPING=1");
  assert.equal(await host.sh("ls /run/weave | grep -c 'router\\|supervisor' || true"), "0");
});

testAsRoot("weave launch in the place of another version keeps all that is not said anew", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  const pretendOlder = () =>
    host.sh(`sed -i 's/"version":"[0-9.]*","peers/"version":"0.0.1","peers/' /run/weave/*.json`);
  await host.weave("launch", "--password", "x", "--nickname", "keeper", "--no-restart", "192.168.1.77");
  await pretendOlder();
  const before = await routerPid(host);
  await host.weave("launch", "--nickname", "new");
  assert.notEqual(await routerPid(host), before);
  const status = await host.weave("status");
  assert.match(status, /Encryption: enabled/);
  assert.match(status, /\(new\)/);
  assert.equal(await host.weave("status", "targets"), "192.168.1.77");
  await pretendOlder();
  await host.weave("launch", "192.168.1.78");
  assert.equal(await host.weave("status", "targets"), "192.168.1.78", "peers that are named replace the others");
  assert.match(await host.weave("status"), /\(new\)/);
  const supervised = await host.sh("ps -eo args --no-headers | grep -c '[W]EAVE_SCRIPT' || true");
  assert.equal(supervised, "0", "nobody starts it again, as nobody did before");
});

testAsRoot("weave launch keeps a password out of files and command lines, and a restarted router has it", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch", "--password", "wfvAwt7sj");
  const pid = await routerPid(host);
  await host.sh(`kill -9 ${pid}`);
  await waitFor("the router to be back", async () => await routerPid(host) !== pid, 10_000, [host]);
  await waitFor("its API", async () => (await host.attemptWeave("status")).code === 0, 5_000, [host]);
  assert.match(await host.weave("status"), /Encryption: enabled/);
  assert.equal(
    await host.sh("grep -rl wfvAwt[7]sj /run/weave /var/lib/weave /var/log /proc/[0-9]*/cmdline || true"),
    "",
  );
});

/** What runs there, but the host's own. */
async function processesOf(host: EmulatedHost): Promise<string[]> {
  const list = await host.sh(
    "ps -eo comm,args --no-headers | grep -vE '^(ps|grep|cat|sh +(sh|/bin/sh) -e?c? ?-?)' || true",
  );
  const loops = await host.sh("ps -eo args --no-headers | grep '[W]EAVE_SCRIPT' || true");
  return [list, loops].flatMap((text) => text.split("\n")).filter((line) => line !== "");
}

/** Links, rules, processes and files. */
async function everything(host: EmulatedHost): Promise<string> {
  return await host.sh(
    // The list of processes is taken whole before it is sorted: what sorts it would be in it, or not.
    "ip -o link | cut -d: -f2; iptables-save | sed '/^#/d'; p=$(ps -eo comm --no-headers); echo \"$p\" | sort; find /run /var/lib/weave /var/log | grep -v '^/run/\\.'",
  );
}
