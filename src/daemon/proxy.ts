/**
 * The Docker API proxy: stands between Docker's clients and its engine, and puts the containers that they start into the network.
 *
 *     docker, compose, … ─▶ socket, TCP, TLS ─▶ ProxyConnection ─▶ engine
 *                                                 └─ ProxyCalls ─▶ ContainerAttacher ◀─ what happens to containers
 */
import type { TlsServer } from "../../ffi/tls.ts";
import type { ApiAnswer, Route } from "../api/types.ts";
import { listen } from "../api/listen.ts";
import { PROXY_SOCKET, type ProxyOptions } from "../config/proxy_options.ts";
import { SOCKET } from "../host/docker.ts";
import { connect } from "../host/docker_events.ts";
import { type Helper, installHelper } from "../host/helper.ts";
import { removeIfThere } from "../host/store.ts";
import { OperationError } from "../lib/errors.ts";
import { formatIpv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { ContainerAttacher } from "./container_attacher.ts";
import type { Dns } from "./dns.ts";
import type { Ipam } from "./ipam.ts";
import { ProxyCalls } from "./proxy_calls.ts";
import { ProxyConnection } from "./proxy_connection.ts";
import type { Duplex } from "./proxy_streams.ts";
import { serverTls } from "./proxy_tls.ts";
import { routerBook } from "./router_book.ts";
import type { ProxyReport } from "./status.ts";
import { TlsConnection } from "./tls_connection.ts";

export interface ProxyServiceOptions {
  readonly options: ProxyOptions;
  /** undefined: nobody allocates addresses. */
  readonly ipam: Ipam | undefined;
  /** undefined: there is no DNS. */
  readonly dns: Dns | undefined;
  readonly log: Logger;
}

/** Each has two descriptors; Docker's clients keep a few open each. */
const MAX_CONNECTIONS = 1024;
/** How often to look for room. */
const ROOM_MS = 20;
/** After a failure to accept, for want of descriptors say. */
const ACCEPT_PAUSE_MS = 100;
const FOLDER_MODE = 0o755;
/** Where there is no engine's socket to be like. */
const SOCKET_MODE = 0o600;

export class DockerProxy {
  readonly #o: ProxyServiceOptions;
  readonly #attacher: ContainerAttacher;
  readonly #calls: ProxyCalls;
  readonly #listeners: Deno.Listener[] = [];
  readonly #connections = new Set<ProxyConnection>();
  /** Links to the socket. */
  readonly #links: string[] = [];
  #hasSocket = false;
  /** Of TCP listeners. */
  #tls: TlsServer | undefined;
  /** Connections that are not yet known to be from somebody. */
  #securing = 0;
  #stopped = false;

  private constructor(o: ProxyServiceOptions, helper: Helper | undefined) {
    const { options: settings, ipam, dns, log } = o;
    const server = () => {
      const address = dns?.address;
      if (dns === undefined || address === undefined) return undefined;
      return { address: formatIpv4(address), domain: dns.domain.replace(/\.$/, "") };
    };
    this.#o = o;
    this.#attacher = new ContainerAttacher({
      settings,
      book: (signal) => routerBook(ipam, dns, signal),
      hostGateway: () => server()?.address,
      log,
    });
    this.#calls = new ProxyCalls({ settings, attacher: this.#attacher, helper, dns: server, log });
  }

  static async start(o: ProxyServiceOptions): Promise<DockerProxy> {
    return new DockerProxy(o, await findHelper(o));
  }

  /** Begins to serve. Rejects with `OperationError`. */
  async listen(): Promise<void> {
    const endpoints = this.#o.options.listen;
    const tcp = endpoints.flatMap(({ address }) => address.transport === "tcp" ? [address] : []);
    if (tcp.length > 0) this.#tls = await serverTls(this.#o.options, this.#o.log);
    for (const address of tcp) void this.#accept(listen(address, PURPOSE).listener, this.#tls);
    const paths = endpoints.flatMap(({ address }) => address.transport === "unix" ? [address.path] : []);
    if (paths.length === 0) return;
    await Deno.mkdir(FOLDER, { recursive: true });
    await Deno.chmod(FOLDER, FOLDER_MODE);
    void this.#accept(listen({ transport: "unix", path: PROXY_SOCKET }, PURPOSE).listener);
    this.#hasSocket = true;
    await likeEngineSocket(PROXY_SOCKET);
    for (const path of paths) if (path !== PROXY_SOCKET) await this.#link(path);
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#attacher.stop();
    for (const listener of this.#listeners) listener.close();
    for (const connection of this.#connections) connection.close();
    for (const path of this.#links) await removeIfThere(path).catch(() => {});
    this.#tls?.[Symbol.dispose]();
  }

  // What happens to containers

  handleContainersRunning(ids: ReadonlySet<string>): void {
    void this.#attacher.handleRunning(ids);
    // The engine may have come after us.
    if (this.#hasSocket) void likeEngineSocket(PROXY_SOCKET);
  }

  handleContainerStarted(id: string): void {
    this.#attacher.handleStarted(id);
  }

  handleContainerDied(id: string): void {
    this.#attacher.handleDied(id);
  }

  routes(): readonly Route[] {
    const answer: ApiAnswer = { status: 200, body: this.#addresses.map((text) => `${text}\n`).join("") };
    return [{ method: "GET", path: "/proxyaddrs", handle: () => answer }];
  }

  report(): ProxyReport {
    return { Addresses: this.#addresses };
  }

  get #addresses(): readonly string[] {
    return this.#o.options.listen.map(({ text }) => text);
  }

  /** A path that the user chose, which leads to the one socket. */
  async #link(path: string): Promise<void> {
    try {
      const there = await Deno.lstat(path).catch(() => undefined);
      // What a router left that ended at once; anything else is not ours to remove.
      if (there?.isSymlink === true && await Deno.readLink(path) === PROXY_SOCKET) await Deno.remove(path);
      await Deno.symlink(PROXY_SOCKET, path);
      this.#links.push(path);
    } catch (error) {
      throw new OperationError(`Cannot make "${path}" for ${PURPOSE}: ${(error as Error).message}`, 1, {
        cause: error,
      });
    }
  }

  async #accept(listener: Deno.Listener, tls?: TlsServer): Promise<void> {
    this.#listeners.push(listener);
    while (!this.#stopped) {
      try {
        const connection = await listener.accept();
        if (tls === undefined) this.#serve(connection);
        else void this.#secure(connection, tls);
        await this.#room();
      } catch (error) {
        if (this.#stopped) return;
        this.#o.log.warn("docker client not accepted", { error: String(error) });
        await delay(ACCEPT_PAUSE_MS);
      }
    }
  }

  /** Who does not prove who he is in time is nobody. */
  async #secure(connection: Deno.Conn, tls: TlsServer): Promise<void> {
    this.#securing++;
    try {
      this.#serve(await TlsConnection.accept(connection, tls));
    } catch (error) {
      this.#o.log.info("docker client refused", { reason: (error as Error).message });
    } finally {
      this.#securing--;
    }
  }

  #serve(client: Duplex): void {
    if (this.#stopped) return client.close();
    const connection = new ProxyConnection({
      client,
      connectEngine: connect,
      plan: (request) => this.#calls.plan(request),
    });
    this.#connections.add(connection);
    void connection.serve().then(() => this.#connections.delete(connection));
  }

  /** Waits until another connection may be accepted: the one that has been without a request for longest goes. */
  async #room(): Promise<void> {
    while (this.#connections.size + this.#securing >= MAX_CONNECTIONS && !this.#stopped) {
      [...this.#connections].find((connection) => connection.idle)?.close();
      await delay(ROOM_MS);
    }
  }
}

/** Containers are attached without it as well, and nothing else of a router depends on it. */
async function findHelper({ options, log }: ProxyServiceOptions): Promise<Helper | undefined> {
  let reason = "this weave was built without a C compiler";
  try {
    const helper = await installHelper({ multicastRoute: !options.noMulticastRoute });
    if (helper !== undefined) return helper;
  } catch (error) {
    reason = (error as Error).message;
  }
  log.warn("containers do not wait for their network", { reason });
  return undefined;
}

const PURPOSE = "the Docker proxy";
const FOLDER = PROXY_SOCKET.slice(0, PROXY_SOCKET.lastIndexOf("/"));

/** Who may talk to the engine may talk to us. */
async function likeEngineSocket(path: string): Promise<void> {
  const engine = /^unix:\/\/(.*)$/.exec(Deno.env.get("DOCKER_HOST") || `unix://${SOCKET}`)?.[1];
  const like = engine === undefined ? undefined : await Deno.stat(engine).catch(() => undefined);
  try {
    if (like !== undefined) await Deno.chown(path, like.uid, like.gid);
    await Deno.chmod(path, like?.mode == null ? SOCKET_MODE : like.mode & 0o777);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error; // the router ends
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
