import assert from "node:assert/strict";
import { dig, setResolvers, startResolver, waitName } from "./dns.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { line, routerPid, waitEstablished } from "./mesh.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

interface DnsReport {
  readonly Domain: string;
  readonly Upstream: readonly string[] | null;
  readonly Address: string;
  readonly TTL: number;
  readonly Entries: readonly { Hostname: string; ContainerID: string; Address: string; Tombstone: number }[] | null;
  readonly Listening: readonly string[] | null;
  readonly Suspended: readonly { Entries: number; Hidden: boolean }[] | null;
  readonly Counters: Readonly<Record<string, number>>;
}

testAsRoot("names of three hosts are known on each, forward and backward", async () => {
  await using lab = new Lab();
  const hosts = [await lab.host("a"), await lab.host("b"), await lab.host("c")];
  const [a, b, c] = hosts as [EmulatedHost, EmulatedHost, EmulatedHost];
  await lab.switch(hosts);
  await a.weave("launch");
  for (const host of [b, c]) await host.weave("launch", a.address());
  await waitEstablished(a, [b, c]);
  await waitEstablished(b, [a, c]);
  for (const [i, host] of hosts.entries()) {
    assert.equal(
      await host.weave("expose", `10.0.0.${100 + i}/24`, "-h", `${host.name}.weave.local`),
      `10.0.0.${100 + i}`,
    );
  }
  const web = await named(a, "web", "10.0.0.1/24", "web.weave.local");
  await named(b, "Web", "10.0.0.2/24", "WEB.weave.local");
  await named(c, "db", "10.0.0.3/24", "db.sub.weave.local");

  for (const [i, host] of hosts.entries()) {
    const server = `10.0.0.${100 + i}`;
    await waitName(host, server, "web.weave.local", ["10.0.0.1", "10.0.0.2"], 10_000, hosts);
    await waitName(host, server, "db.sub.weave.local", ["10.0.0.3"]);
    await waitName(host, server, "b.weave.local", ["10.0.0.101"]);
    const upper = await dig(host, server, "dB.SUB.weave.LOCAL", "A");
    assert.deepEqual([upper.status, upper.answers], ["NOERROR", ["10.0.0.3"]]);
    assert.ok(upper.flags.includes("aa") && upper.flags.includes("ra"));
    assert.deepEqual((await dig(host, server, "-x", "10.0.0.3")).answers, ["db.sub.weave.local."]);
    const none = await dig(host, server, "web.weave.local", "AAAA");
    assert.deepEqual([none.status, none.answers], ["NOERROR", []]);
    assert.equal((await dig(host, server, "nope.weave.local", "A")).status, "NXDOMAIN");
    assert.deepEqual((await dig(host, server, "+tcp", "web", "A")).answers.length, 2, "a single label, over TCP");
  }
  assert.deepEqual((await dig(web, "10.0.0.100", "db.sub.weave.local", "A")).answers, ["10.0.0.3"], "from a container");
  assert.deepEqual((await dig(web, "10.0.0.101", "b", "A")).answers, ["10.0.0.101"], "at another host");

  assert.equal(await a.weave("dns-lookup", "nope"), "");
  const elsewhere = await a.attemptWeave("dns-lookup", "www.example.com");
  assert.deepEqual([elsewhere.code, elsewhere.stdout], [1, ""], "there is nobody to ask");
  assert.equal(await a.weave("dns-lookup", "db.sub.weave.local"), "10.0.0.3");
  assert.equal(await a.weave("dns-args"), "--dns=10.0.0.100 --dns-search=weave.local.");
  const status = await a.weave("status", "dns");
  assert.match(status, /^WEB +10\.0\.0\.2 +netns-\S+ [0-9a-f:]{17}$/m);
  assert.match(status, /^a +10\.0\.0\.100 +weave:expose [0-9a-f:]{17}$/m);
  assert.match(
    await a.weave("status"),
    /Service: dns\n +Domain: weave\.local\.\n +Upstream: .*\n +TTL: 1\n +Entries: 6(\n|$)/,
  );
  const { DNS: dns } = JSON.parse(await a.weave("report")) as { DNS: DnsReport };
  assert.deepEqual([dns.Domain, dns.Address, dns.TTL, dns.Entries?.length], ["weave.local.", "10.0.0.100:53", 1, 6]);
  assert.match(
    await a.sh("curl -s 127.0.0.1:6784/metrics || wget -qO- 127.0.0.1:6784/metrics"),
    /^weave_dns_entries 2$/m,
  );

  await a.weave("hide", "10.0.0.100/24");
  await waitName(b, "10.0.0.101", "a.weave.local", []);
  assert.equal((await dig(a, "10.0.0.100", "web", "A")).answers.length, 0, "nobody listens where nothing is exposed");
  await web.host.weave("detach", "10.0.0.1/24", web.reference);
  await waitName(b, "10.0.0.101", "web.weave.local", ["10.0.0.2"]);
});

