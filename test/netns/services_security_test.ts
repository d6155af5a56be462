/** Services and those who mean no good: other ports, forbidden backends, clients that may not, peers that lie, users without rights. */

import assert from "node:assert/strict";
import { join } from "node:path";
import type { ServicesReport } from "../../src/daemon/status.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, report, routerPid, waitEstablished } from "./mesh.ts";
import { ask, rulesOf, scan, serveName, service, show, waitAnswer, waitKnown } from "./services.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";
import { DENO_RUN } from "./executable.ts";

/** What a router reports of services. */
async function told(host: EmulatedHost): Promise<ServicesReport> {
  return JSON.parse(await host.weave("report")).Services;
}

/** A gateway with machines of a site, and another peer. */
async function siteAndPeer(lab: Lab, ...machines: readonly string[]) {
  const [gateway, far] = [await lab.host("gateway"), await lab.host("far")];
  const site: EmulatedHost[] = [];
  for (const name of machines) site.push(await lab.host(name));
  await lab.switch([gateway, ...site], ["192.168.7.1", ...site.map((_, i) => `192.168.7.${10 + i}`)]);
  await lab.link(gateway, far);
  await far.weave("launch");
  await gateway.weave("launch", "--network", "plant=eth0", far.address(gateway));
  await waitEstablished(gateway, [far]);
  return { gateway, far, site };
}

testAsRoot("a service opens its own ports, and refuses the others at its address at once", async () => {
  await using lab = new Lab();
  const { gateway, far, site: [db] } = await siteAndPeer(lab, "db");
  for (const port of [22, 5432, 5433]) await serveName(db!, port);
  for (const port of [53, 5432]) await serveName(db!, port, "udp");
  // What the gateway has is not reached through a service either.
  await serveName(gateway, 99);
  const client = await attachNew(far, "c1");
  const near = await attachNew(gateway, "c2");
  await service(gateway, "import", "db", "--network", "plant", "--to", "192.168.7.10:5432");
  const address = await waitKnown(far, "db");
  for (const from of [client, near, gateway]) {
    await waitAnswer(from, address, 5432, "db", { witnesses: [gateway, far] });
    const endpoints = ["22", "80", "99", "5431", "5433", "6783", "6784"].map((port) => `${address}:${port}`);
    const reached = await scan(from, endpoints);
    assert.deepEqual(reached, Object.fromEntries(endpoints.map((endpoint) => [endpoint, "refused"])), from.name);
    const udp = await from.attempt(["dig", `@${address}`, "+tries=1", "+time=2", "x"]);
    assert.match(udp.stdout, /connection refused/, from.name);
    assert.equal(await ask(from, address, 5432, "udp"), "");
  }
});

testAsRoot("backends at loopback, link-local, multicast or an address of the gateway take --allow-local", async () => {
  await using lab = new Lab();
  const { gateway, far, site: [db] } = await siteAndPeer(lab, "db");
  await attachNew(gateway, "c1");
  await gateway.weave("expose", "10.40.0.1/16");
  await serveName(db!, 80);
  await service(gateway, "import", "web", "--network", "plant", "--to", "192.168.7.10:80");
  const virtual = await waitKnown(far, "web");
  const own = await gateway.sh("ip -4 -o addr show | grep -o 'inet [0-9.]*' | cut -d' ' -f2");
  const before = (await rulesOf(gateway)).services;
  const addresses = new Set([
    ...own.split("\n"),
    virtual,
    "127.0.0.1",
    "127.53.2.1",
    "169.254.169.254",
    "169.254.1.1",
    "224.0.0.1",
    "255.255.255.255",
    "0.0.0.0",
  ]);
  assert.ok(addresses.size >= 12, [...addresses].join());
  for (const address of addresses) {
    for (const where of [[], ["--network", "plant"]]) {
      const refused = await gateway.attemptWeave("service", "import", "x", "--to", `${address}:80`, ...where);
      const what = `${address} ${where.join(" ")}: ${refused.stderr}`;
      assert.ok(refused.code === 1 || refused.code === 2, what);
      assert.equal(refused.stdout, "", what);
      assert.ok(refused.stderr.includes(address), what);
    }
    const bound = await gateway.attemptWeave("service", "bind", "web", `${address}:80`);
    assert.notEqual(bound.code, 0, address);
  }
  assert.equal((await gateway.attemptWeave("service", "show", "x")).code, 1);
  assert.equal((await rulesOf(gateway)).services, before);

  gateway.spawn(["socat", "TCP4-LISTEN:81,bind=127.0.0.1,fork,reuseaddr", "SYSTEM:echo loopback"]);
  await service(gateway, "import", "x", "--to", "127.0.0.1:81", "--allow-local");
  await waitAnswer(await attachNew(far, "c2"), await waitKnown(far, "x"), 81, "loopback", {
    witnesses: [gateway, far],
  });
});

