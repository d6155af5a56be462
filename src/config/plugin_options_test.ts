import assert from "node:assert/strict";
import { OptionError } from "../lib/errors.ts";
import { PLUGIN_MESH_SOCKET, PLUGIN_SOCKET, type PluginValues, readPluginOptions } from "./plugin_options.ts";

const USUAL: PluginValues = {
  plugin: true,
  pluginSocket: PLUGIN_SOCKET,
  pluginMeshSocket: PLUGIN_MESH_SOCKET,
  pluginV2: false,
  pluginV2Multicast: false,
};

Deno.test("readPluginOptions() names drivers by their sockets, and leaves out what has none", () => {
  assert.deepEqual(readPluginOptions(USUAL), {
    driver: { name: "weave", path: PLUGIN_SOCKET },
    meshDriver: { name: "weavemesh", path: PLUGIN_MESH_SOCKET },
    v2: false,
    v2Multicast: false,
  });
  assert.equal(readPluginOptions({ ...USUAL, plugin: false }), undefined);
  assert.equal(readPluginOptions({ ...USUAL, pluginSocket: "" })?.driver, undefined);
  assert.equal(readPluginOptions({ ...USUAL, pluginMeshSocket: "/run/x/other.sock" })?.meshDriver?.name, "other");
  const managed = readPluginOptions({ ...USUAL, plugin: false, pluginV2: true });
  assert.deepEqual([managed?.driver?.name, managed?.meshDriver], ["weave", undefined]);
});

Deno.test("readPluginOptions() refuses sockets that Docker would not find", () => {
  const wrong: Partial<PluginValues>[] = [
    { pluginSocket: "weave.sock" },
    { pluginSocket: "/run/docker/plugins/weave" },
    { pluginSocket: "/run/docker/plugins/.sock" },
    { pluginMeshSocket: "/tmp/weave.sock" },
    { pluginV2: true, pluginSocket: "" },
  ];
  for (const values of wrong) assert.throws(() => readPluginOptions({ ...USUAL, ...values }), OptionError);
});