testAsRoot("weave dns-add and dns-remove name containers and anything else", async () => {
  await using lab = new Lab();
  const { a, b } = await pair(lab);
  await a.weave("launch");
  await b.weave("launch", "--dns-listen-address", "127.0.0.1:5353", a.address());
  await waitEstablished(a, [b]);
  const server = "127.0.0.1#5353";
  const web = await named(a, "web", "10.0.0.1/24", "web.weave.local");
  await a.weave("dns-add", web.reference, "-h", "www.weave.local");
  await waitName(b, server, "www.weave.local", ["10.0.0.1"]);
  await a.weave("dns-add", "10.0.0.77", "10.0.0.78", web.reference);
  await waitName(b, server, "web.weave.local", ["10.0.0.1", "10.0.0.77", "10.0.0.78"]);
  await a.weave("dns-add", "192.0.2.7", "-h", "outside.weave.local");
  await waitName(b, server, "outside.weave.local", ["192.0.2.7"]);
  assert.deepEqual((await dig(b, server, "-x", "192.0.2.7")).answers, ["outside.weave.local."]);
  await a.weave("dns-add", "192.0.2.7", "-h", "outside.example.com");
  assert.equal(await a.weave("dns-lookup", "outside"), "192.0.2.7", "without any listener");

  await a.weave("dns-add", "fd00::7", "-h", "outside.weave.local", "--record", "TXT hello there");
  await a.weave("dns-add", "-h", "_http._tcp.weave.local", "--record", "SRV 0 5 80 web.weave.local", web.reference);
  await waitFor("the records", async () => (await dig(b, server, "outside", "AAAA")).answers.length > 0, 10_000);
  assert.deepEqual((await dig(b, server, "outside.weave.local", "AAAA")).answers, ["fd00::7"]);
  assert.deepEqual((await dig(b, server, "outside.weave.local", "TXT")).answers, ['"hello there"']);
  assert.deepEqual((await dig(b, server, "_http._tcp.weave.local", "SRV")).answers, ["0 5 80 web.weave.local."]);

  await a.weave("dns-remove", "10.0.0.77", web.reference);
  await waitName(b, server, "web.weave.local", ["10.0.0.1", "10.0.0.78"]);
  await a.weave("dns-remove", "192.0.2.7", "fd00::7", "-h", "outside.weave.local");
  await waitFor("it to go", async () => (await dig(b, server, "outside", "AAAA")).answers.length === 0, 10_000);
  await a.weave("dns-remove", web.reference, "-h", "www.weave.local");
  await waitName(b, server, "www.weave.local", []);
  // The namespace is the container; nobody tells when it goes, so it is looked for.
  await web.remove();
  await waitName(b, server, "web.weave.local", [], 45_000, [a, b]);
  assert.equal((await a.attemptWeave("dns-add", "10.0.0.1")).code, 1);
  assert.equal((await a.attemptWeave("dns-add", "netns:/run/netns/none")).code, 1);
});

