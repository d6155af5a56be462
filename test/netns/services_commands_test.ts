/** What `weave service` and `weave network` say, right and wrong, and service files. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { line, report, waitEstablished } from "./mesh.ts";
import { ask, rulesOf, serveName, service, show, waitAnswer, waitKnown } from "./services.ts";
import { waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

testAsRoot("weave service refuses what cannot be with one line that says why", async (t) => {
  await using lab = new Lab();
  const [a, b, plain] = [await lab.host("a"), await lab.host("b"), await lab.host("plain")];
  await lab.link(a, b);
  await lab.switch([a, plain], ["192.168.60.1", "192.168.60.10"]);
  await a.weave("launch", "--network", "plant=eth1");
  await b.weave("launch", a.address());
  await waitEstablished(a, [b]);
  await serveName(plain, 80);
  const to = ["--to", "192.168.60.10:80"];
  await service(a, "import", "web", "--network", "plant", ...to);
  await waitKnown(b, "web");
  const before = (await rulesOf(a)).services;

  const cases: readonly { args: readonly string[]; code: number; says: RegExp; on?: EmulatedHost }[] = [
    { args: ["import", "x"], code: 2, says: /--to/ },
    { args: ["import"], code: 2, says: /NAME/ },
    { args: ["import", "x_y!", ...to], code: 2, says: /"?x_y!"?/ },
    { args: ["import", "a".repeat(64), ...to], code: 2, says: /63|long/ },
    { args: ["import", "x", "--to", "192.168.60.10"], code: 2, says: /port/i },
    { args: ["import", "x", "--to", "192.168.60.10:0"], code: 2, says: /0/ },
    { args: ["import", "x", "--to", "192.168.60.10:70000"], code: 2, says: /70000/ },
    { args: ["import", "x", "--to", "192.168.60.10:-5"], code: 2, says: /-5/ },
    { args: ["import", "x", "--to", "192.168.60.10:20-10"], code: 2, says: /20-10/ },
    { args: ["import", "x", "--to", "192.168.60.10:80/sctp"], code: 2, says: /sctp/ },
    { args: ["import", "x", "--to", "192.168.60.10:10-20", "--port", "10-19"], code: 2, says: /10-19|10-20|many/ },
    { args: ["import", "x", "--network", "nowhere", ...to], code: 2, says: /"nowhere"/ },
    { args: ["import", "x", "--check", "icmp", ...to], code: 2, says: /icmp/ },
    { args: ["import", "x", "--weight", "0", ...to], code: 2, says: /weight/ },
    { args: ["import", "x", "--subnet", "10.99.0.0/16", ...to], code: 1, says: /10\.99\.0\.0\/16/ },
    { args: ["import", "x", "--to", "127.0.0.1:80"], code: 2, says: /127\.0\.0\.1.*--allow-local/ },
    { args: ["import", "x", "--to", "169.254.169.254:80"], code: 2, says: /169\.254\.169\.254.*--allow-local/ },
    { args: ["import", "x", "--to", "192.168.60.1:80", "--network", "plant"], code: 2, says: /192\.168\.60\.1\b/ },
    { args: ["import", "x", "--to", "224.0.0.5:80"], code: 2, says: /224\.0\.0\.5/ },
    { args: ["import", "x", "--to", "0.0.0.0:80"], code: 2, says: /0\.0\.0\.0/ },
    { args: ["export", "web"], code: 2, says: /--listen/ },
    { args: ["export", "web", "--listen", "22"], code: 1, says: /22.*--force/ },
    { args: ["export", "web", "--listen", "6784"], code: 1, says: /6784.*--force/ },
    { args: ["export", "web", "--listen", "6783"], code: 1, says: /6783.*--force/ },
    { args: ["export", "web", "--listen", "6700-6790"], code: 2, says: /6700-6790|ports/ },
    { args: ["export", "web", "--listen", "80", "--allow", "nobody"], code: 2, says: /nobody/ },
    { args: ["export", "web", "--listen", "80", "--network", "nowhere"], code: 2, says: /"nowhere"/ },
    { args: ["export", "web", "--listen", "10.99.0.1:80"], code: 1, says: /10\.99\.0\.1/ },
    { args: ["bind", "nothing", "192.168.60.10:80"], code: 1, says: /nothing/ },
    { args: ["bind", "web", "192.168.60.10:80"], code: 1, says: /\(a\)/, on: b },
    { args: ["revoke", "web"], code: 1, says: /\(a\)/, on: b },
    { args: ["rm", "web"], code: 1, says: /\(a\)/, on: b },
    { args: ["show", "nothing"], code: 1, says: /nothing/ },
    { args: ["apply", "/nowhere.yaml"], code: 1, says: /nowhere\.yaml/ },
    { args: ["everything"], code: 2, says: /everything/ },
  ];
  for (const { args, code, says, on = a } of cases) {
    await t.step(`service ${args.join(" ").slice(0, 60)}${on === b ? " elsewhere" : ""}`, async () => {
      const result = await on.attemptWeave("service", ...args);
      assert.match(result.stderr, says);
      assert.equal(result.stdout, "");
      assert.equal(result.code, code, result.stderr);
    });
  }
  assert.equal((await rulesOf(a)).services, before, "nothing of it came to anything");
});

testAsRoot("services and networks are changed by root alone, and seen by everybody", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await lab.switch([host, await lab.host("plain")], ["192.168.60.1", "192.168.60.10"]);
  await host.weave("launch");
  await service(host, "import", "web", "--to", "192.168.60.10:80");
  const nobody = (...args: string[]) =>
    host.attempt(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", ...args]);
  for (const args of [["service", "rm", "web"], ["network", "add", "plant=eth0"]]) {
    const refused = await nobody(...host.weaveCommand(), ...args);
    assert.equal(refused.code, 1);
    assert.equal(refused.stderr, `needs root: sudo weave ${args.join(" ")}\n`);
  }
  const listed = await nobody(...host.weaveCommand(), "service", "ls");
  assert.match(listed.stdout, /^web /);
  const url = "http://127.0.0.1:6784/service/web";
  const asked = await nobody("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-X", "DELETE", url);
  assert.equal(asked.stdout, "403");
  assert.equal((await show(host, "web")).imports.length, 1);
});

testAsRoot(
  "weave service apply makes a host what a file says, once, and export-config writes such a file",
  async () => {
    await using lab = new Lab();
    const { hosts: [a, b] } = await line(lab, 2);
    const plain = await lab.host("plain");
    await lab.switch([a!, plain], ["192.168.60.1", "192.168.60.10"]);
    await a!.weave("launch");
    await b!.weave("launch", a!.address());
    await waitEstablished(a!, [b!]);
    await serveName(plain, 80);
    await serveName(plain, 81);
    const write = (text: string) => a!.exec(["sh", "-ec", "cat > /run/services.yaml"], { input: text });
    const file = (port: number) => `
networks:
  plant: eth1
services:
  - name: web
    import:
      to: ["192.168.60.10:${port}"]
      network: plant
      port: "8000"
      check: "tcp,interval=0.5"
    export:
      - listen: "192.168.60.99:9000"
        network: plant
        allow: [192.168.60.0/24]
  - name: other
    import: { to: ["192.168.60.10:81"], network: plant, priority: 3 }
`;
    await write(file(80));
    const dry = await service(a!, "apply", "/run/services.yaml", "--dry-run");
    assert.match(dry, /web/);
    assert.match(dry, /plant/);
    assert.equal(JSON.parse(await service(a!, "ls", "--json")).length, 0, "nothing has changed");
    const done = await service(a!, "apply", "/run/services.yaml");
    assert.equal(done, dry);
    await waitAnswer(plain, "192.168.60.99", 9000, "plain", { witnesses: [a!] });
    await waitKnown(b!, "other");

    const rules = (await rulesOf(a!)).services;
    assert.match(await service(a!, "apply", "/run/services.yaml"), /^Nothing to change/);
    assert.equal((await rulesOf(a!)).services, rules);
    const written = await service(a!, "export-config");
    await write(written);
    assert.match(await service(a!, "apply", "/run/services.yaml"), /^Nothing to change/);
    assert.match((await a!.attemptWeave("service", "apply", "-")).stderr, /.+/, "an empty file is no desired state");

    // What has changed is changed, what is missing goes.
    await write(file(81).split("  - name: other")[0]!);
    const changed = await service(a!, "apply", "/run/services.yaml");
    assert.match(changed, /192\.168\.60\.10:81/);
    assert.match(changed, /other/);
    assert.deepEqual(JSON.parse(await service(a!, "ls", "--json")).map(({ name }: { name: string }) => name), ["web"]);
    await waitFor(
      "the others to know",
      async () => (await b!.attemptWeave("service", "show", "other")).code !== 0,
      5_000,
    );

    await write("services:\n  - name: web\n    import: { to: [], colour: red }\n");
    const wrong = await a!.attemptWeave("service", "apply", "/run/services.yaml");
    assert.notEqual(wrong.code, 0);
    assert.match(wrong.stderr, /services\.yaml|line \d|services\[0\]|to|colour/);
    await write(": [");
    assert.match((await a!.attemptWeave("service", "apply", "/run/services.yaml")).stderr, /line 1|services\.yaml/);

    // What is refused while it is done is refused before, and nothing of it is done.
    const config = await service(a!, "export-config");
    const web = 'import: { to: ["192.168.60.10:80"] }';
    const refusals: [string, RegExp][] = [
      [`services: [{ name: new, ${web}, export: [{ listen: 22 }] }]`, /^Cannot export new at 22: .*\n$/],
      [`services: [{ name: new, ${web}, export: [{ listen: "10.99.0.1:80" }] }]`, /^Cannot export new at 10\.99\.0\.1/],
      [`services: [{ name: new, import: { to: ["192.168.60.1:80"] } }]`, /^Cannot import new: 192\.168\.60\.1 .*/],
      [`services: [{ name: new, ${web.slice(0, -2)}, subnets: [10.99.0.0/16] } }]`, /^Cannot offer new in 10\.99/],
      [`networks: { plant: eth1, other: eth99 }\nservices: []`, /^Cannot add network "other": .*"eth99"\n$/],
    ];
    for (const [text, says] of refusals) {
      await write(text);
      for (const options of [["--dry-run"], []]) {
        const refused = await a!.attemptWeave("service", "apply", "/run/services.yaml", ...options);
        assert.notEqual(refused.code, 0, text);
        assert.match(refused.stderr.replace(/See .*\n/, ""), says);
        assert.equal(await service(a!, "export-config"), config, text);
      }
    }

    // What was forced once may be had again.
    await service(a!, "export", "web", "--listen", "22", "--force");
    await write(await service(a!, "export-config"));
    await service(a!, "rm", "web");
    await service(a!, "apply", "/run/services.yaml");
    assert.match(await service(a!, "ls"), /host:22/);
  },
);

