import assert from "node:assert/strict";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { routerPid, waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";

/** With `--long`, as many as a busy host has. */
const LONG = Deno.env.get("WEAVE_SOAK_SECONDS") !== undefined;
const AT_ONCE = LONG ? 50 : 10;
const CYCLES = LONG ? 500 : 20;
const TIMED = LONG ? 40 : 12;

const RANGE = ["--ipalloc-range", "10.40.0.0/16"];
const SERVER = "172.17.0.1";
/** How long a container that died may keep what it had: the addresses, until it is certain that it does not come back. */
const FREE_WITHIN_MS = 60_000;

testAsRoot(
  `${AT_ONCE} containers at once in each way find and reach each other when their process starts`,
  async () => {
    await using pair = await Pair.start();
    const { host1, host2, engine1, engine2 } = pair;
    const target = await host2.weave("run", "--name", "target", IMAGE, "sleep", "10000");
    const address = (await host2.weave("ps", target)).split(" ").at(-1)!.replace(/\/.*/, "");
    // What each asks at its very start: its own name, that of another host's container, and whether that answers.
    const ask = (name: string) =>
      `nslookup ${name}.weave.local ${SERVER} && nslookup target.weave.local ${SERVER} && ` +
      `ping -c 1 -W 2 ${address} && echo all is well; sleep 10000`;
    const kinds = {
      proxy: (name: string) => [pair.proxy, "run", "-d", "--name", name, IMAGE, "sh", "-c", ask(name)],
      net: (name: string) => ["run", "-d", "--net=weave", "--name", name, IMAGE, "sh", "-c", ask(name)],
    };
    for (const [kind, args] of Object.entries(kinds)) {
      const names = Array.from({ length: AT_ONCE }, (_, i) => `${kind}${i}`);
      const started = performance.now();
      await Promise.all(names.map((name, i) => dockerPatiently(i % 2 === 0 ? engine1 : engine2, ...args(name))));
      console.log(`${AT_ONCE} through ${kind}: ${Math.round((performance.now() - started) / AT_ONCE)} ms each`);
      for (const [i, name] of names.entries()) {
        const engine = i % 2 === 0 ? engine1 : engine2;
        await waitFor(
          `${name} to say that all is well`,
          async () => {
            const said = await engine.host.sh(`docker logs ${name} 2>&1`, { env: engine.env });
            if (!said.includes("all is well")) throw new Error(`it says ${said}`);
            return true;
          },
          10_000,
          [host1, host2],
        );
      }
    }
    const { Entries } = JSON.parse(await host1.weave("report")).DNS;
    assert.equal(Entries.filter(({ Tombstone }: { Tombstone: number }) => Tombstone === 0).length, 2 * AT_ONCE + 1);
  },
);

testAsRoot(`${CYCLES} times start and stop in each way leave nothing behind`, async () => {
  await using pair = await Pair.start();
  const { host1, engine1 } = pair;
  const cycle = async (i: number) => {
    await Promise.all([
      engine1.docker(pair.proxy, "run", "--rm", "--name", `proxy${i}`, IMAGE, "ip", "address", "show", "ethwe"),
      engine1.docker("run", "--rm", "--net=weave", "--name", `net${i}`, IMAGE, "ip", "address", "show", "ethwe0"),
    ]);
  };
  // What is made once, and then kept.
  for (let i = 0; i < 5; i++) await cycle(i);
  const settled = async () => JSON.stringify(await remains(host1));
  let last = "";
  await waitFor("what remains to settle", async () => last === (last = await settled()), FREE_WITHIN_MS, [host1]);
  const before = await remains(host1);
  const memory = await residentKb(host1);
  for (let i = 0; i < CYCLES; i++) await cycle(i);
  await waitFor(
    "nothing to remain",
    async () => {
      assert.deepEqual(await remains(host1), before);
      return true;
    },
    FREE_WITHIN_MS,
    [host1],
  );
  const grown = await residentKb(host1) - memory;
  console.log(`after ${2 * CYCLES} containers the router has ${grown} KiB more than before`);
  if (LONG) assert.ok(grown < 40_000, `${grown} KiB`);
});

for (const victims of [["router"], ["engine"], ["router", "engine"]] as const) {
  testAsRoot(
    `after kill -9 of ${victims.join(" and ")} everything that runs is there, and nothing else is`,
    async () => {
      await using pair = await Pair.start();
      const { host1, host2, engine1, engine2 } = pair;
      await host2.weave("run", "--name", "other", "--restart=always", IMAGE, "sleep", "10000");
      for (let i = 0; i < 3; i++) {
        const options = ["-d", "--restart=always", "--name"];
        await engine1.docker(pair.proxy, "run", ...options, `proxy${i}`, IMAGE, "sleep", "10000");
        await engine1.docker("run", "--net=weave", ...options, `net${i}`, IMAGE, "sleep", "10000");
      }
      let stop = false;
      const cycling = (async () => {
        for (let i = 0; !stop; i++) {
          const args = ["run", "--rm", IMAGE, "ls", "/bin"];
          await engine1.docker(...i % 2 === 0 ? [pair.proxy, ...args] : ["run", "--net=weave", ...args.slice(1)]).catch(
            () => {},
          );
        }
      })();
      try {
        for (let i = 0; i < (LONG ? 10 : 2); i++) {
          await new Promise((resolve) => setTimeout(resolve, 1_500));
          const pid = await routerPid(host1);
          const router: boolean = (victims as readonly string[]).includes("router");
          if (router) await host1.sh(`kill -9 ${pid}`);
          if ((victims as readonly string[]).includes("engine")) {
            await engine1.stop("SIGKILL");
            await engine1.startAgain();
          }
          if (router) await waitFor("another router", async () => await routerPid(host1) !== pid, 90_000);
        }
      } finally {
        stop = true;
        await cycling;
      }
      await waitEstablished(host1, [host2], 60_000);
      await waitFor("everything to be as it should be", () => isWhole(engine1, host1, engine2), FREE_WITHIN_MS, [
        host1,
      ]);
    },
  );
}

testAsRoot("what docker run takes longer for the network is printed", async () => {
  await using pair = await Pair.start();
  const { engine1: engine } = pair;
  const ways: Record<string, string[]> = {
    plain: ["run", "--rm", IMAGE, "ls", "/bin"],
    proxy: [pair.proxy, "run", "--rm", IMAGE, "ls", "/bin"],
    plugin: ["run", "--rm", "--net=weave", IMAGE, "ls", "/bin"],
  };
  const took: Record<string, number[]> = { plain: [], proxy: [], plugin: [] };
  for (let i = 0; i < TIMED; i++) {
    for (const [way, args] of Object.entries(ways)) {
      const started = performance.now();
      await engine.docker(...args);
      if (i > 1) took[way]!.push(performance.now() - started);
    }
  }
  const median = (times: number[]) => times.sort((a, b) => a - b)[Math.floor(times.length / 2)]!;
  const plain = median(took["plain"]!);
  for (const [way, times] of Object.entries(took)) {
    const added = way === "plain" ? "" : `, ${Math.round(median(times) - plain)} ms more`;
    console.log(`docker run, ${way}: ${Math.round(median(times))} ms (median of ${times.length})${added}`);
  }
});

/** Two hosts with an engine and a router each. */
class Pair implements AsyncDisposable {
  readonly #owned: AsyncDisposableStack;

  private constructor(
    readonly host1: EmulatedHost,
    readonly host2: EmulatedHost,
    readonly engine1: DockerEngine,
    readonly engine2: DockerEngine,
    readonly proxy: string,
    owned: AsyncDisposableStack,
  ) {
    this.#owned = owned;
  }

  static async start(): Promise<Pair> {
    await using owned = new AsyncDisposableStack();
    const lab = owned.use(new Lab({ env: await dockerEnvironment() }));
    const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
    await lab.link(host1, host2);
    const engine1 = owned.use(await DockerEngine.start(host1));
    const engine2 = owned.use(await DockerEngine.start(host2));
    await host1.weave("launch", ...RANGE);
    await host2.weave("launch", ...RANGE, host1.address());
    await waitEstablished(host1, [host2]);
    return new Pair(host1, host2, engine1, engine2, await host1.weave("config"), owned.move());
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#owned.disposeAsync();
  }
}

/** Many at once take their time on a small machine. */
async function dockerPatiently(engine: DockerEngine, ...args: string[]): Promise<void> {
  await engine.host.exec(["docker", ...args], { env: engine.env, timeoutMs: 300_000 });
}

/** All that containers could leave behind. */
async function remains(host: EmulatedHost) {
  const pid = await routerPid(host);
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return {
    links: await host.sh("ip -o link | grep -c vethwe || true"),
    rules: await host.sh("iptables-save | grep -c '^-A'"),
    addresses: (owned ?? []).map(({ containerid, addrs }: { containerid: string; addrs: string[] }) =>
      `${containerid} ${addrs}`
    ).sort(),
    names: await host.weave("status", "dns"),
    attached: await host.weave("ps"),
    descriptors: await host.sh(`ls /proc/${pid}/fd | wc -l`),
    zombies: await host.sh("ps -eo stat,comm --no-headers | grep '^Z' || true"),
    files: await host.sh("find /run/weave /var/lib/weave -type f | sort"),
  };
}

async function residentKb(host: EmulatedHost): Promise<number> {
  const pid = await routerPid(host);
  return Number(await host.sh(`awk '/^VmRSS/ { print $2 }' /proc/${pid}/status`));
}

/** Each container that runs is attached, named and within reach; nobody else holds an address. Throws where something is missing. */
async function isWhole(engine: DockerEngine, host: EmulatedHost, other: DockerEngine): Promise<boolean> {
  const lines = (await engine.docker("ps", "--no-trunc", "--format", "{{.ID}} {{.Names}}")).split("\n");
  const running = lines.map((line) => line.split(" ") as [string, string]);
  assert.equal(running.length, 6, lines.join(", "));
  const attached = new Map(
    (await host.weave("ps")).split("\n").slice(1).map((line) => {
      const [id, , cidr] = line.split(" ");
      return [id!, cidr] as const;
    }),
  );
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  const held = new Set<string>(
    (owned ?? []).flatMap(({ addrs }: { addrs: string[] }) => addrs.map((cidr) => cidr.replace(/\/.*/, ""))),
  );
  for (const [id, name] of running) {
    const address = attached.get(id.slice(0, 12))?.replace(/\/.*/, "");
    assert.ok(address, `${name} is not attached`);
    assert.deepEqual((await host.weave("dns-lookup", name)).split("\n"), [address], name);
    assert.ok(await other.succeeds("other", "ping", "-c", "1", "-W", "2", address), `${name} at ${address}`);
    assert.ok(held.delete(address), `nobody holds ${address} of ${name}`);
  }
  assert.deepEqual([...held], [], "held by nobody who runs");
  assert.equal(await host.sh("ps -eo stat,comm --no-headers | grep '^Z' || true"), "");
  return true;
}