testAsRoot("names come back when a router is killed, and with them those that were added by hand", async () => {
  await using lab = new Lab();
  const { a, b } = await pair(lab);
  await a.weave("launch");
  await b.weave("launch", a.address());
  await waitEstablished(a, [b]);
  const server = "10.0.0.101";
  await b.weave("expose", `${server}/24`);
  await a.weave("expose", "10.0.0.100/24", "-h", "a.weave.local");
  const web = await named(a, "web", "10.0.0.1/24", "web.weave.local");
  const gone = await named(a, "gone", "10.0.0.9/24", "gone.weave.local");
  await a.weave("dns-add", web.reference, "-h", "www.weave.local");
  await a.weave("dns-add", gone.reference, "-h", "away.weave.local");
  await a.weave("dns-add", "192.0.2.7", "-h", "outside.weave.local");
  await a.weave("dns-add", "-h", "web.weave.local", "--record", "TXT hello", web.reference);
  await waitName(b, server, "outside.weave.local", ["192.0.2.7"]);
  const names = { a: "10.0.0.100", web: "10.0.0.1", www: "10.0.0.1", outside: "192.0.2.7" };

  for (const restart of ["kill", "stop"]) {
    if (restart === "kill") {
      const pid = await routerPid(a);
      await a.sh(`kill -9 ${pid}`);
      for (let i = 0; i < 20; i++) {
        assert.deepEqual((await dig(b, server, "web.weave.local", "A")).answers, ["10.0.0.1"], "never in doubt");
        await delay(50);
      }
      await waitFor("the router to be back", async () => await routerPid(a) !== pid, 10_000);
    } else {
      await a.weave("stop");
      await waitName(b, server, "web.weave.local", [], 2_000, [b]);
      await gone.remove();
      await a.weave("launch", b.address());
    }
    await waitEstablished(a, [b], 15_000);
    for (const [name, address] of Object.entries(names)) {
      await waitName(b, server, `${name}.weave.local`, [address], 10_000, [a, b]);
      await waitName(a, "10.0.0.100", name, [address]);
    }
    assert.deepEqual((await dig(a, "10.0.0.100", "web", "TXT")).answers, ['"hello"']);
  }
  for (const name of ["gone", "away"]) {
    assert.equal((await dig(a, "10.0.0.100", name, "A")).status, "NXDOMAIN");
    await waitName(b, server, `${name}.weave.local`, []);
  }
});

testAsRoot(
  "names of a peer out of reach are answered for a while, then hidden, and answered when it is back",
  async () => {
    await using lab = new Lab();
    const { a, b, cable } = await pair(lab);
    await a.weave("launch", "--dns-grace", "4s");
    await b.weave("launch", "--no-restart", a.address());
    await waitEstablished(a, [b]);
    await a.weave("expose", "10.0.0.100/24");
    await named(a, "both1", "10.0.0.1/24", "both.weave.local");
    await named(b, "both2", "10.0.0.2/24", "both.weave.local");
    await named(b, "only", "10.0.0.3/24", "only.weave.local");
    const server = "10.0.0.100";
    await waitName(a, server, "only.weave.local", ["10.0.0.3"]);

    await cable.cut();
    await waitFor("the peer to be missed", async () => (await dnsReport(a)).Suspended !== null, 80_000, [a]);
    assert.deepEqual((await dig(a, server, "only", "A")).answers, ["10.0.0.3"]);
    await waitFor(
      "the names to be hidden",
      async () => (await dig(a, server, "only", "A")).status === "SERVFAIL",
      10_000,
    );
    assert.deepEqual((await dig(a, server, "both", "A")).answers, ["10.0.0.1"]);
    assert.equal((await dig(a, server, "-x", "10.0.0.3")).status, "SERVFAIL");
    assert.match(await a.weave("status", "dns"), /^ {3}hidden +2 names of \S+\(b\), out of reach since/m);

    await cable.heal();
    await waitName(a, server, "only.weave.local", ["10.0.0.3"], 30_000, [a, b]);
    await waitName(a, server, "both.weave.local", ["10.0.0.1", "10.0.0.2"]);

    await b.sh(`kill -9 ${await routerPid(b)}`);
    await waitFor(
      "the names to be hidden",
      async () => (await dig(a, server, "only", "A")).status === "SERVFAIL",
      30_000,
      [a],
    );
    await a.weave("rmpeer", "b");
    await waitName(a, server, "only.weave.local", [], 2_000, [a]);
  },
);

