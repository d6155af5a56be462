import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import type { ApiAnswer, Route } from "../api/types.ts";
import { SYSTEM_CLOCK } from "../host/clock.ts";
import { Links } from "../host/links.ts";
import { ControlSockets } from "../host/sockets.ts";
import { parseEndpoint } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import { SystemRandom } from "../lib/random.ts";
import { Dns } from "./dns.ts";
import { queryAddresses } from "./dns_query.ts";
import { HOST, Plumbing } from "./plumbing.ts";

const OURS = 0x02aa_0000_0001 as PeerName;
const AT = parseEndpoint("127.0.0.1:5353")!;

inOwnNamespace(import.meta.url, () => {
  Deno.test("Dns serves what the API registers, and tells the mesh", async () => {
    await using world = await World.start();
    assert.deepEqual(await world.ask("GET", "/domain"), { status: 200, body: "weave.local." });
    assert.deepEqual(await world.ask("GET", "/dns-address"), { status: 200, body: "127.0.0.1" });
    assert.deepEqual(await world.ask("GET", "/dns-address-port"), { status: 200, body: "127.0.0.1:5353" });
    assert.deepEqual(await world.ask("PUT", "/name/c1/10.0.0.1", { fqdn: "web.weave.local" }), { status: 204 });
    assert.deepEqual(await world.ask("PUT", "/name/c1/10.0.0.2", { fqdn: "web.example.com" }), { status: 204 });
    assert.equal((await world.ask("PUT", "/name/c1/10.0.0", { fqdn: "web.weave.local" })).status, 400);
    assert.equal((await world.ask("PUT", "/record/c1", { fqdn: "web.weave.local", record: "MX 1 x." })).status, 400);
    assert.deepEqual(await world.ask("PUT", "/record/c1", { fqdn: "web.weave.local", record: "TXT x" }), {
      status: 204,
    });
    assert.deepEqual(world.broadcasts, ["nameserver", "weave-name-records"]);
    assert.deepEqual(await queryAddresses(AT, "web"), ["10.0.0.1"]);
    assert.deepEqual(await world.ask("GET", "/name/web"), { status: 200, body: "10.0.0.1\n" });
    assert.deepEqual(await queryAddresses(AT, "nope"), []);
    const { status, body } = await world.ask("GET", "/name", {}, true);
    assert.equal(status, 200);
    assert.deepEqual(JSON.parse(body!), [{
      ContainerID: "c1",
      Origin: OURS,
      Addr: "10.0.0.1",
      Hostname: "web.weave.local.",
      Version: 0,
      Tombstone: 0,
    }]);
    assert.equal((await world.ask("GET", "/name")).status, 404);
    const report = world.dns.report();
    assert.deepEqual(report.Listening, ["127.0.0.1:5353"]);
    assert.deepEqual([report.Entries.length, report.Records[0]?.Record], [1, "TXT x"]);
    assert.equal(report.Counters["local"], 2);
  });

  Deno.test("Dns removes by name, container and address, and what a container had when it died", async () => {
    await using world = await World.start();
    const put = (id: string, ip: string, name: string) =>
      world.ask("PUT", `/name/${id}/${ip}`, { fqdn: `${name}.weave.local` });
    await put("c1", "10.0.0.1", "a");
    await put("c1", "10.0.0.1", "b");
    await put("c1", "10.0.0.2", "a");
    await put("c2", "10.0.0.3", "a");
    const live = () =>
      world.dns.report().Entries.filter(({ Tombstone }) => Tombstone === 0)
        .map(({ Hostname, ContainerID, Address }) => `${Hostname.split(".")[0]} ${ContainerID} ${Address}`).sort();
    await world.ask("DELETE", "/name/c1/10.0.0.1", { fqdn: "b.weave.local" });
    assert.deepEqual(live(), ["a c1 10.0.0.1", "a c1 10.0.0.2", "a c2 10.0.0.3"]);
    await world.ask("DELETE", "/name/c1/10.0.0.1");
    assert.deepEqual(live(), ["a c1 10.0.0.2", "a c2 10.0.0.3"]);
    world.dns.handleContainerDied("c2");
    assert.deepEqual(live(), ["a c1 10.0.0.2"]);
    assert.equal((await world.ask("DELETE", "/name/c1/nonsense")).status, 400);
    await world.ask("DELETE", "/name/c1");
    assert.deepEqual(live(), []);
    await put("c1", "10.0.0.1", "a");
    await world.ask("DELETE", "/name");
    assert.deepEqual(live(), []);
  });

  Deno.test("Dns remembers names over a restart, but not those whose owner is gone", async () => {
    const folder = await Deno.makeTempDir();
    const docker = "d".repeat(64);
    {
      await using world = await World.start(folder);
      await world.ask("PUT", "/name/weave:extern/192.0.2.7", { fqdn: "outside.weave.local" });
      await world.ask("PUT", "/name/weave:expose/10.0.0.100", { fqdn: "host.weave.local" });
      await world.ask("PUT", "/name/netns-4-1/10.0.0.1", { fqdn: "gone.weave.local" });
      await world.ask("PUT", `/name/${docker}/10.0.0.2`, { fqdn: "docker.weave.local" });
      await world.ask("PUT", "/record/weave:extern", { fqdn: "outside.weave.local", record: "TXT x" });
    }
    await using world = await World.start(folder);
    const names = world.dns.report().Entries.map(({ Hostname }) => Hostname);
    assert.deepEqual(names, ["outside.weave.local."]);
    assert.equal(world.dns.report().Records.length, 1);
    const stored = JSON.parse(await Deno.readTextFile(`${folder}/weave-names.json`)) as {
      data: { hostname: string }[];
    };
    assert.ok(stored.data.some(({ hostname }) => hostname === "docker.weave.local."), "Docker could not be asked yet");
  });

  Deno.test("Dns starts with a names file that makes no sense", async () => {
    const folder = await Deno.makeTempDir();
    await Deno.writeTextFile(`${folder}/weave-names.json`, '{"version":"1.0","data":[{"hostname":7}]}');
    await using world = await World.start(folder);
    await world.ask("PUT", "/name/c1/10.0.0.1", { fqdn: "web.weave.local" });
    assert.deepEqual(await queryAddresses(AT, "web"), ["10.0.0.1"]);
  });

  Deno.test("Dns listens where the host is exposed, as addresses come and go", async () => {
    await using world = await World.start();
    const ip = (...args: string[]) => new Deno.Command("ip", { args }).output();
    await ip("link", "add", "weave", "type", "bridge");
    await ip("link", "set", "weave", "up");
    await ip("address", "add", "10.0.0.100/24", "dev", "weave");
    await until(() => world.dns.report().Listening.includes("10.0.0.100:53"));
    await world.ask("PUT", "/name/c1/10.0.0.1", { fqdn: "web.weave.local" });
    assert.deepEqual(await queryAddresses(parseEndpoint("10.0.0.100:53")!, "web"), ["10.0.0.1"]);
    await ip("address", "del", "10.0.0.100/24", "dev", "weave");
    await until(() => world.dns.report().Listening.length === 1);
    // Somebody else has the port.
    let taken: Deno.TcpListener | undefined;
    await until(() => {
      try {
        taken = Deno.listen({ hostname: "0.0.0.0", port: 53 });
      } catch (error) {
        // What was asked over TCP a moment ago may still be on its way out.
        if (!(error instanceof Deno.errors.AddrInUse)) throw error;
      }
      return taken !== undefined;
    });
    await ip("address", "add", "10.0.0.101/24", "dev", "weave");
    await until(() => world.dns.report().Warnings.length === 1);
    assert.match(world.dns.report().Warnings[0]!, /^Cannot listen for DNS queries at 10\.0\.0\.101:53: /);
    taken!.close();
    await ip("address", "add", "10.0.1.1/24", "dev", "weave");
    await until(() => world.dns.report().Listening.length === 3);
    assert.deepEqual(world.dns.report().Warnings, []);
    await ip("link", "del", "weave");
  });

  Deno.test("Dns does not start where the address it was told cannot be had", async () => {
    const taken = Deno.listen({ hostname: "127.0.0.1", port: 5353 });
    await assert.rejects(World.start(), {
      name: "OperationError",
      message: /^Cannot listen for DNS queries at 127\.0\.0\.1:5353: /,
    });
    taken.close();
  });
});

