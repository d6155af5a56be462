/** How the proxy comes to speak TLS on its TCP listeners. */
import { join } from "node:path";
import { TlsServer } from "../../ffi/tls.ts";
import type { ProxyOptions, TlsFiles } from "../config/proxy_options.ts";
import { askEngine } from "../host/docker_api.ts";
import { detectEngineTls } from "../host/docker_tls.ts";
import { removeIfThere } from "../host/store.ts";
import { OperationError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";
import { HOST } from "./host_paths.ts";

/** As it was told, else as the engine does it. @returns undefined: in clear. Rejects with `OperationError`. */
export async function serverTls(
  { tls, detectTls }: Pick<ProxyOptions, "tls" | "detectTls">,
  log: Logger,
): Promise<TlsServer | undefined> {
  const files = tls ?? (detectTls ? await detected(log) : undefined);
  if (files === undefined) return undefined;
  if (tls !== undefined) await speakToEngine(tls);
  try {
    return new TlsServer({ ...files, clientCa: files.verify ? files.ca : undefined });
  } catch (error) {
    throw new OperationError(`${(error as Error).message}; see --tlscacert, --tlscert and --tlskey`, 1, {
      cause: error,
    });
  }
}

async function detected(log: Logger): Promise<TlsFiles | undefined> {
  try {
    return await detectEngineTls();
  } catch (error) {
    log.warn("cannot find out how Docker uses TLS", { reason: (error as Error).message });
    return undefined;
  }
}

/**
 * Who is told to speak TLS speaks it with an engine beyond a network as well, unless the environment says how already. Changes this
 * process's environment: all that asks the engine looks there.
 */
async function speakToEngine({ ca, cert, key }: TlsFiles): Promise<void> {
  const host = Deno.env.get("DOCKER_HOST") ?? "";
  if (!host.startsWith("tcp://")) return;
  if (!Deno.env.get("DOCKER_TLS_VERIFY")) {
    if (ca === undefined) throw new OperationError(`Cannot know the Docker engine at ${host}: --tlscacert is missing`);
    const folder = join(HOST.runDir, "engine-tls");
    await Deno.mkdir(folder, { recursive: true });
    for (const [name, path] of Object.entries({ "ca.pem": ca, "cert.pem": cert, "key.pem": key })) {
      await removeIfThere(join(folder, name));
      await Deno.symlink(path, join(folder, name));
    }
    Deno.env.set("DOCKER_TLS_VERIFY", "1");
    Deno.env.set("DOCKER_CERT_PATH", folder);
  }
  try {
    await askEngine({ path: "/version" });
  } catch (error) {
    throw new OperationError(`Cannot speak TLS with the Docker engine at ${host}: ${(error as Error).message}`, 1, {
      cause: error,
    });
  }
}