testAsRoot("what is not ours is asked for at the servers of resolv.conf, one after the other", async () => {
  await using lab = new Lab();
  const [a, outside] = [await lab.host("a"), await lab.host("outside")];
  await lab.switch([a, outside]);
  await outside.sh("for n in 8 9; do ip address add 192.168.1.$n/24 dev eth0; done");
  const records = [
    "address=/www.example.com/192.0.2.80",
    "mx-host=example.com,mail.example.com,10",
    "ptr-record=80.2.0.192.in-addr.arpa,www.example.com",
    ...Array.from({ length: 200 }, (_, i) => `txt-record=large.example.com,${"x".repeat(40)}${i}`),
    "edns-packet-max=4096",
  ];
  using _first = await startResolver(outside, "192.168.1.8", records);
  await setResolvers(a, "192.168.1.8");
  await a.weave("launch", "--dns-fallback-timeout", "1s");
  await a.weave("expose", "10.0.0.100/24");
  const server = "10.0.0.100";
  const web = await named(a, "web", "10.0.0.1/24", "web.weave.local");
  assert.match(await a.weave("status"), /Upstream: 192\.168\.1\.8$/m);
  assert.deepEqual((await dig(web, server, "www.example.com", "A")).answers, ["192.0.2.80"]);
  assert.deepEqual((await dig(web, server, "example.com", "MX")).answers, ["10 mail.example.com."]);
  assert.deepEqual((await dig(web, server, "-x", "192.0.2.80")).answers, ["www.example.com."]);
  assert.deepEqual((await dig(web, server, "+tcp", "www.example.com", "A")).answers, ["192.0.2.80"]);
  assert.deepEqual((await dig(web, server, "-x", "10.0.0.1")).answers, ["web.weave.local."]);
  const plain = await dig(web, server, "+noedns", "+ignore", "large.example.com", "TXT");
  assert.ok(plain.flags.includes("tc") && plain.size <= 512);
  assert.equal((await dig(web, server, "large.example.com", "TXT")).answers.length, 200, "over TCP, as dig asks again");
  assert.equal((await dig(web, server, "nope", "A")).status, "NXDOMAIN");

  // The first does not answer, the second does not listen, the third knows.
  using _silent = outside.spawn([
    "python3",
    "-c",
    "import socket,time; s=socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.bind(('192.168.1.9', 53)); time.sleep(600)",
  ]);
  await setResolvers(a, "192.168.1.9", outside.address(), "192.168.1.8");
  await delay(5_100);
  const started = performance.now();
  assert.deepEqual((await dig(web, server, "www.example.com", "A")).answers, ["192.0.2.80"]);
  assert.ok(performance.now() - started > 900);
  await setResolvers(a, "192.168.1.9");
  await delay(5_100);
  assert.equal((await dig(web, server, "www.example.com", "A")).status, "SERVFAIL");
  await a.sh("rm /etc/resolv.conf");
  assert.equal((await dig(web, server, "web", "A")).status, "NOERROR");
});

