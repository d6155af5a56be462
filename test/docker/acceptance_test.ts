/** What people who come from Weave Net rely on, with containers of Docker's started by hand. */
import assert from "node:assert/strict";
import { dig, setResolvers, startResolver, waitName } from "../netns/dns.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

const SERVER = "172.17.0.1";
const RANGE = ["--ipalloc-range", "10.40.0.0/16", "--ipalloc-default-subnet", "10.40.0.0/24"];

testAsRoot("containers of two hosts reach each other whatever their addresses come from, and keep them", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch", ...RANGE);
  await host2.weave("launch", ...RANGE, host1.address());
  await waitEstablished(host1, [host2]);
  const ways: [string[], string[]][] = [
    [["10.2.1.4/24"], ["10.2.1.7/24"]],
    [["ip:10.2.2.4/24"], ["ip:10.2.2.7/24"]],
    [[], []],
    [["net:default"], ["net:default"]],
    [["net:10.40.128.0/24"], ["net:10.40.128.0/24"]],
  ];
  for (const [i, [near, far]] of ways.entries()) {
    await start(engine1, `a${i}`);
    await start(engine2, `b${i}`);
    await host1.weave("attach", ...near, `a${i}`);
    const address = await host2.weave("attach", ...far, `b${i}`);
    await waitFor(`${address} for ${near}`, () => pings(engine1, `a${i}`, address), 5_000, lab.hosts);
  }
  assert.match(
    await host1.sh("curl -sf 127.0.0.1:6784/metrics"),
    /^weave_connections\{[^}]*state="established"[^}]*\} 1$/m,
  );
  // As much as a page or two, both ways.
  const text = "0123456789abcdef".repeat(8192);
  await engine2.host.sh(`docker exec -d b0 sh -c 'nc -l -p 80 -e cat'`, { env: engine2.env });
  const echoed = await host1.exec(["docker", "exec", "-i", "a0", "nc", "-w", "5", "10.2.1.7", "80"], {
    env: engine1.env,
    input: text,
  });
  assert.equal(echoed.stdout, text);

  // Restarted and attached anew it has the address that it had, once, and for good.
  const address = (await host1.weave("ps", "a2")).match(/ ([\d.]+)\/24$/)![1]!;
  await engine1.docker("restart", "-t", "0", "a2");
  assert.equal(await host1.weave("attach", "a2"), address);
  const entries = (await host1.weave("status", "dns")).split("\n").filter((line) => / a2 |^a2 /.test(line));
  assert.equal(entries.length, 1, entries.join("\n"));
  await delay(36_000);
  await start(engine1, "late");
  assert.notEqual(await host1.weave("attach", "late"), address);

  // An address that goes to another container is reached at once, also by who has talked to the former one.
  assert.ok(await pings(engine1, "a0", "10.2.1.7"));
  await engine2.docker("rm", "-f", "b0");
  await start(engine2, "b9");
  await host2.weave("attach", "10.2.1.7/24", "b9");
  assert.ok(await pings(engine1, "a0", "10.2.1.7"), "with an ARP entry that is not right any more");
});

