import assert from "node:assert/strict";
import { waitName } from "../netns/dns.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

const LONG = Deno.env.get("WEAVE_SOAK_SECONDS") !== undefined;

testAsRoot("weave launch --container runs the router under Docker, which starts it again", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine = await DockerEngine.start(host1);
  await host2.weave("launch");
  const before = await rules(host1);

  const id = await host1.weave("launch", "--container", host2.address());
  assert.match(id, /^[0-9a-f]{64}$/, "the id and nothing else");
  await waitEstablished(host1, [host2]);
  assert.equal(await engine.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}"), `${id} weave`);
  assert.equal(await inspect(engine, "weave", "{{.HostConfig.RestartPolicy.Name}}"), "always");
  assert.match(await host1.sh("docker logs weave 2>&1", { env: engine.env }), /INFO: \S+ \S+ ready /);
  assert.match(await host1.weave("logs"), /INFO: \S+ \S+ ready /);
  const again = await host1.attemptWeave("launch", "--container");
  assert.match(again.stderr, /^weave is already running; you can stop it with 'weave stop'\.$/m);
  assert.equal(again.code, 3);

  // It does all that a router does: bridge, rules, containers, names.
  const one = await host1.weave("run", "10.0.0.1/24", "--name", "one", "-ti", IMAGE, "sh");
  const two = await host2.container("two");
  await host2.weave("attach", "10.0.0.2/24", two.reference);
  await waitFor("ping", () => two.pings("10.0.0.1"), 10_000, lab.hosts);
  await waitName(host1, "172.17.0.1", "one.weave.local", ["10.0.0.1"]);
  assert.equal(await host1.weave("expose", "10.0.0.100/24"), "10.0.0.100");
  assert.match(await host1.sh("iptables-save"), /^-A WEAVE-EXPOSE -d 10\.0\.0\.0\/24 /m);
  await host1.sh("iptables -t mangle -F WEAVE-CANARY; iptables -t mangle -X WEAVE-CANARY; iptables -F WEAVE-EXPOSE");
  await waitFor(
    "its rules to be put back",
    async () => (await host1.sh("iptables-save")).includes("-A WEAVE-EXPOSE -d 10.0.0.0/24"),
    15_000,
    [host1],
  );

  // Killed, and restarted by hand.
  for (
    const end of [
      async () => void await host1.sh(`kill -9 ${await routerPid(host1)}`),
      () => engine.docker("restart", "weave"),
    ]
  ) {
    const pid = await routerPid(host1);
    await end();
    await waitFor("another router", async () => await routerPid(host1) !== pid, 20_000);
    await waitEstablished(host1, [host2], 20_000);
    assert.equal(await host1.weave("status", "targets"), host2.address());
    await waitName(host1, "172.17.0.1", "one.weave.local", ["10.0.0.1"], 10_000, [host1]);
  }
  assert.equal((await host1.weave("ps", "one")).split(" ").at(-1), "10.0.0.1/24");

  // Stopped, launched anew in another way; what it was started with then counts.
  await host1.weave("stop");
  assert.match((await host1.attemptWeave("status")).stderr, /^weave is not running\.$/m);
  assert.equal(await inspect(engine, "weave", "{{.State.Status}}"), "exited");
  assert.match((await host1.attemptWeave("stop")).stderr, /^Weave is not running/);
  const other = await host1.weave("launch", "--container", "--no-restart");
  assert.notEqual(other, id);
  assert.equal(await inspect(engine, "weave", "{{.HostConfig.RestartPolicy.Name}}"), "no");
  assert.equal(await host1.weave("status", "targets"), "");
  await host1.sh(`kill -9 ${await routerPid(host1)}`);
  await waitFor("its end", async () => await inspect(engine, "weave", "{{.State.Status}}") === "exited", 10_000);

  await engine.docker("rm", "-f", one);
  await host1.weave("reset");
  assert.deepEqual(await rules(host1), before);
  assert.equal(await engine.docker("ps", "-aq"), "");
  assert.doesNotMatch(await engine.docker("images"), /^weave /m);
  assert.equal(
    await host1.sh("{ ip -o link | grep weave; ls -Ad /run/weave /var/lib/weave/* 2>/dev/null; } || true"),
    "",
  );
});

testAsRoot("a router in a container comes back with Docker, also with a Docker that was killed", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine = await DockerEngine.start(host1);
  await host2.weave("launch");
  const id = await host1.weave("launch", "--container", "--plugin=false", host2.address());
  await waitEstablished(host1, [host2]);
  await host1.weave("connect", "192.0.2.77");
  // The machine goes down: everything ends, and what lies in /run is lost.
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await engine.stop(signal);
    if (signal === "SIGKILL") await host1.sh(`kill -9 ${await routerPid(host1)}`);
    await host1.sh("rm -rf /run/weave; ip link delete weave");
    await engine.startAgain();
    await waitFor("the router", () => routerPid(host1), 20_000, [host1]);
    await waitEstablished(host1, [host2], 20_000);
    assert.match(await host1.weave("status", "targets"), /192\.0\.2\.77/);
    assert.equal(await inspect(engine, "weave", "{{.Id}}"), id);
  }
});

