import assert from "node:assert/strict";
import Docker from "dockerode";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid } from "../netns/mesh.ts";
import { delay, waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { attemptProxied, call, descriptors, proxied, PROXY, PROXY_PATH, spawnProxied } from "./proxy_client.ts";

const GIGABYTE = 1 << 30;
/** What the router may need more of while a gigabyte passes through it. */
const MEMORY_KIB = 100 << 10;

testAsRoot("whatever docker says passes through the proxy as it is, in both directions", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const shell = (script: string) => host.sh(script, { env: { ...engine.env, DOCKER_HOST: PROXY }, timeoutMs: 120_000 });
  await shell(`docker run -d --name one ${IMAGE} sleep 10000`);

  // Streams with two halves.
  const lines = "a\\nb\\nc\\n";
  assert.equal(await shell(`printf '${lines}' | docker run --rm -i ${IMAGE} cat`), "a\nb\nc");
  assert.equal(await shell(`printf '${lines}' | docker exec -i one cat`), "a\nb\nc");
  await shell(
    `docker run -d -i --name two ${IMAGE} sh -c 'read x; echo heard $x; read x; echo heard $x; sleep 1'`,
  );
  assert.equal(await shell(`(printf '${lines}'; sleep 2) | docker attach two`), "heard a\nheard b");
  assert.equal(await shell(`docker run --rm ${IMAGE} sh -c 'echo out; echo err >&2' 2>/dev/null`), "out");
  assert.equal(await shell(`docker run --rm ${IMAGE} sh -c 'echo out; echo err >&2' 2>&1 >/dev/null`), "err");

  // Files in and out, and an image made of them.
  await shell(
    "head -c 20000000 /dev/urandom > /run/data; docker cp /run/data one:/data; docker cp one:/data /run/back; cmp /run/data /run/back",
  );
  await shell("docker exec one cat /data | cmp - /run/data");
  await shell(`mkdir /run/build; cp /run/data /run/build/; cd /run/build
printf 'FROM ${IMAGE}\\nCOPY data /data\\nRUN cat /data > /copy\\nCMD cat /copy\\n' > Dockerfile
DOCKER_BUILDKIT=0 docker build -q -t built .; docker run --rm built | cmp - /run/data`);
  await shell(
    "docker save built > /run/image.tar; docker rmi built >/dev/null; docker load -q -i /run/image.tar; docker inspect built >/dev/null",
  );
  await shell("docker export one | tar -x -O data | cmp - /run/data");

  // What comes bit by bit comes when it is said.
  using events = spawnProxied(engine, "events", "--format", "{{.Type}} {{.Action}} {{.Actor.Attributes.name}}");
  using log = spawnProxied(engine, "run", "--name", "slow", IMAGE, "sh", "-c", "echo first; sleep 3; echo second");
  await waitFor("the first line", () => log.stdout === "first\n", 2_500);
  using follow = spawnProxied(engine, "logs", "-f", "slow");
  await waitFor("the log so far", () => follow.stdout === "first\n", 2_000);
  await waitFor("the end of it", () => follow.ended, 10_000);
  assert.equal(follow.stdout, "first\nsecond\n");
  await waitFor("events", () => /^container start slow\n[^]*^container die slow$/m.test(events.stdout), 5_000);

  // Large answers in large chunks.
  await shell(`docker run -d --name much -e "A=${"a".repeat(100_000)}" ${IMAGE} sleep 10000`);
  for (const path of ["/containers/much/json", "/v1.24/containers/json?all=1", "/info", "/images/json", "/_ping"]) {
    const stable = (text: string) => text.replace(/"(SystemTime|NFd|NGoroutines|Status)":[^,}]*/g, "");
    const [through, direct] = [await call(engine, "GET", path), await call(engine, "GET", path, { socket: ENGINE })];
    assert.equal(through.status, direct.status);
    assert.equal(stable(through.body), stable(direct.body), path);
  }
});

const ENGINE = "/var/run/docker.sock";

testAsRoot("a gigabyte passes through the proxy, and little of it stays", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await proxied(engine, "run", "-d", "--name", "one", IMAGE, "sleep", "10000");
  const pid = await routerPid(host);
  const before = await peakKib(host, pid);
  await host.sh(`head -c ${GIGABYTE} /dev/zero > /run/big`);
  const started = performance.now();
  await host.exec(["docker", "-H", PROXY, "cp", "/run/big", "one:/big"], { env: engine.env, timeoutMs: 120_000 });
  const seconds = (performance.now() - started) / 1000;
  const more = await peakKib(host, pid) - before;
  console.log(`a gigabyte in ${seconds.toFixed(1)} s, ${more} KiB more at most`);
  assert.ok(more < MEMORY_KIB, `${more} KiB more`);
  assert.match(await proxied(engine, "exec", "one", "ls", "-l", "/big"), new RegExp(` ${GIGABYTE} `));
});