testAsRoot("--allow looks at the source that a client has, whatever else it says", async () => {
  await using lab = new Lab();
  const { gateway, far, site: [friend, stranger] } = await siteAndPeer(lab, "friend", "stranger");
  const container = await attachNew(far, "c1");
  await serveName(container, 80);
  const [address] = /\d+(\.\d+){3}/.exec(await container.sh("ip -4 -br addr show ethwe"))!;
  await service(far, "import", "web", "--network", "weave", "--to", `${address}:80`);
  await waitKnown(gateway, "web");
  const at = ["--network", "plant", "--listen"];
  await service(gateway, "export", "web", ...at, "8080", "--allow", "192.168.7.10/32,10.9.0.0/16");
  await service(gateway, "export", "web", ...at, "192.168.7.99:80", "--allow", "192.168.7.10/32");
  await stranger!.sh("ip addr add 192.168.7.200/24 dev eth0; ip addr add 192.168.7.12/24 dev eth0");
  for (const [to, port] of [["192.168.7.1", 8080], ["192.168.7.99", 80]] as const) {
    await waitAnswer(friend!, to, port, "c1", { witnesses: [gateway, far] });
    for (const from of ["192.168.7.11", "192.168.7.12", "192.168.7.200"]) {
      assert.equal(await ask(stranger!, to, port, "tcp", ["-s", from]), "", `${from} asks ${to}`);
    }
    assert.deepEqual(await scan(stranger!, [`${to}:${port}`]), { [`${to}:${port}`]: "refused" });
    assert.equal(await ask(gateway, to, port), "", "the host itself is not on the list either");
  }
  // Connections that are there are judged when they begin: it is the new ones that are refused.
  await service(gateway, "export", "web", ...at, "8080", "--allow", "192.168.7.11/32");
  await waitAnswer(stranger!, "192.168.7.1", 8080, "c1");
  assert.equal(await ask(friend!, "192.168.7.1", 8080), "");
});

