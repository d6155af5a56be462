import assert from "node:assert/strict";
import { SILENT } from "../lib/log.ts";
import { formatIpv4 } from "../lib/ip.ts";
import { type ContainerName, PluginContainers } from "./plugin_containers.ts";

const ID = "0123456789abcdef".repeat(4);
const ENDPOINT = "e".repeat(64);

Deno.test("PluginContainers names containers in networks of ours, as they start, change and end", async () => {
  await using engine = await Engine.start();
  const { containers, names } = pluginContainers();
  engine.containers.set(ID, container({ n1: ["10.32.0.1", ["web"]], other: ["172.17.0.2", ["x"]] }));
  containers.handleChanged(ID);
  await until(() => names.size === 3);
  assert.deepEqual([...names], [
    "10.32.0.1 c1.example.com",
    "10.32.0.1 c1.weave.local.",
    "10.32.0.1 web.weave.local.",
  ]);

  // It is taken out of one and put into another.
  engine.containers.set(ID, container({ n2: ["10.40.0.1", []] }));
  containers.handleChanged(ID);
  await until(() => !names.has("10.32.0.1 web.weave.local."));
  assert.deepEqual([...names], ["10.40.0.1 c1.example.com", "10.40.0.1 c1.weave.local."]);
  engine.asked.length = 0;
  containers.handlePresent(ID);
  await delay(30);
  assert.deepEqual(engine.asked, [], "it was looked at already");

  engine.containers.set(ID, container({}));
  containers.handleChanged(ID);
  await until(() => names.size === 0);

  // What ends while it is looked at gets none.
  engine.containers.set(ID, container({ n1: ["10.32.0.1", []] }));
  engine.delayMs = 50;
  containers.handleChanged(ID);
  await until(() => engine.asked.length > 1);
  containers.handleDied(ID);
  await delay(150);
  assert.equal(names.size, 0);
  engine.delayMs = 0;
  containers.handlePresent(ID);
  await until(() => names.size === 2);
  containers.stop();
});

Deno.test("PluginContainers names a container before it runs, and takes that back where it never does", async () => {
  await using engine = await Engine.start();
  const { containers, names } = pluginContainers();
  await containers.nameStarting("n1", ENDPOINT, 1_000);
  assert.deepEqual([...names], [], "Docker does not know the endpoint");
  engine.networks.set("n1", {
    Id: "n1",
    Name: "net",
    Containers: { [`ep-${ENDPOINT}`]: { Name: "c1", EndpointID: ENDPOINT, IPv4Address: "10.32.0.1/12" } },
  });
  await containers.nameStarting("n1", ENDPOINT, 1_000);
  assert.deepEqual([...names], [], "nor its container");
  engine.list = [{ Id: ID }];
  await containers.nameStarting("n1", ENDPOINT, 1_000);
  assert.deepEqual([...names], ["10.32.0.1 c1.weave.local."]);
  engine.kept(ID, {
    Config: { Hostname: "h1", Domainname: "weave.local" },
    NetworkSettings: { Networks: { net: { Aliases: ["web"] } } },
  });
  await containers.nameStarting("n1", ENDPOINT, 1_000);
  assert.deepEqual(
    names,
    new Set(["10.32.0.1 h1.weave.local", "10.32.0.1 c1.weave.local.", "10.32.0.1 web.weave.local."]),
  );
  containers.handleEndpointGone("f".repeat(64));
  assert.equal(names.size, 3);
  containers.handleEndpointGone(ENDPOINT);
  assert.equal(names.size, 0);

  // An engine that does not answer in time is not waited for.
  engine.delayMs = 500;
  const started = performance.now();
  await containers.nameStarting("n1", ENDPOINT, 50);
  assert.ok(performance.now() - started < 400);
  assert.equal(names.size, 0);
  await delay(600);
});

function pluginContainers() {
  const names = new Set<string>();
  const text = ({ hostname, address }: ContainerName) => `${formatIpv4(address)} ${hostname}`;
  const containers = new PluginContainers({
    bridge: "no-such-bridge",
    dns: {
      domain: "weave.local.",
      addNames: (id, added) => added.forEach((name) => id === ID && names.add(text(name))),
      removeName: (id, name) => void (id === ID && names.delete(text(name))),
    },
    isOurs: (network) => Promise.resolve(network.startsWith("n")),
    log: SILENT,
  });
  return { containers, names };
}

/** Its networks: address and aliases of each. */
function container(networks: Record<string, [address: string, aliases: string[]]>) {
  return {
    Id: ID,
    Name: "/c1",
    State: { Running: true, Pid: 0 },
    Config: { Hostname: "c1", Domainname: "example.com" },
    NetworkSettings: {
      Networks: Object.fromEntries(
        Object.entries(networks).map((
          [NetworkID, [IPAddress, Aliases]],
        ) => [NetworkID, { NetworkID, IPAddress, Aliases }]),
      ),
    },
  };
}

/** An engine as far as it is asked here. */
class Engine implements AsyncDisposable {
  readonly containers = new Map<string, unknown>();
  readonly networks = new Map<string, unknown>();
  readonly asked: string[] = [];
  list: unknown[] = [];
  delayMs = 0;
  readonly #server: Deno.HttpServer;
  readonly #before = Deno.env.get("DOCKER_HOST");

  private constructor(readonly folder: string) {
    const path = `${folder}/docker.sock`;
    Deno.env.set("DOCKER_HOST", `unix://${path}`);
    this.#server = Deno.serve({ path, onListen() {} }, async (request) => {
      const { pathname } = new URL(request.url);
      this.asked.push(pathname);
      await delay(this.delayMs);
      const [, id = ""] = /^\/(?:containers|networks)\/([^/]+)/.exec(pathname) ?? [];
      const found = pathname === "/info"
        ? { DockerRootDir: folder }
        : pathname === "/containers/json"
        ? this.list
        : this.containers.get(id) ?? this.networks.get(id);
      return found === undefined ? Response.json({ message: "no such thing" }, { status: 404 }) : Response.json(found);
    });
  }

  static async start(): Promise<Engine> {
    return new Engine(await Deno.makeTempDir({ prefix: "weave-engine-" }));
  }

  /** What it has on disk of a container. */
  kept(id: string, config: unknown): void {
    Deno.mkdirSync(`${this.folder}/containers/${id}`, { recursive: true });
    Deno.writeTextFileSync(`${this.folder}/containers/${id}/config.v2.json`, JSON.stringify(config));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#server.shutdown();
    if (this.#before === undefined) Deno.env.delete("DOCKER_HOST");
    else Deno.env.set("DOCKER_HOST", this.#before);
    await Deno.remove(this.folder, { recursive: true });
  }
}

async function until(ask: () => boolean): Promise<void> {
  for (let i = 0; i < 500; i++) {
    if (ask()) return;
    await delay(10);
  }
  assert.fail("waited in vain");
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
