import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import type { ApiAnswer, Route } from "../api/types.ts";
import type { IpamInit } from "../config/ipam_options.ts";
import { SYSTEM_CLOCK } from "../host/clock.ts";
import { Links } from "../host/links.ts";
import { formatCidr, parseCidr } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import type { Mac, PeerName } from "../lib/mac.ts";
import { SystemRandom } from "../lib/random.ts";
import { ensureBridge } from "../host/bridge.ts";
import { Ipam } from "./ipam.ts";
import { HOST, Plumbing } from "./plumbing.ts";

const OURS = 0x02aa_0000_0001 as PeerName;
const ALONE: IpamInit = { mode: "consensus", peers: 1 };

inOwnNamespace(import.meta.url, () => {
  Deno.test("Ipam serves addresses as Weave Net's API does", async () => {
    await using world = await World.start();
    const { ask } = world;
    assert.deepEqual(await ask("GET", "/ip"), {
      status: 200,
      body: '{"owned":null}\n',
      contentType: "application/json",
    });
    assert.deepEqual(await ask("GET", "/ip/c1"), { status: 200, body: "" });
    assert.deepEqual(await ask("GET", "/ring"), { status: 200 });
    assert.deepEqual(await ask("POST", "/ip/c1"), { status: 200, body: "10.32.0.1/24" });
    assert.deepEqual(await ask("POST", "/ip/c1"), { status: 200, body: "10.32.0.1/24" });
    assert.deepEqual(await ask("POST", "/ip/c1/10.32.0.128/25"), { status: 200, body: "10.32.0.129/25" });
    assert.deepEqual(await ask("GET", "/ip/c1"), { status: 200, body: "10.32.0.1/24 10.32.0.129/25" });
    assert.deepEqual(await ask("GET", "/ip/c1/10.32.0.128/25"), { status: 200, body: "10.32.0.129/25" });
    assert.deepEqual(await ask("PUT", "/ip/c2/10.32.0.7/24"), { status: 204 });
    assert.deepEqual(await ask("PUT", "/ip/c3/10.32.0.7/24"), {
      status: 400,
      body: "Unable to claim: address 10.32.0.7/24 is already owned by c2\n",
    });
    assert.deepEqual(await ask("POST", "/ip/_"), { status: 200, body: "10.32.0.2/24" });
    assert.deepEqual(JSON.parse((await ask("GET", "/ip")).body!), {
      owned: [
        { containerid: "c1", addrs: ["10.32.0.1/24", "10.32.0.129/25"] },
        { containerid: "c2", addrs: ["10.32.0.7/24"] },
        { containerid: "10.32.0.2", addrs: ["10.32.0.2/24"] },
      ],
    });
    assert.deepEqual(await ask("DELETE", "/ip/c1/10.32.0.1"), { status: 204 });
    assert.deepEqual(await ask("DELETE", "/ip/c1/10.32.0.1"), {
      status: 400,
      body: "Unable to free: Free: address 10.32.0.1 not found for c1\n",
    });
    assert.deepEqual(await ask("DELETE", "/ip/c1"), { status: 204 });
    assert.deepEqual(await ask("DELETE", "/ip/c1"), { status: 400, body: "Delete: no addresses for c1\n" });
    assert.deepEqual(await ask("DELETE", "/ip/10.32.0.2"), { status: 204 });
    assert.deepEqual(await ask("GET", "/ipinfo/defaultsubnet"), { status: 200, body: "10.32.0.0/24" });
    assert.deepEqual(await ask("GET", "/ipinfo/tracker"), { status: 200, body: "\n" });
  });

  Deno.test("Ipam refuses what is no subnet or no address", async () => {
    await using world = await World.start();
    const refusals: readonly [Route["method"], string, string][] = [
      ["POST", "/ip/c1/10.32.0.1/24", "invalid subnet - bits after network prefix are not all zero: 10.32.0.1/24"],
      ["GET", "/ip/c1/10.32.0.1/24", "invalid subnet - bits after network prefix are not all zero: 10.32.0.1/24"],
      ["POST", "/ip/c1/10.32.0.0/31", "invalid subnet - smaller than minimum size 4: 10.32.0.0/31"],
      ["POST", "/ip/c1/10.33.0.0/24", "range 10.33.0.0/24 out of bounds: 10.32.0.0/24"],
      ["POST", "/ip/c1/x/24", "invalid CIDR address: x/24"],
      ["PUT", "/ip/c1/10.32.0/24", "invalid CIDR address: 10.32.0/24"],
      ["DELETE", "/ip/c1/x", "invalid IP Address: x"],
    ];
    for (const [method, path, reason] of refusals) {
      assert.deepEqual(await world.ask(method, path), { status: 400, body: `${reason}\n` }, `${method} ${path}`);
    }
    const long = await world.ask("POST", `/ip/${"x".repeat(2000)}`);
    assert.equal(long.status, 400);
  });

  Deno.test("Ipam calls off what nobody waits for, and what a container that dies waited for", async () => {
    await using world = await World.start({ init: { mode: "consensus", peers: 3 } });
    const caller = new AbortController();
    const allocating = world.ask("POST", "/ip/c1", { signal: caller.signal });
    const dying = world.ask("PUT", "/ip/c2/10.32.0.9/24");
    const ready = world.ask("PUT", "/ip/c3/10.32.0.9/24", { parameters: { noErrorOnUnknown: "true" } });
    assert.deepEqual(await ready, { status: 204 });
    assert.deepEqual(world.ipam.report().PendingAllocates, ["c1 10.32.0.0/24"]);
    caller.abort();
    world.ipam.handleContainerDied("c2");
    assert.deepEqual(await allocating, { status: 200, body: "cancelled" });
    assert.deepEqual(await dying, { status: 200, body: "cancelled" });
    assert.deepEqual(world.ipam.report().PendingAllocates, []);
    const gone = new AbortController();
    gone.abort();
    assert.deepEqual(await world.ask("POST", "/ip/c1", { signal: gone.signal }), { status: 200, body: "cancelled" });
  });

  Deno.test("Ipam has the addresses of the bridge and of what is attached, and keeps nothing of what is gone", async () => {
    const folder = await Deno.makeTempDir();
    using links = new Links();
    const { created } = ensureBridge(links, { name: HOST.bridge, mac: OURS as number as Mac, mtu: 1376 });
    assert.ok(created);
    const { index } = links.find(HOST.bridge)!;
    links.addAddress(index, parseCidr("10.32.0.1/24")!);
    {
      await using world = await World.start({ folder });
      assert.equal((await world.ask("POST", "/ip/netns-4-1")).body, "10.32.0.2/24");
      assert.equal((await world.ask("POST", "/ip/cni")).body, "10.32.0.3/24");
    }
    await using world = await World.start({ folder });
    assert.deepEqual(JSON.parse((await world.ask("GET", "/ip")).body!).owned, [
      { containerid: "weave:expose", addrs: ["10.32.0.1/24"] },
      { containerid: "cni", addrs: ["10.32.0.3/24"] },
    ]);
    links.delete(index);
  });

  Deno.test("Ipam answers nobody while nothing can be stored, and says why", async () => {
    const folder = await Deno.makeTempDir();
    await using world = await World.start({ folder });
    assert.equal((await world.ask("POST", "/ip/c0")).body, "10.32.0.1/24");
    await Deno.rename(folder, `${folder}.away`);
    await Deno.writeTextFile(folder, "");
    const caller = new AbortController();
    const answer = world.ask("POST", "/ip/c1", { signal: caller.signal });
    const timer = new Promise((resolve) => setTimeout(() => resolve("waits"), 300));
    assert.equal(await Promise.race([answer, timer]), "waits");
    assert.match(world.ipam.report().Warnings[0]!, /^Nobody gets an address, as nothing can be stored: Cannot write/);
  });

  Deno.test("allocateStored() takes back what cannot be stored, and does not wait for it", async () => {
    const folder = await Deno.makeTempDir();
    await using world = await World.start({ folder });
    const { ipam } = world;
    const subnet = ipam.defaultSubnet;
    assert.equal(formatCidr(await ipam.allocateStored("weave:a", subnet)), "10.32.0.1/24");
    await Deno.rename(folder, `${folder}.away`);
    await Deno.writeTextFile(folder, "");
    const why = /^OperationError: Cannot write ".*ipam\.json": /;
    for (let i = 0; i < 2; i++) {
      const both = await Promise.allSettled([
        ipam.allocateStored("weave:b", subnet),
        ipam.allocateStored("weave:b", subnet),
      ]);
      for (const one of both) assert.match(String((one as PromiseRejectedResult).reason), why);
    }
    assert.deepEqual(ipam.report().PendingAllocates, []);
    await Deno.remove(folder);
    await Deno.rename(`${folder}.away`, folder);
    assert.equal(formatCidr(await ipam.allocateStored("weave:c", subnet)), "10.32.0.2/24");
    assert.deepEqual(JSON.parse((await world.ask("GET", "/ip")).body!).owned, [
      { containerid: "weave:a", addrs: ["10.32.0.1/24"] },
      { containerid: "weave:c", addrs: ["10.32.0.2/24"] },
    ]);
  });

  Deno.test("Ipam gives all away when it leaves, and serves no more", async () => {
    await using world = await World.start();
    await world.ask("POST", "/ip/c1");
    await world.ipam.leave();
    assert.deepEqual(await world.ask("POST", "/ip/c2"), { status: 200, body: "cancelled" });
    assert.equal(await world.ipam.removePeer("nobody"), 0);
  });
});