testAsRoot("a peer that lies about services is told of, bounded, and harms nobody", async () => {
  await using lab = new Lab();
  const { gateway, far, site: [db] } = await siteAndPeer(lab, "db");
  const evil = await lab.host("evil");
  await lab.link(evil, gateway);
  await serveName(db!, 5432);
  const client = await attachNew(far, "c1");
  await serveName(client, 80);
  await service(gateway, "import", "db", "--network", "plant", "--to", "192.168.7.10:5432");
  const [own] = /\d+(\.\d+){3}/.exec(await client.sh("ip -4 -br addr show ethwe"))!;
  await service(far, "import", "honest", "--network", "weave", "--to", `${own}:80`);
  const address = await waitKnown(far, "db");
  await waitKnown(gateway, "honest");

  const EVIL = "02:66:66:66:66:66";
  const names = await Promise.all([gateway, far].map(async (host) => (await report(host)).Router.Name));
  const orders = await Deno.makeTempFile({ prefix: "weave-hostile-" });
  await Deno.remove(orders);
  const program = join(import.meta.dirname!, "hostile_peer.ts");
  const launch = ["launch", "--foreground", "--name", EVIL, "--no-restart", gateway.address(evil)];
  await using liar = evil.spawn([...DENO_RUN, program, orders, ...names, ...launch]);
  const rejections = async () => {
    if (liar.ended) throw new Error(`The hostile peer has ended: ${liar.stderr}`);
    return (await told(gateway)).Rejections;
  };
  await waitFor(
    "the hostile peer",
    async () => {
      return (await report(gateway)).Router.Connections?.some(({ State, Info }) =>
        State === "established" && Info.includes(EVIL)
      ) ??
        false;
    },
    30_000,
    [gateway],
  );
  const memory = async () => {
    const pid = await routerPid(gateway);
    return Number(/VmRSS:\s+(\d+)/.exec(await gateway.sh(`cat /proc/${pid}/status`))![1]) / 1024;
  };
  const pid = await routerPid(gateway);
  const before = await memory();

  const attacks: Readonly<Record<string, RegExp>> = {
    unasked: /nobody asked for/,
    hugeMessage: /1\d{6} octets, at most 262144/,
    hugeRecord: /octets/,
    ports: /port/,
    names: /name/,
    outside: /example\.com|domain/,
    foreign: /owner|own|asked/,
    malformed: /JSON|type|missing|message/,
    many: /more than 5000 records/,
  };
  for (const [attack, reason] of Object.entries(attacks)) {
    await Deno.writeTextFile(orders, attack);
    await waitFor(
      `"${attack}" to be rejected`,
      async () => {
        const found = await rejections();
        if (found.some((each) => each.Peer === EVIL && reason.test(each.Reason))) return true;
        throw new Error(JSON.stringify(found));
      },
      60_000,
      [gateway],
    );
  }
  await Deno.writeTextFile(orders, "forget\nowners");
  await delay(8_000);
  const once = await memory();
  // What is bounded does not grow with a second time; records that were refused are not asked for again at once.
  await Deno.writeTextFile(orders, "unasked\nhugeRecord\nnames\nforeign\nmalformed\nowners\nmany");
  await delay(12_000);
  const twice = await memory();

  const all = await rejections();
  assert.ok(all.length <= 64, String(all.length));
  assert.ok(
    all.every(({ Reason, What }) => Reason.length < 500 && What.length < 500),
    JSON.stringify(all).slice(0, 2_000),
  );
  assert.ok((await told(gateway)).Known <= 5_010, "what one peer may have");
  assert.equal(await routerPid(gateway), pid, "the same process");
  const line = [before, once, twice].map((mb) => mb.toFixed(0)).join(", ");
  console.log(`memory of the router before an attack, after it and after another: ${line} MB`);
  assert.ok(once - before < 300 && twice - once < 80, line);
  const log = await gateway.sh("wc -c < /var/log/weave.log");
  assert.ok(Number(log) < 200_000, `${log} octets of log`);

  // Nobody else has suffered, and nothing of it is believed.
  for (const name of ["stolen", "huge-record", "huge-message", "bad-ports", "evil.example.com"]) {
    assert.equal((await gateway.attemptWeave("service", "show", name)).code, 1, name);
  }
  assert.equal((await show(gateway, "honest")).imports[0]!.reachable, true);
  await waitAnswer(client, address, 5432, "db", { witnesses: [gateway, far] });
  const began = Date.now();
  await service(gateway, "import", "second", "--network", "plant", "--to", "192.168.7.10:5432", "--port", "1");
  console.log(`a change with ${(await told(gateway)).Known} records of others: ${Date.now() - began} ms`);
  await waitAnswer(client, await waitKnown(far, "second"), 1, "db", { witnesses: [gateway, far] });
});

