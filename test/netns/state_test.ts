/** What a router keeps in files, and what it does when it cannot, or when what it kept is all that is left. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, line, routerPid, waitEstablished, waitPing } from "./mesh.ts";
import { measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("a router runs where its state cannot be stored, and says so", async (t) => {
  const FULL = "mount -t tmpfs -o size=4k tmpfs $0; head -c 8192 /dev/zero > $0/fill || true";
  const READ_ONLY = "mount -t tmpfs -o ro tmpfs $0";
  for (
    const [what, script, error] of [["full", FULL, "No space left"], ["read-only", READ_ONLY, "Read-only"]] as const
  ) {
    await t.step(what, async () => {
      await using lab = new Lab();
      const host = await lab.host("a", { errorsExpected: true });
      await host.exec(["sh", "-ec", script, "/var/lib/weave"]);
      await host.weave("launch", "192.168.1.77");
      assert.match(await host.weave("status"), new RegExp(`^ +Warning: What a restart .* not stored: .*${error}`, "m"));
      assert.match(await host.weave("logs"), new RegExp(`state not stored .*${error}`));
      await host.weave("connect", "192.168.1.78");
      assert.equal(await host.weave("status", "targets"), "192.168.1.77\n192.168.1.78");
      assert.match(
        await host.weave("logs"),
        new RegExp(`^ERRO.* addresses cannot be stored, nobody gets any .*${error}`, "m"),
      );

      // What was only in its way for a while is stored from the next change on.
      await host.sh("umount /var/lib/weave; mount -t tmpfs tmpfs /var/lib/weave");
      await host.weave("forget", "192.168.1.77");
      assert.match(await host.sh("cat /var/lib/weave/weave-targets.json"), /192\.168\.1\.78/);
    });
  }
});

testAsRoot("weave launch leaves nothing behind where it cannot note down what it starts", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.sh(
    "mkdir /run/weave; mount -t tmpfs -o size=4k tmpfs /run/weave; head -c 8192 /dev/zero >/run/weave/x || true",
  );
  const result = await host.attemptWeave("launch");
  assert.match(result.stderr, /^Cannot write "\/run\/weave\/supervisor\.json": No space left on device/);
  assert.equal(result.code, 1);
  await waitFor("its processes to end", async () => await host.sh("pgrep -f '[l]aunch' || true") === "", 2_000);
  assert.equal(await host.sh("ip -o link | wc -l"), "1", "only lo");
});

testAsRoot("after a reboot a router goes on with its targets, and with nothing else of before", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  const name = await a!.weave("launch", "192.168.1.77");
  await b!.weave("launch");
  await a!.weave("connect", b!.address());
  await waitEstablished(a!, [b!]);
  await attachNew(a!, "c1", "10.0.0.1/24");
  await a!.weave("expose", "10.0.0.100/24");
  await reboot(a!);

  assert.equal(await a!.weave("launch", "192.168.1.78"), name);
  assert.equal(await a!.weave("status", "targets"), `192.168.1.77\n${b!.address()}`);
  await waitEstablished(a!, [b!]);
  assert.match(await a!.weave("ps"), /^weave:expose \S+$/);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
});

testAsRoot("flushed rules are back within 12 s, and a container that is gone is forgotten within 30 s", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  const c1 = await attachNew(host, "c1", "10.0.0.1/24");
  const c2 = await attachNew(host, "c2", "10.0.0.2/24");
  await host.weave("expose", "10.0.0.100/24");
  const rules = () => host.sh("iptables-save | grep -E '^(-A|:WEAVE|[*])' | sed 's/ \\[.*//'");
  const before = await rules();
  const id = await c1.sh("stat -L -c 'netns-%d-%i' /run/netns/c1");
  const noted = () => host.sh("cat /run/weave/attachments.json");
  assert.match(await noted(), new RegExp(id));
  await c1.remove();
  await host.sh("for table in filter nat mangle; do iptables -t $table -F; iptables -t $table -X; done");
  assert.notEqual(await rules(), before);

  const [back, forgotten] = await Promise.all([
    measure(() => waitFor("the rules", async () => await rules() === before, 13_000, [host])),
    measure(() => waitFor("its end", async () => !(await noted()).includes(id), 32_000, [host])),
  ]);
  console.log(`rules back after ${back} ms, container forgotten after ${forgotten} ms`);
  assert.ok(await c2.pings("10.0.0.100"));
  assert.match(await host.weave("logs"), new RegExp(`container is gone container=${id}`));
  assert.match(await noted(), /10\.0\.0\.2/, "the other one is still known");
  assert.equal((await host.weave("ps")).split("\n").length, 2);
});

/** Takes away what a reboot does: processes, what lies in /run, and all that the kernel was told. */
async function reboot(host: EmulatedHost): Promise<void> {
  await host.sh(`
    kill -9 $(cut -d' ' -f4 /proc/${await routerPid(host)}/stat) ${await routerPid(host)}
    rm -r /run/weave
    ip netns del c1
    ip link del vethwe-bridge 2>/dev/null || true
    ip link del weave
    nft flush ruleset
    echo 00000000-1111-2222-3333-444444444444 > /run/boot_id
    mount --bind /run/boot_id /proc/sys/kernel/random/boot_id
  `);
}
