/** Services where the disk is full: what cannot be stored is not done, and what is taken away all the same says that it comes back. */

import assert from "node:assert/strict";
import { Lab } from "./lab.ts";
import { waitEstablished } from "./mesh.ts";
import { ask, serveName, service, show, waitAnswer, waitKnown } from "./services.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** A command says at once that there is no room. */
const SOON_MS = 5_000;
/** In this time the router has tried again. */
const AGAIN_MS = 7_000;
const WARNING = /^Services will not come back after a restart: Cannot write .*: No space left on device/;

testAsRoot("weave service fails soon on a full disk, does nothing of it later, and says what is left", async (t) => {
  await using lab = new Lab();
  const a = await lab.host("a", { errorsExpected: true });
  const [b, plain] = [await lab.host("b"), await lab.host("plain")];
  await lab.link(a, b);
  await lab.switch([a, plain], ["192.168.60.1", "192.168.60.10"]);
  await a.sh("mount -t tmpfs -o size=1m tmpfs /var/lib/weave; ip link add d0 up type veth peer d1; ip link set d1 up");
  await a.weave("launch", "--network", "plant=eth1");
  await b.weave("launch", a.address());
  await waitEstablished(a, [b]);
  await serveName(plain, 80);
  const to = ["--network", "plant", "--to", "192.168.60.10:80"];
  await service(a, "import", "web", ...to);
  await service(a, "export", "web", "--listen", "8080");
  await service(a, "import", "old", ...to);
  await a.weave("network", "add", "spare=d0");
  await waitKnown(b, "old");
  const file = (services: string) =>
    a.exec(["sh", "-ec", "cat > /run/services.yaml"], { input: `networks: { more: d1 }\nservices: [${services}]\n` });
  const config = await service(a, "export-config");
  await file('{ name: new, import: { to: ["192.168.60.10:80"] } }');
  await a.sh("head -c 2m /dev/zero > /var/lib/weave/fill || true");

  const undone: readonly (readonly string[])[] = [
    ["service", "import", "new", ...to],
    ["service", "import", "web", "--weight", "7", ...to],
    ["service", "bind", "web", "192.168.60.10:81"],
    ["service", "export", "web", "--listen", "8081"],
    ["service", "apply", "/run/services.yaml"],
    ["network", "add", "more=d1"],
  ];
  for (const args of undone) {
    await t.step(args.slice(0, 3).join(" "), async () => {
      let result;
      const ms = await measure(async () => void (result = await a.attemptWeave(...args)));
      const { stdout, stderr, code } = result! as Awaited<ReturnType<typeof a.attemptWeave>>;
      assert.match(stderr, /^Cannot write "\/var\/lib\/weave\/weave-\w+\.json": No space left on device.*\n$/);
      assert.equal(stdout, "");
      assert.equal(code, 1);
      assert.ok(ms < SOON_MS, `${ms} ms`);
      assert.equal(await service(a, "export-config"), config);
      assert.equal((await b.attemptWeave("service", "show", "new")).code, 1, "nobody hears of it");
    });
  }
  await waitAnswer(a, "127.0.0.1", 8080, "plain");
  assert.equal(await ask(a, "127.0.0.1", 8081), "");
  assert.ok((await show(a, "web")).warnings.some((warning) => WARNING.test(warning)));
  assert.match(await service(a, "show", "web"), /^ *warning: Services will not come back after a restart/m);
  assert.match(await a.weave("status"), /Warning: Services will not come back after a restart/);

  const done: readonly [readonly string[], RegExp][] = [
    [["service", "revoke", "web"], /^Service web is revoked here, but not after a restart: Cannot write .*\n$/],
    [["service", "rm", "old"], /^Service old is removed here, but comes back after a restart: Cannot write .*\n$/],
    [["network", "rm", "spare"], /^Network spare is removed, but comes back after a restart: Cannot write .*\n$/],
  ];
  for (const [args, says] of done) {
    await t.step(args.join(" "), async () => {
      const result = await a.attemptWeave(...args);
      assert.match(result.stderr, says);
      assert.equal(result.code, 1);
    });
  }
  const left = await service(a, "export-config");
  assert.doesNotMatch(left, /old|spare/);
  assert.equal((await show(a, "web")).imports[0]!.state, "revoked");
  await waitFor("b to know", async () => (await b.attemptWeave("service", "show", "old")).code === 1, 5_000);

  // With room again what is there is stored, and what failed is not done.
  await a.sh("rm /var/lib/weave/fill");
  await waitFor("the warning to go", async () => (await show(a, "web")).warnings.length === 0, AGAIN_MS, [a]);
  await delay(AGAIN_MS);
  assert.equal(await service(a, "export-config"), left);
  const held: string = await a.sh("curl -s http://127.0.0.1:6784/ip");
  assert.doesNotMatch(held, /service:(new|old)/);
  await a.weave("stop");
  await a.weave("launch", "--network", "plant=eth1");
  assert.equal(await service(a, "export-config"), left);
  await service(a, "import", "new", ...to);
  await waitKnown(b, "new");
});

