/** What `launch` is told of Docker's networks: whether they may be ours, and where Docker asks for them. */
import { basename } from "node:path";
import { OptionError } from "../lib/errors.ts";
import { unusable } from "./option.ts";

export interface PluginOptions {
  /** Networks of a cluster; undefined: not served, like the next. */
  readonly driver: DriverSocket | undefined;
  /** Networks of this host, and addresses. */
  readonly meshDriver: DriverSocket | undefined;
  /** As a plugin that Docker manages: one driver for networks and addresses, and nothing is asked of Docker. */
  readonly v2: boolean;
  /** Multicast in all networks, of a managed plugin. */
  readonly v2Multicast: boolean;
}

export interface DriverSocket {
  /** By which Docker calls the driver: of its socket, without `.sock`. */
  readonly name: string;
  readonly path: string;
}

/** Where Docker looks for sockets of plugins. */
export const PLUGIN_FOLDER = "/run/docker/plugins";
export const PLUGIN_SOCKET = `${PLUGIN_FOLDER}/weave.sock`;
export const PLUGIN_MESH_SOCKET = `${PLUGIN_FOLDER}/weavemesh.sock`;

/** Values as `readOptions` gives them. */
export interface PluginValues {
  readonly plugin: boolean;
  readonly pluginSocket: string;
  readonly pluginMeshSocket: string;
  readonly pluginV2: boolean;
  readonly pluginV2Multicast: boolean;
}

/** undefined: `--plugin=false`. Throws `OptionError`. */
export function readPluginOptions(v: PluginValues): PluginOptions | undefined {
  // A managed plugin is switched on by itself, as in Weave Net.
  if (!v.plugin && !v.pluginV2) return undefined;
  const driver = readSocket("plugin-socket", v.pluginSocket);
  const meshDriver = v.pluginV2 ? undefined : readSocket("plugin-mesh-socket", v.pluginMeshSocket);
  if (v.pluginV2 && driver === undefined) {
    throw new OptionError("Cannot use --plugin-v2 without --plugin-socket", "plugin-v2");
  }
  if (driver !== undefined && driver.name === meshDriver?.name) {
    throw new OptionError(
      `Cannot use "${v.pluginMeshSocket}" as plugin-mesh-socket: its driver would be called as that of plugin-socket`,
      "plugin-mesh-socket",
    );
  }
  return { driver, meshDriver, v2: v.pluginV2, v2Multicast: v.pluginV2Multicast };
}

function readSocket(flag: string, path: string): DriverSocket | undefined {
  if (path === "") return undefined;
  const name = basename(path, ".sock");
  if (!path.startsWith("/") || !path.endsWith(".sock") || !/^[a-z0-9]([a-z0-9_.-]*[a-z0-9])?$/i.test(name)) {
    throw unusable(flag, path, `an absolute path expected such as ${PLUGIN_SOCKET}`);
  }
  return { name, path };
}