testAsRoot("several addresses are attached, named, exposed and given back together", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch", ...RANGE);
  const id = await start(engine, "c1");
  const tokens = ["10.2.1.1/24", "net:default", "net:10.40.2.0/24", "ip:10.2.2.1/24"];
  const printed = (await host.weave("attach", ...tokens, "c1")).split(" ");
  assert.equal(printed.length, 4);
  assert.deepEqual([printed[0], printed[3]], ["10.2.1.1", "10.2.2.1"]);
  const lines = ["10.2.1.1/24", `${printed[1]}/24`, `${printed[2]}/24`, "10.2.2.1/24"];
  assert.deepEqual((await host.weave("ps", "c1")).split(" ").slice(2).sort(), [...lines].sort());
  assert.deepEqual((await host.weave("dns-lookup", "c1")).split("\n").sort(), [...printed].sort());
  assert.deepEqual(
    (await host.weave("attach", ...tokens, "c1")).split(" "),
    printed,
    "doing it twice is doing it once",
  );
  assert.equal(await host.weave("detach", "10.2.1.1/24", "net:10.40.2.0/24", "c1"), `10.2.1.1 ${printed[2]}`);
  assert.deepEqual((await host.weave("dns-lookup", "c1")).split("\n").sort(), [printed[1]!, "10.2.2.1"].sort());
  await start(engine, "c2");
  assert.equal(await host.weave("attach", "net:10.40.2.0/24", "c2"), printed[2], "it is free again");

  const exposed = (await host.weave("expose", "10.2.1.100/24", "net:default", "-h", "here.weave.local")).split(" ");
  assert.equal(exposed[0], "10.2.1.100");
  assert.match(await host.weave("ps", "weave:expose"), new RegExp(`10\\.2\\.1\\.100/24.*${exposed[1]}/24`));
  assert.deepEqual((await host.weave("dns-lookup", "here")).split("\n").sort(), [...exposed].sort());
  assert.equal(await host.weave("hide", "10.2.1.100/24", "net:default"), exposed.join(" "));
  assert.equal(await host.weave("dns-lookup", "here"), "");
  await engine.docker("rm", "-f", "c1");
  await waitFor("all to be free", async () => !(await host.sh("curl -sf 127.0.0.1:6784/ip")).includes(id), 5_000, [
    host,
  ]);
  for (const args of [["attach", "10.2.1.1/33", "c2"], ["attach", "net:10.2.1.0/24", "nobody"]]) {
    assert.equal((await host.attemptWeave(...args)).code, 1, args.join(" "));
  }
});

testAsRoot("names are found whatever is asked, in containers that were started with what dns-args says", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("--local", "reset");
  await host.weave("--local", "launch", ...RANGE);
  const args = (await host.weave("--local", "dns-args")).split(" ");
  await start(engine, "c1", ...args, "--add-host", "given:192.0.2.9");
  const sub = await start(engine, "c2", ...args, "--hostname=c2.sub.weave.local", "--dns-search=sub.weave.local");
  const one = await host.weave("--local", "attach", "c1");
  const two = await host.weave("--local", "attach", "c2");
  assert.equal((await host.weave("--local", "ps")).split("\n").length, 3);
  for (const name of ["c1", "c1.weave.local", "C1.Weave.Local"]) {
    assert.equal(await lookup(engine, "c1", name), one, name);
  }
  assert.equal(await lookup(engine, "c1", "c2.sub.weave.local"), two);
  assert.equal(await lookup(engine, "c2", "c2"), two, "by its own search list");
  assert.deepEqual((await dig(host, SERVER, "-x", two)).answers, ["c2.sub.weave.local."]);
  assert.equal((await dig(host, SERVER, "c1.weave.local", "MX")).status, "NOERROR");
  assert.equal((await dig(host, SERVER, "nobody.weave.local", "A")).status, "NXDOMAIN");
  assert.match(await engine.docker("exec", "c1", "cat", "/etc/hosts"), /^192\.0\.2\.9\s+given$/m);
  const own = await host.weave("expose", "-h", "host.weave.local");
  assert.equal(await lookup(engine, "c1", "host"), own);
  await host.weave("expose", "-h", "again.weave.local");
  assert.equal(await lookup(engine, "c1", "again"), own);

  // What somebody had before is nobody's name now.
  await engine.docker("rm", "-f", sub);
  await waitName(host, SERVER, "c2.sub.weave.local", [], 5_000, [host]);
  await start(engine, "c3", ...args);
  await host.weave("attach", `${two}/24`, "c3");
  assert.deepEqual((await dig(host, SERVER, "-x", two)).answers, ["c3.weave.local."]);

  // Through the proxy, whose containers look up by themselves, and may say otherwise.
  const proxy = await host.weave("config");
  const run = (...words: string[]) => engine.docker(proxy, "run", "-d", ...words, IMAGE, "sleep", "10000");
  await run("--name", "p1", "-h", "p1.sub.weave.local");
  await run("--name", "p2", "--dns-search", "sub.weave.local");
  await run("--name", "p3");
  const address = async (name: string) => (await host.weave("ps", name)).match(/ ([\d.]+)\/24$/)![1]!;
  assert.equal(await lookup(engine, "p2", "p1"), await address("p1"), "by the search list that was given");
  assert.equal(await lookup(engine, "p3", "p2"), await address("p2"));
  assert.equal(await lookup(engine, "p3", "p1.sub.weave.local"), await address("p1"));
});