testAsRoot("what cannot be stored of one file is taken back from the other", async (t) => {
  await using lab = new Lab();
  const a = await lab.host("a", { errorsExpected: true });
  const b = await lab.host("b");
  await lab.link(a, b);
  await a.weave("launch");
  await b.weave("launch", a.address());
  await waitEstablished(a, [b]);
  const to = ["--to", "192.168.60.10:80"];
  const held = () => a.sh("curl -s http://127.0.0.1:6784/ip");
  const write = (text: string) => a.exec(["sh", "-ec", "cat > /run/services.yaml"], { input: text });
  await service(a, "import", "web", ...to);
  await service(a, "export", "web", "--listen", "8080");
  const [before, config] = [await held(), await service(a, "export-config")];
  await write('services: [{ name: new, import: { to: ["192.168.60.10:80"] } }]');

  for (const file of ["ipam", "services"]) {
    await t.step(`weave-${file}.json`, async () => {
      await a.sh(`mkdir -p /var/lib/weave/weave-${file}.json.new/x`);
      for (const args of [["import", "new", ...to], ["apply", "/run/services.yaml"]]) {
        const { stderr, code } = await a.attemptWeave("service", ...args);
        assert.match(stderr, new RegExp(`^Cannot write ".*/weave-${file}\\.json": Is a directory.*\\n$`));
        assert.equal(code, 1);
        assert.equal(await service(a, "export-config"), config);
      }
      assert.equal(await held(), before);
      await a.sh(`rm -r /var/lib/weave/weave-${file}.json.new`);
    });
  }
  await waitFor("b to know web alone", async () => {
    const names = JSON.parse(await service(b, "ls", "--json")).map(({ name }: { name: string }) => name);
    return names.join() === "web";
  }, 5_000);
  await service(a, "apply", "/run/services.yaml");
  await waitKnown(b, "new");
});

testAsRoot("weave service import fails where nothing could ever be stored", async () => {
  await using lab = new Lab();
  const a = await lab.host("a", { errorsExpected: true });
  await a.sh("mount -t tmpfs -o size=4k tmpfs /var/lib/weave; head -c 8192 /dev/zero > /var/lib/weave/fill || true");
  await a.weave("launch");
  let says = "";
  const ms = await measure(async () => {
    says = (await a.attemptWeave("service", "import", "web", "--to", "192.168.60.10:80")).stderr;
  });
  assert.match(says, /^Cannot write "\/var\/lib\/weave\/weave-ipam\.json": No space left on device.*\n$/);
  assert.ok(ms < SOON_MS, `${ms} ms`);
  await a.sh("umount /var/lib/weave");
  const address = await service(a, "import", "web", "--to", "192.168.60.10:80");
  assert.match(address, /^10\.32\./);
});