interface AskOptions {
  readonly parameters?: Record<string, string>;
  readonly signal?: AbortSignal;
}

/** Addresses without a mesh around them. */
class World implements AsyncDisposable {
  #running = false;

  private constructor(readonly ipam: Ipam) {}

  static async start(o: { folder?: string; init?: IpamInit } = {}): Promise<World> {
    const range = parseCidr("10.32.0.0/24")!;
    const folder = o.folder ?? await Deno.makeTempDir();
    const worlds: World[] = [];
    const ipam = await Ipam.start({
      options: { range, rangeGiven: true, defaultSubnet: range, init: o.init ?? ALONE, reclaimMs: undefined },
      statePrefix: `${folder}/weave`,
      ourName: OURS,
      ourUid: 7n,
      nickName: "host1",
      mesh: { peer: () => undefined, register: () => {}, sendBroadcast: () => {}, sendUnicast: () => false },
      targetCount: () => 0,
      run: (input) => worlds[0] === undefined ? input(SYSTEM_CLOCK.monotonicMs()) : worlds[0].#run(input),
      plumbing: new Plumbing(HOST),
      clock: SYSTEM_CLOCK,
      random: new SystemRandom(),
      log: SILENT,
    });
    const world = new World(ipam);
    worlds.push(world);
    world.#run(() => {});
    return world;
  }

  ask = async (method: Route["method"], path: string, o: AskOptions = {}): Promise<ApiAnswer> => {
    const parts = path.split("/");
    for (const route of this.ipam.routes()) {
      const pattern = route.path.split("/");
      if (route.method !== method || pattern.length !== parts.length) continue;
      if (!pattern.every((part, i) => part.startsWith("{") || part === parts[i])) continue;
      const named = pattern.flatMap((part, i) => part.startsWith("{") ? [[part.slice(1, -1), parts[i]!] as const] : []);
      return await route.handle({
        segments: Object.fromEntries(named),
        parameters: new URLSearchParams(o.parameters),
        wantsJson: false,
        signal: o.signal ?? new AbortController().signal,
      });
    }
    throw new Error(`No route for ${method} ${path}`);
  };

  /** As the control loop does it. */
  #run<T>(input: (now: number) => T): T {
    if (this.#running) return input(SYSTEM_CLOCK.monotonicMs());
    this.#running = true;
    try {
      const result = input(SYSTEM_CLOCK.monotonicMs());
      this.ipam.drain(SYSTEM_CLOCK.monotonicMs());
      return result;
    } finally {
      this.#running = false;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ipam.stop();
  }
}