testAsRoot("answers that others make up are not believed, and are counted", async () => {
  await using lab = new Lab();
  const [a, outside] = [await lab.host("a"), await lab.host("outside")];
  await lab.switch([a, outside]);
  const forger = `
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("${outside.address()}", 53))
other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    query, who = server.recvfrom(4096)
    def answer(ident, question, address):
        return ident + b"\\x81\\x80\\0\\1\\0\\1\\0\\0\\0\\0" + question + b"\\xc0\\x0c\\0\\1\\0\\1\\0\\0\\0\\x3c\\0\\4" + address
    end = query.index(b"\\0", 12) + 5
    question = query[12:end]
    bad = b"\\6\\6\\6\\6"
    wrong = bytes([query[0] ^ 1]) + query[1:2]
    server.sendto(answer(wrong, question, bad), who)
    server.sendto(answer(query[:2], question.replace(b"www", b"xxx"), bad), who)
    server.sendto(answer(query[:2], question[:-4] + b"\\0\\x1c\\0\\1", bad), who)
    other.sendto(answer(query[:2], question, bad), who)
    server.sendto(query, who)
    server.sendto(b"", who)
    server.sendto(answer(query[:2], question, b"\\xc0\\0\\2\\x50"), who)
`;
  using _forger = outside.spawn(["python3", "-c", forger]);
  await setResolvers(a, outside.address());
  await a.weave("launch");
  await a.weave("expose", "10.0.0.100/24");
  await waitFor("the forger", async () => (await outside.sh("ss -Huln sport = :53")).length > 0, 5_000);
  for (let i = 0; i < 5; i++) {
    assert.deepEqual((await dig(a, "10.0.0.100", `www${i}.example.com`, "A")).answers, ["192.0.2.80"]);
  }
  assert.equal((await dnsReport(a)).Counters["spoofed"], 30);
});

testAsRoot(
  "weave launch --no-dns keeps no names, --dns-domain keeps others, and a taken address is refused",
  async () => {
    await using lab = new Lab();
    const host = await lab.host("a", { errorsExpected: true });
    await host.weave("launch", "--no-dns");
    await host.weave("expose", "10.0.0.100/24", "-h", "a.weave.local");
    assert.equal(await host.weave("dns-args"), "");
    assert.equal(await host.weave("status", "dns"), "");
    assert.doesNotMatch(await host.weave("status"), /dns/);
    assert.equal((await host.attemptWeave("dns-add", "10.0.0.1", "-h", "x.weave.local")).code, 0);
    assert.equal(await host.sh("ss -Huln sport = :53"), "");
    await host.weave("stop");
    assert.notEqual((await host.attemptWeave("dns-args")).code, 0);
    assert.equal((await host.attemptWeave("dns-add", "10.0.0.1", "-h", "x.weave.local")).code, 1);

    await host.weave("launch", "--dns-domain", "Foo.bar", "--dns-ttl", "30", "--dns-listen-address", "127.0.0.1:5353");
    await host.weave("dns-add", "10.0.0.1", "-h", "x.foo.BAR");
    await host.weave("dns-add", "10.0.0.2", "-h", "x.weave.local");
    for (const name of ["x", "x.foo.bar", "X.Foo.Bar."]) assert.equal(await host.weave("dns-lookup", name), "10.0.0.1");
    assert.match(
      await host.sh("dig @127.0.0.1 -p 5353 +noall +answer x.foo.bar A"),
      /^x\.foo\.bar\.\s+30\s+IN\s+A\s+10\.0\.0\.1$/,
    );
    assert.equal(await host.weave("dns-args"), "--dns=127.0.0.1 --dns-search=Foo.bar.");
    await host.weave("stop");

    using _taken = host.spawn([
      "python3",
      "-c",
      "import socket,time; s=socket.socket(); s.bind(('127.0.0.1', 5353)); s.listen(); time.sleep(600)",
    ]);
    await waitFor("the port", async () => (await host.sh("ss -Htln sport = :5353")) !== "", 5_000);
    const refused = await host.attemptWeave("launch", "--dns-listen-address", "127.0.0.1:5353");
    assert.equal(refused.code, 1);
    assert.match(refused.stderr, /Cannot listen for DNS queries at 127\.0\.0\.1:5353/);
  },
);

testAsRoot("50 addresses of a name arrive, whatever a client takes", async () => {
  await using lab = new Lab();
  const host = await lab.host("a");
  await host.weave("launch");
  await host.weave("expose", "10.0.0.100/24");
  const addresses = Array.from({ length: 50 }, (_, i) => `10.0.1.${i}`);
  await host.weave("dns-add", ...addresses, "-h", "many.weave.local");
  for (const options of [[], ["+tcp"], ["+bufsize=700"], ["+noedns"]]) {
    const { answers } = await dig(host, "10.0.0.100", ...options, "many.weave.local", "A");
    assert.deepEqual([...answers].sort(), [...addresses].sort(), options.join());
  }
  const cut = await dig(host, "10.0.0.100", "+noedns", "+ignore", "many", "A");
  assert.ok(cut.flags.includes("tc") && cut.size <= 512);
  const sized = await dig(host, "10.0.0.100", "+bufsize=700", "+ignore", "many", "A");
  assert.ok(sized.flags.includes("tc") && sized.size <= 700 && sized.size > 600);
});

