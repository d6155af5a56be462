import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

const RANGE = ["--ipalloc-range", "10.40.0.0/24"];
/** How long the addresses of a container that died are kept for it, with the time between two looks. */
const LINGER_MS = 30_000, LOOK_MS = 5_000;

testAsRoot("what happens to containers while the router is away is made good when it starts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  const proxy = await host.weave("config");
  const ids: Record<string, string> = {};
  for (const name of ["restarted", "removed", "killed", "stays"]) {
    ids[name] = await engine.docker(
      ...[proxy, "run", "-d", "--restart", name === "restarted" ? "always" : "no", "--name", name, IMAGE],
      ...["sleep", "10000"],
    );
  }
  await engine.docker("run", "-d", "--net=weave", "--name", "networked", IMAGE, "sleep", "10000");
  await engine.docker(proxy, "create", "--name", "later", IMAGE, "sleep", "10000");
  const before = await held(host);
  const networked = await host.weave("ps", "networked");
  for (const kill of [false, true]) {
    const router = await routerPid(host);
    if (kill) await host.sh(`kill -9 $(cut -d' ' -f4 /proc/${router}/stat) ${router}`);
    else await host.weave("stop");
    const pid = await engine.docker("inspect", "-f", "{{.State.Pid}}", "restarted");
    await host.sh(`kill -9 ${pid}`);
    if (!kill) {
      await engine.docker("rm", "-f", "removed");
      await engine.docker("kill", "killed");
      await engine.docker("start", "later");
    }
    await waitFor(
      "its second process",
      async () => !["0", pid].includes(await engine.docker("inspect", "-f", "{{.State.Pid}}", "restarted")),
      10_000,
    );
    await host.weave("launch", ...RANGE);
    await waitFor(
      "all that run to be attached",
      async () => (await host.weave("ps")).split("\n").length === 5,
      10_000,
      [
        host,
      ],
    );
    const now = await held(host);
    assert.deepEqual(now[ids["restarted"]!], before[ids["restarted"]!], "it has the address that it had");
    assert.deepEqual(now[ids["stays"]!], before[ids["stays"]!]);
    for (const name of ["removed", "killed"]) {
      assert.equal(now[ids[name]!], undefined, name);
      await waitFor("its name to go", async () => await host.weave("dns-lookup", name) === "", 5_000, [host]);
    }
    for (const name of ["restarted", "stays", "networked", "later"]) {
      const address = addressIn(await host.weave("ps", name));
      await waitFor(`the name ${name}`, async () => await host.weave("dns-lookup", name) === address, 5_000, [host]);
    }
    assert.equal(await host.weave("ps", "networked"), networked);
  }
});

testAsRoot("containers keep addresses and names when Docker restarts, however it ends", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine = await DockerEngine.start(host1);
  await host1.weave("launch", ...RANGE);
  await host2.weave("launch", ...RANGE, host1.address());
  await waitEstablished(host1, [host2]);
  const far = await host2.container("far");
  await host2.weave("attach", far.reference);
  const proxy = await host1.weave("config");
  const names = ["one", "two", "three"];
  const mortal = await engine.docker(proxy, "run", "-d", "--name", "mortal", IMAGE, "sleep", "10000");
  for (const name of names) {
    await engine.docker(proxy, "run", "-d", "--restart=always", "--name", name, IMAGE, "sleep", "10000");
  }
  await host1.weave("run", "10.9.0.1/24", "--restart=always", "--name", "run", IMAGE, "sleep", "10000");
  const addresses = async () => await Promise.all([...names, "run"].map((name) => host1.weave("ps", name)));
  const before = (await addresses()).map(addressIn);
  const pid = await routerPid(host1);
  for (const signal of ["SIGTERM", "SIGKILL"] as const) {
    await engine.stop(signal);
    const stoppedAt = performance.now();
    await engine.startAgain();
    await waitFor(
      "the same addresses",
      async () => `${(await addresses()).map((line) => /\/\d+$/.test(line) ? addressIn(line) : "")}` === `${before}`,
      20_000,
      [host1],
    );
    for (const [i, name] of names.entries()) {
      await waitFor(name, async () => await host2.weave("dns-lookup", name) === before[i], 10_000, lab.hosts);
      await waitFor(`ping of ${name}`, () => far.pings(before[i]!), 5_000, lab.hosts);
    }
    assert.equal(await host1.weave("dns-lookup", "mortal"), "", "it was not started again");
    if (signal === "SIGTERM") {
      await delay(LINGER_MS + LOOK_MS - (performance.now() - stoppedAt));
      await waitFor("its address to be free", async () => !(mortal in await held(host1)), 10_000, [host1]);
      const other = await engine.docker(proxy, "run", "-d", "--name", "other", IMAGE, "sleep", "10000");
      assert.ok(!before.includes(addressIn(await host1.weave("ps", other))), "none is given out twice");
    }
  }
  assert.equal(await routerPid(host1), pid, "the router does not mind");
});