testAsRoot("weave service ls and show say what there is", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  const plain = await lab.host("plain");
  await lab.switch([a!, plain], ["192.168.60.1", "192.168.60.10"]);
  await a!.weave("launch", "--network", "plant=eth1");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  await serveName(plain, 80);
  assert.equal(await service(a!, "ls"), "");
  assert.equal((await a!.attemptWeave("service", "ls", "--json")).stdout, "[]\n");
  assert.match((await a!.attemptWeave("network", "ls", "--json")).stdout, /^\[.*\]\n$/);
  const address = await service(
    a!,
    "import",
    "web",
    "--network",
    "plant",
    "--to",
    "192.168.60.10:80",
    "--to",
    "192.168.60.11:80",
    "--weight",
    "5",
  );
  await waitKnown(b!, "web");
  await service(b!, "export", "web", "--listen", "8080", "--allow", "10.0.0.0/8");
  await service(b!, "export", "web:80", "--listen", "8081");
  const name = (await report(a!)).Router.Name;
  const shown = await waitFor(
    "its health",
    async () => {
      const shown = await show(b!, "web");
      const health = shown.imports[0]?.backends.map((one) => one.health).join();
      return health === "up,down" && shown.exports.length === 2 ? shown : undefined;
    },
    5_000,
    [a!],
  );
  assert.deepEqual(shown.ports, ["80"]);
  assert.deepEqual(shown.addresses.map(({ address, holder }) => [address, holder]), [[address, name]]);
  const [imported] = shown.imports;
  assert.equal(imported!.owner, name);
  assert.equal(imported!.nickname, "a");
  assert.equal(imported!.weight, 5);
  assert.deepEqual(imported!.backends.map(({ target, network }) => [target, network]), [
    ["192.168.60.10:80", "plant"],
    ["192.168.60.11:80", "plant"],
  ]);
  const [exported, byPort] = shown.exports;
  assert.deepEqual([exported!.port, byPort!.port], [null, "80"]);
  assert.equal(exported!.nickname, "b");
  assert.equal(exported!.network, "host");
  assert.deepEqual(exported!.allow, ["10.0.0.0/8"]);
  assert.equal(exported!.answers, true);
  for (const host of [a!, b!]) {
    assert.match(await service(host, "ls"), new RegExp(`^web .*${address}.*1/2`));
    const text = await service(host, "show", "web");
    assert.match(text, /192\.168\.60\.11:80 +plant +down/);
    assert.match(text, /exported by .*\(b\), port 80, to host at 8081/);
  }
  assert.match(await a!.weave("network", "ls"), /^plant +eth1/m);
  assert.match(await a!.weave("status"), /Service: services|services/i);

  // A router that went keeps its record with the others, marked; one that is removed for good takes it along.
  await a!.weave("stop");
  await waitFor("a to be out of reach", async () => (await show(b!, "web")).imports[0]!.reachable === false, 10_000, [
    b!,
  ]);
  assert.equal(await ask(b!, "127.0.0.1", 8080), "");
  assert.match(await service(b!, "show", "web"), /unreachable/);
  assert.match(await service(b!, "ls"), /^web .* 0\/2 up/);
  await b!.weave("rmpeer", name);
  await waitFor("its record to go", async () => (await show(b!, "web")).imports.length === 0, 10_000, [b!]);
});
