import assert from "node:assert/strict";
import { Lab } from "./lab.ts";
import { attachNew, line, PingStream, report, routerPid, waitEstablished, waitPing } from "./mesh.ts";
import { compileVersion } from "./other_version.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("a killed router comes back with the targets it had, a launched one with those it is given", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await b!.weave("launch");
  await a!.weave("launch");
  await a!.weave("connect", b!.address());
  await waitEstablished(a!, [b!]);
  const pid = await routerPid(a!);
  await a!.sh(`kill -9 ${pid}`);
  await waitFor("the router to be back", async () => await routerPid(a!) !== pid, 10_000);
  await waitEstablished(a!, [b!], 15_000);
  assert.equal(await a!.weave("status", "targets"), b!.address());

  await a!.weave("stop");
  await a!.weave("launch", "192.168.1.77");
  assert.equal(await a!.weave("status", "targets"), "192.168.1.77");
  await a!.weave("stop");
  await a!.weave("launch", "--resume");
  assert.equal(await a!.weave("status", "targets"), "192.168.1.77");
});

testAsRoot(
  "weave launch --no-restart leaves a killed router dead, and the next launch takes up its targets",
  async () => {
    await using lab = new Lab();
    const host = await lab.host("a");
    await host.weave("launch", "--no-restart");
    await host.weave("connect", "192.168.1.77");
    await host.sh(`kill -9 ${await routerPid(host)}`);
    await waitFor("its end", async () => (await host.sh("ss -Htln sport = :6783")) === "", 2_000);
    await new Promise((resolve) => setTimeout(resolve, 3_000));
    assert.equal(await host.sh("ss -Htln sport = :6783"), "");
    // As after a reboot: a start without a stop before it goes on where it was.
    await host.weave("launch", "192.168.1.78");
    assert.equal(await host.weave("status", "targets"), "192.168.1.77");
  },
);

testAsRoot("weave launch with another version replaces the running router in place", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-next-" });
  try {
    const next = await compileVersion(folder, "99.0.0");
    await using lab = new Lab();
    const { hosts: [a, b] } = await line(lab, 2);
    await a!.weave("launch", "--nickname", "keeper");
    await b!.weave("launch", a!.address());
    const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
    const c2 = await attachNew(b!, "c2", "10.0.0.2/24");
    await waitPing(c1, "10.0.0.2");
    await using receiver = c2.spawn(["nc", "-l", "4000"]);
    await waitFor("nc to listen", async () => await c2.sh("ss -Htln sport = :4000") !== "", 5_000);
    await using _sender = c1.spawn(["sh", "-c", "while sleep 0.1; do date +%s; done | nc 10.0.0.2 4000"]);
    await waitFor("the first line", () => receiver.stdout.length > 0, 5_000);
    await using stream = new PingStream(c1, "10.0.0.2");
    await a!.exec([next, "launch"]);
    const after = await report(a!);
    assert.equal(after.Version, "99.0.0");
    assert.equal(after.Router.NickName, "keeper", "flags of the old one are kept");
    await stream.waitAnswers(10, 15_000);
    console.log(`no answer for ${stream.longestGapMs} ms while the version changed`);
    const before = receiver.stdout.length;
    await waitFor("the TCP connection to go on", () => receiver.stdout.length > before, 10_000, [a!, b!]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

testAsRoot("weave launch in the foreground tells the service manager, and ends on SIGTERM", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await using router = host.spawn([...host.weaveCommand(), "launch", "--foreground"]);
  await waitFor("the router", async () => (await host.attemptWeave("status")).code === 0, 10_000, [host]);
  router.signal("SIGTERM");
  assert.equal((await router.finished(10_000)).code, 0);
});