class World implements AsyncDisposable {
  readonly broadcasts: string[] = [];
  readonly #links = new Links();
  readonly #sockets = new ControlSockets();
  #dns: Dns | undefined;

  static async start(folder?: string): Promise<World> {
    const world = new World();
    try {
      await world.#start(folder ?? await Deno.makeTempDir());
      return world;
    } catch (error) {
      await world[Symbol.asyncDispose]();
      throw error;
    }
  }

  get dns(): Dns {
    return this.#dns!;
  }

  async #start(folder: string): Promise<void> {
    const mesh = {
      peer: (name: PeerName) => name === OURS ? OUR_RECORD : undefined,
      peers: () => [OUR_RECORD],
      register() {},
      sendBroadcast: (channel: string) => void this.broadcasts.push(channel),
      sendGossip() {},
    };
    const run = <T>(input: (now: number) => T) => {
      const result = input(SYSTEM_CLOCK.monotonicMs());
      this.#dns?.drain(SYSTEM_CLOCK.monotonicMs());
      return result;
    };
    this.#dns = await Dns.start({
      options: {
        dbPrefix: `${folder}/weave`,
        dnsDomain: "weave.local.",
        dnsTtl: 1,
        dnsFallbackTimeoutMs: 1000,
        dnsGraceMs: 60_000,
        dnsListenAddress: AT,
        dockerBridge: "docker0",
        dockerBridgeIp: undefined,
        ipam: undefined,
        resolvConf: "",
      },
      ourName: OURS,
      ourUid: 1n,
      mesh,
      run,
      sockets: this.#sockets,
      plumbing: new Plumbing(HOST),
      links: this.#links,
      clock: SYSTEM_CLOCK,
      random: new SystemRandom(),
      log: SILENT,
    });
  }

  async ask(
    method: Route["method"],
    path: string,
    parameters: Record<string, string> = {},
    wantsJson = false,
  ): Promise<ApiAnswer> {
    const given = path.split("/");
    for (const route of this.dns.routes()) {
      const pattern = route.path.split("/");
      if (route.method !== method || pattern.length !== given.length) continue;
      if (!pattern.every((part, i) => part.startsWith("{") || part === given[i])) continue;
      const segments = Object.fromEntries(
        pattern.flatMap((part, i) => part.startsWith("{") ? [[part.slice(1, -1), given[i]!]] : []),
      );
      const { signal } = new AbortController();
      return await route.handle({ segments, parameters: new URLSearchParams(parameters), wantsJson, signal });
    }
    throw new Error(`No route for ${method} ${path}`);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#dns?.stop();
    await this.#sockets.stop();
    this.#links[Symbol.dispose]();
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
}

const OUR_RECORD = {
  name: OURS,
  nickName: "a",
  uid: 1n,
  version: 1n,
  shortId: 1,
  connections: [] as { peer: typeof NO_PEER; address: string; outbound: boolean; established: boolean }[],
};

async function until(ask: () => boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (ask()) return;
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail("waited in vain");
}
