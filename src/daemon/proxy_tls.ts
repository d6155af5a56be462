/** How the proxy comes to speak TLS on its TCP listeners. */
import { TlsServer } from "../../ffi/tls.ts";
import type { ProxyOptions, TlsFiles } from "../config/proxy_options.ts";
import { detectEngineTls } from "../host/docker_tls.ts";
import { OperationError } from "../lib/errors.ts";
import type { Logger } from "../lib/log.ts";

/** As it was told, else as the engine does it. @returns undefined: in clear. Rejects with `OperationError`. */
export async function serverTls(
  { tls, detectTls }: Pick<ProxyOptions, "tls" | "detectTls">,
  log: Logger,
): Promise<TlsServer | undefined> {
  const files = tls ?? (detectTls ? await detected(log) : undefined);
  if (files === undefined) return undefined;
  if (tls !== undefined) await checkEngine(tls);
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

const ENGINE_PORT = 2376;

/** Who is told to speak TLS speaks it with an engine beyond a network as well. */
async function checkEngine({ ca, cert, key }: TlsFiles): Promise<void> {
  const host = Deno.env.get("DOCKER_HOST") ?? "";
  const [, hostname, port] = /^tcp:\/\/([^/:]+)(?::(\d+))?/.exec(host) ?? [];
  if (hostname === undefined) return;
  try {
    const read = (path: string) => Deno.readTextFile(path);
    using connection = await Deno.connectTls({
      hostname,
      port: Number(port ?? ENGINE_PORT),
      caCerts: ca === undefined ? [] : [await read(ca)],
      cert: await read(cert),
      key: await read(key),
    });
    await connection.handshake();
  } catch (error) {
    throw new OperationError(`Cannot speak TLS with the Docker engine at ${host}: ${(error as Error).message}`, 1, {
      cause: error,
    });
  }
}