testAsRoot(
  "weave launch --no-dns leaves names to others, and another range takes the place of the former one",
  async () => {
    await using lab = new Lab({ env: await dockerEnvironment() });
    const host = await lab.host("host1");
    await using engine = await DockerEngine.start(host);
    await using _resolver = await startResolver(host, SERVER, ["address=/www.example.com/192.0.2.80"]);
    await setResolvers(host, SERVER);
    await host.weave("launch", ...RANGE, "--no-dns");
    assert.equal(await host.weave("dns-args"), "");
    await start(engine, "c1");
    assert.match(await host.weave("attach", "c1"), /^10\.40\.0\./);
    assert.equal(await lookup(engine, "c1", "www.example.com"), "192.0.2.80");
    await host.weave("stop");
    await engine.docker("rm", "-f", "c1");
    await host.weave("launch", "--no-dns", "--ipalloc-range", "10.138.0.0/16");
    await start(engine, "c2");
    assert.match(await host.weave("attach", "c2"), /^10\.138\./);
  },
);

testAsRoot("a name of a container that went while its router was away does not come back from far", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2, host3] = [await lab.host("host1"), await lab.host("host2"), await lab.host("host3")];
  await lab.link(host1, host2);
  const far = await lab.link(host2, host3);
  await using engine = await DockerEngine.start(host1);
  await host2.weave("launch", ...RANGE);
  await host1.weave("launch", ...RANGE, host2.address(host1));
  await host3.weave("launch", ...RANGE, host2.address(host3));
  await waitEstablished(host2, [host1, host3]);
  await host1.weave("run", "--name", "gone", IMAGE, "sleep", "1000");
  await host1.weave("run", "--name", "stays", IMAGE, "sleep", "1000");
  const names = (host: typeof host3) => host.weave("status", "dns");
  await waitFor("both names far away", async () => /gone[^]*stays/.test(await names(host3)), 5_000, lab.hosts);
  await far.cut();
  const router = await routerPid(host1);
  await host1.sh(`kill -9 $(cut -d' ' -f4 /proc/${router}/stat) ${router}`);
  await engine.docker("rm", "-f", "gone");
  await host1.weave("launch", ...RANGE, host2.address(host1));
  await waitFor("the name to go", async () => !/^gone /m.test(await names(host2)), 15_000, [host1, host2]);
  assert.match(await names(host3), /^gone /m);
  await far.heal();
  await waitFor("the name to go far away", async () => !/^gone /m.test(await names(host3)), 60_000, lab.hosts);
  for (const host of lab.hosts) assert.match(await names(host), /^stays /m);
  await delay(5_000);
  for (const host of lab.hosts) assert.doesNotMatch(await names(host), /^gone /m, host.name);
});

/** Its hostname is its name in the network, unless the options say another. */
async function start(engine: DockerEngine, name: string, ...options: string[]): Promise<string> {
  return await engine.docker(
    ...["run", "-d", "--name", name, `--hostname=${name}.weave.local`],
    ...[...options, IMAGE, "sleep", "10000"],
  );
}

async function pings(engine: DockerEngine, container: string, address: string): Promise<boolean> {
  return await engine.succeeds(container, "ping", "-c", "1", "-W", "2", address);
}

/** The addresses that a container is told for a name; empty for none. */
async function lookup(engine: DockerEngine, container: string, name: string): Promise<string> {
  const { stdout } = await engine.host.attempt(["docker", "exec", container, "nslookup", "-type=a", name], {
    env: engine.env,
  });
  const [, answer = ""] = /\n\n([^]*)/.exec(stdout) ?? [];
  return [...answer.matchAll(/^Address(?: \d+)?: ([\d.]+)/gm)].map(([, address]) => address!).join(" ");
}
