import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

const RANGE = ["--ipalloc-range", "10.40.0.0/24"];
/** How long the addresses of a container that died are kept for it, with the time between two looks. */
const LINGER_MS = 30_000, LOOK_MS = 5_000;

testAsRoot("containers of Docker get addresses by themselves, on two hosts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch", ...RANGE);
  await host2.weave("launch", ...RANGE, host1.address());
  await waitEstablished(host1, [host2]);
  const one = await host1.weave("run", "--name", "one", "-ti", IMAGE, "sh");
  await host2.weave("run", "net:10.40.0.0/25", "net:10.40.0.128/25", "--name", "two", "-ti", IMAGE, "sh");
  const addresses = (await engine2.docker("exec", "two", "ip", "-4", "address", "show", "ethwe"))
    .match(/10\.40\.0\.\d+(?=\/25)/g);
  assert.equal(addresses?.length, 2);
  for (const address of addresses) assert.ok(await engine1.succeeds("one", "ping", "-c", "1", "-W", "5", address));
  assert.ok(await engine1.succeeds("one", "ping", "-c", "1", "-W", "5", "two"));
  assert.deepEqual(Object.keys(await held(host1)), [one]);

  // A container that died while nobody looked has no addresses, one that runs keeps them.
  const kept = await held(host2);
  const dead = await host2.weave("run", "--name", "three", "-ti", IMAGE, "sh");
  assert.ok((await held(host2))[dead]);
  await host2.weave("stop");
  await engine2.docker("kill", "three");
  await host2.weave("launch", ...RANGE, host1.address());
  assert.deepEqual(await held(host2), kept);

  // Neither when all was lost but what runs.
  await host2.weave("stop");
  await host2.sh("rm -f /var/lib/weave/weave-ipam.json");
  await host2.weave("launch", ...RANGE, host1.address());
  await waitFor("what runs", async () => Object.keys(await held(host2)).length === 1, 10_000, lab.hosts);
  assert.deepEqual(await held(host2), kept);
});

testAsRoot(
  "addresses of a container of Docker are kept for a while when it dies, and free at once when it is removed",
  async () => {
    await using lab = new Lab({ env: await dockerEnvironment() });
    const host = await lab.host("host1");
    await using engine = await DockerEngine.start(host);
    await host.weave("launch", ...RANGE);
    const [one, two, three] = await Promise.all(
      ["one", "two", "three"].map((name) => host.weave("run", "--name", name, "-ti", IMAGE, "sh")),
    );
    const before = await held(host);
    assert.equal(Object.keys(before).length, 3);
    await engine.docker("kill", "one");
    await engine.docker("kill", "two");
    await engine.docker("rm", "-f", "three");
    const diedAt = performance.now();
    await waitFor("the removed one's address to be free", async () => !(three! in await held(host)), 3_000, [host]);
    // Comes back with the same address, which stays its own.
    await engine.docker("start", "one");
    assert.equal(await host.weave("attach", "one"), before[one!]![0]!.replace(/\/.*/, ""));
    await delay(LINGER_MS - 5_000 - (performance.now() - diedAt));
    assert.deepEqual((await held(host))[two!], before[two!]);
    await waitFor("the dead one's address to be free", async () => !(two! in await held(host)), LOOK_MS + 10_000, [
      host,
    ]);
    assert.deepEqual(await held(host), { [one!]: before[one!] });
  },
);

testAsRoot("a container of Docker that dies while it waits for an address gets none", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE, "--ipalloc-init", "consensus=3");
  const id = await engine.docker("run", "-d", "--name", "one", IMAGE, "sleep", "1000");
  const waiting = host.attemptWeave("attach", "one");
  await waitFor("it to wait", async () => (await host.weave("status")).includes("awaiting consensus"), 5_000, [host]);
  await delay(500);
  await engine.docker("kill", "one");
  const { code, stderr } = await waiting;
  assert.notEqual(code, 0);
  assert.match(stderr, /^Container \S+ died$/m);
  // Nor does one that died before somebody asked.
  const asked = await host.sh(
    `curl -s -m 5 -w ' %{http_code}' -X POST 'http://127.0.0.1:6784/ip/${id}?check-alive=true'`,
  );
  assert.equal(asked, "cancelled 200");
  // The router that is started anew by itself knows nothing of it either.
  const pid = await routerPid(host);
  await host.sh(`kill -9 ${pid}`);
  await waitFor("the router to be back", async () => await routerPid(host) !== pid, 10_000);
  assert.deepEqual(await held(host), {});
});

/** Who holds what, as the API says. */
async function held(host: EmulatedHost): Promise<Record<string, string[]>> {
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return Object.fromEntries(
    (owned ?? []).map((o: { containerid: string; addrs: string[] }) => [o.containerid, o.addrs]),
  );
}