testAsRoot("services are changed by root alone, and no name does harm on the way", async () => {
  await using lab = new Lab();
  const { gateway, site: [db] } = await siteAndPeer(lab, "db");
  await serveName(db!, 80);
  await service(gateway, "import", "web", "--network", "plant", "--to", "192.168.7.10:80");
  const before = (await rulesOf(gateway)).services;
  const nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"];
  const changes: readonly (readonly string[])[] = [
    ["import", "x", "--to", "192.168.7.10:80"],
    ["export", "web", "--listen", "8080"],
    ["bind", "web", "192.168.7.10:81"],
    ["revoke", "web"],
    ["drain", "web"],
    ["rm", "web"],
  ];
  for (const args of changes) {
    const refused = await gateway.attempt([...nobody, ...gateway.weaveCommand(), "service", ...args]);
    assert.notEqual(refused.code, 0, args.join(" "));
    assert.match(refused.stderr, /root/, args.join(" "));
  }
  // Nor by another client of the API.
  const requests = [
    ...["import", "export", "bind", "revoke", "drain"].map((what) => ["POST", `/service/web/${what}`]),
    ["DELETE", "/service/web"],
    ["POST", "/service-config"],
    ["POST", "/network/other"],
    ["DELETE", "/network/plant"],
  ];
  for (const [method = "", path] of requests) {
    const status = ["curl", "-s", "-o", "/dev/null", "-w", "%{http_code}"];
    const data = ["-d", "to=192.168.7.10:81", "-d", "listen=8080", "-d", "interface=eth0", "-d", "config={}"];
    const url = `http://127.0.0.1:6784${path}`;
    const answer = await gateway.attempt([...nobody, ...status, "-X", method, ...data, url]);
    assert.equal(answer.stdout, "403", `${method} ${path}`);
  }
  const names = [
    "../../etc/passwd",
    "a b",
    "x;reboot",
    "$(id)",
    "-rf",
    "\u001b[2J",
    "web\n10.0.0.1 evil",
    '"',
    "web.example.com",
    "%2e%2e",
    "a".repeat(100_000),
    "\u202egnp",
    "weave:dns",
  ];
  for (const name of names) {
    for (
      const args of [["import", name, "--to", "192.168.7.10:80"], ["export", name, "--listen", "8081"], ["rm", name]]
    ) {
      const { code, stdout, stderr } = await gateway.attemptWeave("service", ...args);
      assert.notEqual(code, 0, `${args[0]} ${name.slice(0, 50)}: ${stdout}`);
      assert.ok(stderr.length < 1_000, `${args[0]} ${name.slice(0, 50)}: ${stderr.length}`);
      assert.ok(!stderr.includes("\u001b[2J"), "what controls a terminal is not repeated");
    }
  }
  assert.equal((await rulesOf(gateway)).services, before);
  assert.equal(JSON.parse(await service(gateway, "ls", "--json")).length, 1);
});

testAsRoot("a router whose services cannot be read does not start without them, and says so in one line", async () => {
  await using lab = new Lab({ errorsExpected: true });
  const host = await lab.host("a");
  const file = "/var/lib/weave/weave-services.json";
  await host.weave("launch");
  await service(host, "import", "web", "--to", "192.168.7.10:80", "--check", "none");
  await host.weave("stop");
  const good = await host.sh(`cat ${file}`);
  const table = (await rulesOf(host)).services;
  const broken: readonly (readonly [content: string, says: RegExp])[] = [
    ["", /weave-services\.json/],
    [good.slice(0, -20), /weave-services\.json/],
    [good.replace(/"version":"\d+/, '"version":"99'), /newer|99/],
    [good.replace('"records":[', '"records":[7,'), /weave-services\.json/],
    ["{}", /weave-services\.json/],
  ];
  for (const [content, says] of broken) {
    await host.exec(["sh", "-c", `cat > ${file}`], { input: content });
    const { code, stdout, stderr } = await host.attemptWeave("launch");
    const what = `${content.slice(0, 30)}: ${stderr}`;
    assert.deepEqual([code, stdout], [1, ""], what);
    assert.match(stderr, says, what);
    assert.ok(stderr.trimEnd().split("\n").length <= 2, what);
    assert.equal(await host.sh(`cat ${file}`), content.trimEnd(), "it is left as it is");
    assert.equal((await rulesOf(host)).services, table, "rules go on as they were");
  }
  await host.exec(["sh", "-c", `cat > ${file}`], { input: good });
  await host.weave("launch");
  assert.equal((await show(host, "web")).imports.length, 1);
  // What others told can be told again.
  await host.weave("stop");
  await host.sh("echo broken > /var/lib/weave/weave-services-others.json");
  await host.weave("launch");
  assert.match(await host.weave("logs"), /services of others that were stored cannot be read/);
});
