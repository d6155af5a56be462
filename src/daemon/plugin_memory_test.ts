import assert from "node:assert/strict";
import { join } from "node:path";
import { OperationError } from "../lib/errors.ts";
import { parseIpv4 } from "../lib/ip.ts";
import { PluginMemory } from "./plugin_memory.ts";

Deno.test("PluginMemory remembers networks and addresses across restarts", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-plugin-" });
  try {
    const address = parseIpv4("10.32.0.1")!, other = parseIpv4("10.32.0.2")!;
    const memory = new PluginMemory(join(folder, "weave"));
    await memory.restore();
    await memory.learn({ id: "n1", multicast: true });
    await memory.learn({ id: "n2", multicast: false });
    await Promise.all([memory.hold(address), memory.hold(other)]);
    await memory.forget("n2");
    await memory.release(other);

    const again = new PluginMemory(join(folder, "weave"));
    await again.restore();
    assert.deepEqual(again.network("n1"), { id: "n1", multicast: true });
    assert.equal(again.network("n2"), undefined);
    assert.deepEqual(again.addresses, new Set([address]));

    for (const data of [{}, { networks: [{}], addresses: [] }, { networks: [], addresses: ["x"] }]) {
      await Deno.writeTextFile(join(folder, "weave-plugin.json"), JSON.stringify({ version: "1.0", data }));
      await assert.rejects(new PluginMemory(join(folder, "weave")).restore(), OperationError);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});