testAsRoot("what Docker could not start while no router was there is started when one is", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  const policies = { always: "always", stopped: "unless-stopped", mortal: "no" };
  for (const [name, policy] of Object.entries(policies)) {
    const options = ["-d", "--net=weave", "--restart", policy, "--name", name];
    await engine.docker("run", ...options, IMAGE, "sleep", "10000");
  }
  await engine.docker("stop", "-t", "0", "stopped");
  await host.weave("stop");
  await engine.stop("SIGTERM");
  await engine.startAgain(90_000);
  const state = (name: string) => engine.docker("inspect", "-f", "{{.State.Status}} {{.State.Error}}", name);
  assert.equal(await state("always"), 'exited plugin "weavemesh" not found');
  await host.weave("launch", ...RANGE);
  await waitFor("its start", async () => await state("always") === "running", 20_000, [host]);
  const address = addressIn(await host.weave("ps", "always"));
  await waitFor("its name", async () => await host.weave("dns-lookup", "always") === address, 10_000, [host]);
  for (const name of ["stopped", "mortal"]) assert.match(await state(name), /^exited/, name);
});

testAsRoot("a router that was there before Docker serves it once it comes", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await host.weave("launch", ...RANGE);
  const proxy = await host.weave("config");
  assert.equal((await host.attempt(["docker", proxy, "ps"], { env: await dockerEnvironment() })).code, 1);
  await delay(3_000);
  await using engine = await DockerEngine.start(host);
  await waitFor("its network", async () => (await engine.docker("network", "ls")).includes(" weave "), 10_000, [host]);
  await waitFor("its DNS", async () => (await host.weave("dns-args")).startsWith("--dns=172.17.0.1 "), 10_000, [host]);
  await engine.docker(proxy, "run", "-d", "--name", "one", IMAGE, "sleep", "10000");
  await engine.docker("run", "-d", "--net=weave", "--name", "two", IMAGE, "sleep", "10000");
  const two = addressIn(await host.weave("ps", "two"));
  assert.ok(await engine.succeeds("one", "ping", "-c", "1", "-W", "2", "two"));
  // Docker's own rules come after ours then, and before them in the chain: those outside stay outside.
  const outside = await engine.docker("run", "-d", IMAGE, "sleep", "10000");
  await waitFor(
    "containers outside to be kept out",
    async () => !await engine.succeeds(outside, "ping", "-c", "1", "-W", "1", two),
    15_000,
    [host],
  );
  await host.weave("expose");
  assert.ok(!await engine.succeeds(outside, "ping", "-c", "1", "-W", "1", two));
});

function addressIn(line: string): string {
  return / ([\d.]+)\/\d+$/.exec(line)?.[1] ?? assert.fail(`no address in "${line}"`);
}

/** Who holds what, as the API says. */
async function held(host: EmulatedHost): Promise<Record<string, string[]>> {
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return Object.fromEntries(
    (owned ?? []).map((o: { containerid: string; addrs: string[] }) => [o.containerid, o.addrs]),
  );
}
