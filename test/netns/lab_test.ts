import assert from "node:assert/strict";
import { dropFragmentationNeeded, Lab, makeRouter, masquerade } from "./lab.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("Lab.link() joins two hosts, and cut() and heal() part and join them", async () => {
  await using lab = new Lab();
  const [a, b] = [await lab.host("a"), await lab.host("b")];
  const link = await lab.link(a, b);
  assert.equal(a.address(b), "192.168.1.1");
  assert.notEqual(await a.sh("cat /etc/machine-id"), await b.sh("cat /etc/machine-id"));
  assert.equal(await a.sh("hostname"), "a");
  assert.ok(await reaches(a, b.address()));
  await link.cut();
  assert.ok(!await reaches(a, b.address()));
  await link.heal();
  assert.ok(await reaches(a, b.address()));
});

testAsRoot("Lab.switch() joins all its hosts", async () => {
  await using lab = new Lab();
  const hosts = [await lab.host("a"), await lab.host("b"), await lab.host("c")];
  const ports = await lab.switch(hosts);
  assert.ok(await reaches(hosts[0]!, hosts[2]!.address()));
  await ports[2]!.cut();
  assert.ok(!await reaches(hosts[0]!, hosts[2]!.address()));
  assert.ok(await reaches(hosts[0]!, hosts[1]!.address()));
});

testAsRoot("masquerade() hides a host, dropFragmentationNeeded() makes a black hole", async () => {
  await using lab = new Lab();
  const [inside, router, outside] = [await lab.host("in"), await lab.host("router"), await lab.host("out")];
  await lab.link(inside, router);
  const far = await lab.link(router, outside);
  await makeRouter(router);
  await inside.sh(`ip route add default via ${router.address(inside)}`);
  await masquerade(far.ports[0]);
  assert.ok(await reaches(inside, outside.address()));
  assert.ok(!await reaches(outside, inside.address()));

  await far.setMtu(1000);
  const told = await inside.attempt(["ping", "-c1", "-W1", "-M", "do", "-s", "1200", outside.address()]);
  assert.match(told.stdout, /Frag needed/);
  await inside.sh("ip route flush cache");
  await dropFragmentationNeeded(router);
  const untold = await inside.attempt(["ping", "-c1", "-W1", "-M", "do", "-s", "1200", outside.address()]);
  assert.doesNotMatch(untold.stdout, /Frag needed/);
});

testAsRoot("EmulatedHost leaves no process behind when it is disposed of", async () => {
  const lab = new Lab();
  const host = await lab.host("a");
  await host.sh("setsid sleep 1000 >/dev/null 2>&1 &");
  await host.container("c1");
  const inside = Number((await host.sh("pgrep sleep")).trim());
  assert.ok(inside > 1);
  await lab[Symbol.asyncDispose]();
  await waitFor("the end of its first process", () => !exists(`/proc/${host.pid}`), 2000);
});

function exists(path: string): boolean {
  try {
    Deno.statSync(path);
    return true;
  } catch {
    return false;
  }
}

async function reaches(
  from: { attempt(command: string[]): Promise<{ code: number }> },
  address: string,
): Promise<boolean> {
  return (await from.attempt(["ping", "-n", "-q", "-c", "1", "-W", "1", address])).code === 0;
}