testAsRoot("a client that disappears leaves nothing running in the proxy", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  await proxied(engine, "run", "-d", "--name", "one", IMAGE, "sleep", "10000");
  await proxied(engine, "run", "-d", "-i", "--name", "two", IMAGE, "cat");
  const pid = await routerPid(host);
  const before = await descriptors(engine, pid);
  const commands: readonly string[][] = [
    ["logs", "-f", "one"],
    ["events"],
    ["wait", "one"],
    ["stats", "one"],
    ["attach", "--no-stdin", "--sig-proxy=false", "one"],
    ["attach", "two"],
    ["exec", "-i", "one", "sleep", "10000"],
    ["exec", "one", "sh", "-c", "while sleep 0.1; do echo x; done"],
    ["export", "one"],
  ];
  const clients = commands.flatMap((command) => [spawnProxied(engine, ...command), spawnProxied(engine, ...command)]);
  await delay(1_500);
  assert.ok(await descriptors(engine, pid) > before);
  for (const client of clients) client.signal("SIGKILL");
  await waitFor("their connections to be gone", async () => await descriptors(engine, pid) <= before, 15_000, [host]);
  // Such as talk by hand, and stop in the middle.
  const halves = [
    "",
    "POST /containers/create HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{",
    "GET /containers/one/lo",
  ];
  for (const half of halves) {
    await host.attempt(["sh", "-c", `printf '${half.replaceAll("\r\n", "\\r\\n")}' | timeout 1 nc -U ${PROXY_PATH}`]);
  }
  await waitFor("these as well", async () => await descriptors(engine, pid) <= before, 15_000, [host]);
  assert.equal(await routerPid(host), pid);
});

testAsRoot("an engine that goes in the middle of a call is said to have gone, and the next one is found", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  await host.weave("launch");
  const pid = await routerPid(host);
  await proxied(engine, "run", "-d", "--name", "one", IMAGE, "sleep", "10000");
  using waiting = spawnProxied(engine, "wait", "one");
  using log = spawnProxied(engine, "logs", "-f", "one");
  await delay(1_000);
  await engine.stop("SIGKILL");
  await waitFor("the clients to end", () => waiting.ended && log.ended, 5_000, [host]);
  const { code, stderr } = await attemptProxied(engine, "ps");
  assert.notEqual(code, 0);
  assert.match(stderr, /Could not connect to target: /);
  await engine.startAgain();
  assert.match(await proxied(engine, "run", "--rm", IMAGE, "ip", "address", "show", "ethwe"), /10\.32/);
  assert.equal(await routerPid(host), pid);
});

/** Another kind of client, which keeps its connections and reads every field. */
testAsRoot("dockerode sees the same through the proxy as directly", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using _engine = await DockerEngine.start(host);
  await host.weave("launch", "--no-default-ipalloc");
  // deno-lint-ignore no-explicit-any -- it brings no types of its own
  const Client = Docker as any;
  // In the host's own folders, where /var/run is a link.
  const at = (path: string) => new Client({ socketPath: `/proc/${host.pid}/root${path.replace("/var", "")}` });
  const [direct, through] = [at(ENGINE), at(PROXY_PATH)];
  const work = async (docker: typeof direct, name: string) => {
    const created = await docker.createContainer({
      Image: IMAGE,
      name,
      Cmd: ["sh", "-c", "echo hello; sleep 1000"],
      HostConfig: { MemorySwap: -1, Memory: 64 << 20, Ulimits: [{ Name: "nofile", Soft: 1024, Hard: 2048 }] },
    });
    // Without what the runtime's HTTP client cannot: to change the protocol.
    const stream = await created.attach({ stream: true, stdout: true });
    let heard = "";
    stream.on("data", (octets: Uint8Array) => heard += new TextDecoder().decode(octets));
    await created.start();
    await waitFor("its words", () => heard.includes("hello"), 5_000);
    const exec = await created.exec({ Cmd: ["sh", "-c", "exit 3"], AttachStdout: true });
    const running = await exec.start({});
    await new Promise((resolve) => running.on("end", resolve).resume());
    const facts = await created.inspect();
    const executed = await exec.inspect();
    const list = await docker.listContainers({ filters: { name: [name] } });
    const tar = await created.getArchive({ path: "/bin/sh" });
    let size = 0;
    for await (const octets of tar) size += octets.length;
    await created.kill();
    const ended = await created.wait();
    await created.remove();
    const gone = await created.inspect().catch((error: { statusCode: number }) => error.statusCode);
    return {
      facts: comparable(facts, name),
      executed: comparable(executed, name),
      list: comparable(list, name),
      size,
      ended,
      gone,
      version: comparable(await docker.version(), name),
    };
  };
  const [a, b] = [await work(direct, "direct"), await work(through, "through")];
  assert.deepEqual(b, a);
});

/** Without what two containers differ in: ids, times, addresses, names. */
function comparable(value: unknown, name: string): unknown {
  const text = JSON.stringify(value)
    .replaceAll(name, "NAME")
    .replace(/"\d{4}-\d\d-\d\dT[^"]*"/g, '"TIME"')
    .replace(/[0-9a-f]{12,64}/g, "ID")
    .replace(/(?:[0-9a-f]{2}:){5}[0-9a-f]{2}/g, "MAC")
    .replace(/172\.17\.\d+\.\d+/g, "IP")
    .replace(/"(Pid|Created)":\d+/g, '"$1":0')
    .replace(/"Status":"Up [^"]*"/g, '"Status":"Up"');
  return JSON.parse(text);
}

async function peakKib(host: EmulatedHost, pid: number): Promise<number> {
  return Number((await host.sh(`grep VmHWM /proc/${pid}/status`)).match(/\d+/)![0]);
}