testAsRoot("a router survives floods, nonsense and connections that say nothing", async () => {
  await using lab = new Lab();
  const { a, b } = await pair(lab);
  await setResolvers(a, a.address(b), "192.0.2.1");
  await a.weave("launch", "--dns-listen-address", a.address(b));
  await b.weave("launch", a.address(b));
  await waitEstablished(a, [b]);
  await a.weave("expose", "10.0.0.100/24", "-h", "a.weave.local");
  const pid = await routerPid(a);
  const flood = (script: string) => b.spawn(["python3", "-c", `SERVER = "${a.address(b)}"\n${script}`]);
  const floods = [
    flood(NONSENSE),
    flood(FORWARDED),
    flood(SILENT_CONNECTIONS),
  ];
  try {
    await delay(3_000);
    for (let i = 0; i < 10; i++) {
      const { answers } = await dig(a, "10.0.0.100", "a.weave.local", "A");
      assert.deepEqual(answers, ["10.0.0.100"]);
    }
    assert.equal((await a.attemptWeave("status", "connections")).code, 0);
    await waitEstablished(a, [b]);
  } finally {
    for (const one of floods) one[Symbol.dispose]();
  }
  const { Counters: counters } = await dnsReport(a);
  for (const event of ["malformed", "ignored", "forwarded", "crowded", "refused"]) {
    assert.ok(counters[event]! > 0, `${event}: ${JSON.stringify(counters)}`);
  }
  assert.equal(await routerPid(a), pid);
  await waitFor("what waits to be over", async () => (await dnsReport(a)).Counters["pending"] === 0, 20_000, [a]);
  assert.ok(Number(await a.sh(`ls /proc/${pid}/fd | wc -l`)) < 200);
});

const NONSENSE = `
import os, random, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
loop = b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0\\xc0\\x0c\\0\\1\\0\\1"
big = loop[:2] + b"\\1\\0\\0\\1\\0\\0\\0\\0\\xff\\xff" + b"\\1a\\0\\0\\1\\0\\1" + os.urandom(1800)
while True:
    for i in range(50):
        for packet in (os.urandom(random.randrange(80)), loop, big, b"", loop[:11], b"\\0" * 3000, loop[:2] + b"\\x81" + loop[3:]):
            s.sendto(packet, (SERVER, 53))
    time.sleep(0.001)
`;

const FORWARDED = `
import random, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    for i in range(20):
        label = b"n%08d" % random.randrange(10**8)
        s.sendto(b"\\x12\\x34\\1\\0\\0\\1\\0\\0\\0\\0\\0\\0" + bytes([len(label)]) + label + b"\\7example\\3com\\0\\0\\1\\0\\1", (SERVER, 53))
    time.sleep(0.001)
`;

const SILENT_CONNECTIONS = `
import socket, time
held = []
while True:
    s = socket.create_connection((SERVER, 53))
    s.send(b"\\xff")
    held.append(s)
    if len(held) > 400: held.pop(0).close()
    time.sleep(0.005)
`;

async function pair(lab: Lab) {
  const { hosts, links } = await line(lab, 2);
  return { a: hosts[0]!, b: hosts[1]!, cable: links[0]! };
}

/** Makes a container, attaches it and gives it a name. */
async function named(host: EmulatedHost, name: string, address: string, fqdn: string) {
  const container = await host.container(name);
  await host.weave("attach", "--hostname", fqdn, address, container.reference);
  return container;
}

async function dnsReport(host: EmulatedHost): Promise<DnsReport> {
  return (JSON.parse(await host.weave("report")) as { DNS: DnsReport }).DNS;
}
