import assert from "node:assert/strict";
import { SILENT } from "../lib/log.ts";
import { ContainerWatch } from "./docker_events.ts";

const A = "a".repeat(64);
const B = "b".repeat(64);

Deno.test("ContainerWatch tells what runs, then what happens, and starts over when the engine is back", async () => {
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/docker.sock`;
  const before = Deno.env.get("DOCKER_HOST");
  Deno.env.set("DOCKER_HOST", `unix://${socket}`);
  const told: string[] = [];
  const name = (id: string) => id[0]!;
  const watch = new ContainerWatch({
    log: SILENT,
    listener: {
      running: (ids) => void told.push(`running ${[...ids].map(name)}`),
      started: (id) => void told.push(`started ${name(id)}`),
      died: (id) => void told.push(`died ${name(id)}`),
      destroyed: (id) => void told.push(`destroyed ${name(id)}`),
      networksChanged: (id) => void told.push(`networks ${name(id)}`),
    },
  });
  try {
    await delay(50);
    assert.deepEqual(told, [], "there is no engine yet");
    {
      await using engine = new Engine(socket, [A]);
      await until(() => told.length === 1);
      assert.deepEqual(told, ["running a"]);
      engine.emit("start", B);
      engine.emit("die", A);
      engine.write('{"Action":"die"');
      await delay(20);
      engine.write(`,"Actor":{"ID":"${B}"}}\nnonsense\n{"Action":"die","Actor":{"ID":"short"}}\n`);
      engine.emit("health_status: healthy", A);
      engine.emit("destroy", B);
      const attributes = { name: "mine", container: A };
      engine.write(
        JSON.stringify({ Type: "network", Action: "connect", Actor: { ID: B, Attributes: attributes } }) + "\n",
      );
      engine.write(JSON.stringify({ Type: "network", Action: "disconnect", Actor: { ID: B } }) + "\n");
      await until(() => told.length === 6);
      assert.deepEqual(told.splice(0), ["running a", "started b", "died a", "died b", "destroyed b", "networks a"]);
    }
    await delay(20);
    await using _engine = new Engine(socket, [B]);
    await until(() => told.length > 0);
    assert.deepEqual(told, ["running b"]);
  } finally {
    watch.stop();
    await delay(50);
    if (before === undefined) Deno.env.delete("DOCKER_HOST");
    else Deno.env.set("DOCKER_HOST", before);
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("ContainerWatch tells what is present now and then, with what happened while it asked", async () => {
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/docker.sock`;
  const before = Deno.env.get("DOCKER_HOST");
  Deno.env.set("DOCKER_HOST", `unix://${socket}`);
  const told: string[] = [];
  await using engine = new Engine(socket, [A]);
  const watch = new ContainerWatch({
    log: SILENT,
    presentEveryMs: 100,
    listener: {
      running() {},
      present: (ids) => void told.push([...ids].map((id) => id[0]!).sort().join("")),
      started() {},
      died() {},
      destroyed() {},
    },
  });
  try {
    await until(() => told.length > 0);
    assert.equal(told[0], "a");
    // The list of then is answered now.
    engine.whileListing = async () => {
      engine.emit("start", B);
      engine.emit("die", A);
      await delay(50);
    };
    const count = told.length;
    await until(() => told.slice(count).includes("b"));
  } finally {
    watch.stop();
    await delay(50);
    if (before === undefined) Deno.env.delete("DOCKER_HOST");
    else Deno.env.set("DOCKER_HOST", before);
    await Deno.remove(directory, { recursive: true });
  }
});

class Engine implements AsyncDisposable {
  readonly #server: Deno.HttpServer;
  readonly #path: string;
  #events: ReadableStreamDefaultController<Uint8Array> | undefined;
  whileListing: (() => Promise<void>) | undefined;

  constructor(path: string, ids: readonly string[]) {
    this.#path = path;
    this.#server = Deno.serve({ path, onListen() {} }, async (request) => {
      const url = new URL(request.url);
      if (url.pathname.endsWith("/containers/json")) {
        await this.whileListing?.();
        return Response.json(ids.map((Id) => ({ Id })));
      }
      assert.ok(url.pathname.endsWith("/events"));
      assert.deepEqual(JSON.parse(url.searchParams.get("filters")!), {
        type: ["container", "network"],
        event: ["start", "die", "destroy", "connect", "disconnect"],
      });
      return new Response(
        new ReadableStream<Uint8Array>({
          start: (controller) => {
            this.#events = controller;
            controller.enqueue(new TextEncoder().encode("\n"));
          },
          cancel: () => this.#events = undefined,
        }),
      );
    });
  }

  emit(action: string, id: string): void {
    this.write(JSON.stringify({ Type: "container", Action: action, Actor: { ID: id } }) + "\n");
  }

  write(text: string): void {
    this.#events!.enqueue(new TextEncoder().encode(text));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#events?.close();
    await this.#server.shutdown();
    await Deno.remove(this.#path).catch(() => {});
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