testAsRoot("a router in a container serves Docker as any other does", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine = await DockerEngine.start(host1);
  await host2.weave("launch");
  const elsewhere = ["--db-prefix", "/var/lib/other/w", "--http-addr", "/run/api.sock", "-H", "/run/mine.sock"];
  await host1.sh(
    `WEAVE_DOCKER_ARGS="--label mine=1 -e MINE=2" ${host1.weaveCommand().join(" ")} launch --container ${
      [...elsewhere, "--password", "wfvAwt7sj"].join(" ")
    }`,
    { env: engine.env },
  );
  assert.equal(await inspect(engine, "weave", "{{.Config.Labels.mine}} {{.HostConfig.Privileged}}"), "1 false");
  assert.match(await inspect(engine, "weave", "{{.Config.Env}}"), /MINE=2/);
  assert.doesNotMatch(await host1.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"), /wfvAwt[7]sj/);
  assert.match(await host1.weave("status"), /Encryption: enabled/);
  assert.equal(await host1.weave("config"), "-H=unix:///run/mine.sock");
  await host1.weave("stop");
  await host1.weave("launch", "--container", host2.address());
  await waitEstablished(host1, [host2]);
  const far = await host2.container("far");
  await host2.weave("attach", far.reference);
  const proxy = await host1.weave("config");
  const look = "cat /etc/hosts; ip -4 address show ethwe; sleep 1000";
  await engine.docker(proxy, "run", "-d", "--name", "p1", "--restart=always", IMAGE, "sh", "-c", look);
  await engine.docker("run", "-d", "--name", "n1", "--net=weave", "--restart=always", IMAGE, "sleep", "1000");
  const ends: (() => Promise<unknown>)[] = [
    () => Promise.resolve(),
    async () =>
      await host1.sh(`kill -9 ${await routerPid(host1)} $(docker inspect -f '{{.State.Pid}}' p1)`, { env: engine.env }),
    async () => {
      await engine.stop("SIGTERM");
      await engine.startAgain(90_000);
    },
  ];
  const addresses = new Map<string, string>();
  // Docker waits long for a driver that it has yet to start.
  for (const [i, end] of ends.slice(0, LONG ? 3 : 2).entries()) {
    await end();
    for (const name of ["p1", "n1"]) {
      await waitFor(
        `an answer of ${name} after end ${i}`,
        async () => {
          const address = await host2.weave("dns-lookup", name);
          if (!await far.pings(address)) throw new Error(`none of ${address}, which was ${addresses.get(name)}`);
          addresses.set(name, address);
          return true;
        },
        45_000,
        lab.hosts,
      );
    }
    await waitFor(
      "its hosts file",
      async () => /^10\.\S+ +p1\.weave\.local/m.test(await engine.docker("logs", "p1")),
      5_000,
    );
  }
  await host1.weave("reset");
  const left = "/run/weave /var/lib/weave/* /run/docker/plugins/weave*";
  assert.equal(await host1.sh(`ls -d ${left} 2>/dev/null || true`), "");
});

testAsRoot("weave launch --container says what is in its way", async () => {
  await using lab = new Lab({ env: await dockerEnvironment(), errorsExpected: true });
  const host = await lab.host("host1");
  const refused = await host.attemptWeave("launch", "--container");
  assert.match(refused.stderr, /Docker/);
  assert.equal(refused.code, 1);
  await using engine = await DockerEngine.start(host);
  await engine.docker("run", "-d", "--name", "weave", IMAGE, "sleep", "1000");
  const taken = await host.attemptWeave("launch", "--container");
  assert.equal(taken.stderr, "Found another running container named 'weave'. Aborting.\n");
  assert.equal(taken.code, 2);
  await engine.docker("kill", "weave");
  assert.match((await host.attemptWeave("launch", "--container")).stderr, /^Found another container named 'weave'/);
  await host.weave("reset");
  assert.equal(await engine.docker("ps", "-aq", "--filter", "name=weave").then((ids) => ids !== ""), true, "not ours");
  await engine.docker("rm", "weave");
  await host.sh("nc -l -k 6783 >/dev/null 2>&1 & sleep 0.3");
  const dead = await host.attemptWeave("launch", "--container");
  assert.match(
    dead.stderr,
    /^weave died while it was starting: .*6783.*\nConsult 'weave logs' for further details\.$/m,
  );
  assert.equal(dead.code, 1);
  assert.equal(await inspect(engine, "weave", "{{.State.Status}} {{.HostConfig.RestartPolicy.Name}}"), "exited no");
});

async function rules(host: EmulatedHost): Promise<string[]> {
  return (await host.sh("iptables-save | grep -E '^(-A|:[A-Z-]+ -)' | sed 's/ \\[.*//'")).split("\n");
}

async function inspect(engine: DockerEngine, container: string, format: string): Promise<string> {
  return await engine.docker("inspect", "-f", format, container);
}
