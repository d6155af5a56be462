/**
 * The router: every core and every shell, put together. Starts from the machine upwards and stops the other way round; what it leaves
 * in the kernel on purpose (bridge, TAP, rules, addresses) is adopted by the next one.
 *
 *     identity → bridge, TAP, packet filter → sockets, packet thread → mesh → listening → API → marked as running
 */
import { Buffer } from "node:buffer";
import { openControlBoxes } from "../../ffi/control_boxes.ts";
import { SysError } from "../../ffi/errno.ts";
import { EventFd } from "../../ffi/eventfd.ts";
import { openTap, type Tap } from "../../ffi/tap.ts";
import { openUdpPair } from "../../ffi/udp.ts";
import { serveApi } from "../api/routes.ts";
import type { ConnectResult, Route, RouterControl } from "../api/types.ts";
import type { RouterOptions } from "../config/options.ts";
import { NO_PROXY } from "../config/proxy_options.ts";
import { VERSION } from "../config/version.ts";
import { BridgeWatch, overlayMtu } from "../host/bridge.ts";
import { fineWallClock, SYSTEM_CLOCK } from "../host/clock.ts";
import { ContainerWatch } from "../host/docker_events.ts";
import { Links } from "../host/links.ts";
import { ControlSockets } from "../host/sockets.ts";
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr } from "../lib/ip.ts";
import { type Logger, makeLogger } from "../lib/log.ts";
import { formatMac } from "../lib/mac.ts";
import { SystemRandom } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import { Mesh } from "../mesh/mesh.ts";
import { Carriers } from "./carriers.ts";
import { ControlLoop } from "./control_loop.ts";
import { Datapath } from "./datapath.ts";
import { Dns } from "./dns.ts";
import { expose } from "./expose.ts";
import { type HostStart, type HostStartOptions, startHost } from "./host_start.ts";
import { HostWatch } from "./host_watch.ts";
import { findPeerName } from "./identity.ts";
import { Ipam } from "./ipam.ts";
import { NO_ALLOCATION } from "./no_allocation.ts";
import { DockerPlugin } from "./plugin.ts";
import { type Attachment, HOST, Plumbing } from "./plumbing.ts";
import { avoidOwnProxy } from "./own_proxy.ts";
import { DockerProxy } from "./proxy.ts";
import { startMissed } from "./missed_starts.ts";
import { makeReport } from "./report.ts";
import { serviceRoutes } from "./service_routes.ts";
import { servicesReport } from "./service_view.ts";
import { Services } from "./services.ts";
import { socketOwner } from "../host/socket_owner.ts";
import { Targets } from "./targets.ts";
import { wasRunning } from "./targets_file.ts";
import { REPORT_VIEWS } from "./status.ts";

export interface RouterHooks {
  /** Everything serves. */
  readonly onReady?: () => void;
}

/** Runs a router until it is told to stop; resolves to the exit status. Rejects with the reason where it cannot start. */
export async function runRouter(options: RouterOptions, hooks: RouterHooks = {}): Promise<number> {
  const log = routerLog(options);
  log.info("starting", { version: VERSION });
  await using router = await Router.start(options, log);
  log.info("ready", { name: formatMac(router.name), version: VERSION });
  hooks.onReady?.();
  return await router.ended;
}

export function routerLog({ logLevel, logFormat }: Pick<RouterOptions, "logLevel" | "logFormat">): Logger {
  const encoder = new TextEncoder();
  return makeLogger({
    level: logLevel,
    format: logFormat,
    write: (line) => {
      try {
        Deno.stderr.writeSync(encoder.encode(line + "\n"));
      } catch {
        // A full disk or a closed terminal is no reason to stop carrying frames.
      }
    },
    wallClockMs: fineWallClock(SYSTEM_CLOCK),
  });
}

class Router implements RouterControl, AsyncDisposable {
  readonly name: Mesh["name"];
  /** Resolves to the exit status when it is to stop. */
  readonly ended: Promise<number>;
  readonly #o: RouterOptions;
  readonly #parts: Parts;
  readonly #owned: AsyncDisposableStack;
  #ready = false;

  private constructor(o: RouterOptions, parts: Parts, owned: AsyncDisposableStack) {
    this.#o = o;
    this.#parts = parts;
    this.#owned = owned;
    this.name = parts.mesh.name;
    this.ended = parts.ended.promise;
  }

  static async start(options: RouterOptions, log: Logger): Promise<Router> {
    await using owned = new AsyncDisposableStack();
    const ended = Promise.withResolvers<number>();
    const parts = await startParts({ options, log, owned, ended });
    const router = new Router(options, parts, owned.move());
    try {
      await router.#serve();
      return router;
    } catch (error) {
      await router[Symbol.asyncDispose]();
      throw error;
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#parts.log.info("stopping");
    await this.#owned.disposeAsync();
  }

  /** Begins to speak: to peers, to commands, to the operating system. */
  async #serve(): Promise<void> {
    const { loop, targets, log, proxy, plugin } = this.#parts;
    const { httpAddr, statusAddr, metricsAddr, testSpin, dbPrefix } = this.#o;
    const owned = this.#owned;
    loop.listen();
    const api = serveApi({
      control: this,
      views: REPORT_VIEWS,
      log,
      httpAddr,
      statusAddr,
      metricsAddr,
      uidOf: socketOwner,
      spin: testSpin,
    });
    owned.defer(() => api.stop());
    await targets.start({ restarted: wasRunning(dbPrefix), resume: this.#o.resume, given: this.#o.targets });
    await targets.markRunning();
    this.#listenToSignals();
    await proxy?.listen();
    plugin?.listen();
    await plugin?.settle();
    this.#ready = true;
    if (plugin !== undefined) void startMissed(this.#parts.log);
  }

  #listenToSignals(): void {
    const { ended, log } = this.#parts;
    const listeners: Partial<Record<Deno.Signal, () => void>> = {
      SIGTERM: () => ended.resolve(0),
      SIGINT: () => ended.resolve(0),
      SIGHUP: () => {}, // the terminal it was launched from has gone
      SIGQUIT: () => log.info("state", { value: JSON.stringify(JSON.parse(REPORT_VIEWS.report(this.report()))) }),
    };
    for (const [signal, listener] of Object.entries(listeners) as [Deno.Signal, () => void][]) {
      Deno.addSignalListener(signal, listener);
      this.#owned.defer(() => Deno.removeSignalListener(signal, listener));
    }
  }

  report() {
    const { mesh, carriers, datapath, loop, targets, watch, mtu, ipam, dns, services, proxy, plugin } = this.#parts;
    return makeReport({
      options: this.#o,
      version: VERSION,
      name: this.name,
      bridgeMtu: mtu,
      mesh,
      carriers,
      datapath,
      clock: SYSTEM_CLOCK,
      clockAheadMs: (id) => loop.clockAheadMs(id),
      ready: this.#ready,
      unresolved: targets.unresolved,
      warnings: [...targets.warnings, ...watch.warnings],
      ipam: ipam?.report(),
      dns: dns?.report(),
      services: servicesReport(services),
      proxy: proxy?.report(),
      plugin: plugin?.report(),
    });
  }

  get routes(): readonly Route[] {
    const { ipam, dns, services, proxy } = this.#parts;
    return [...ipam?.routes() ?? [], ...dns?.routes() ?? [], ...serviceRoutes(services), ...proxy?.routes() ?? []];
  }

  connect(peers: readonly string[], options: { readonly replace: boolean }): Promise<ConnectResult> {
    return this.#parts.targets.connect(peers, options.replace);
  }

  forget(peers: readonly string[]): Promise<void> {
    return this.#parts.targets.forget(peers);
  }

  async expose(cidr: Cidr, { skipNat }: { readonly skipNat: boolean }): Promise<void> {
    const { progress, ipam } = this.#parts;
    const addresses = [{ kind: "given", cidr }] as const;
    await expose({ addresses, book: ipam?.book ?? NO_ALLOCATION, withoutMasquerade: skipNat, progress });
    this.#parts.log.info("exposed", { address: formatCidr(cidr) });
  }

  async leave(): Promise<void> {
    const { ipam, dns, services } = this.#parts;
    await services.leave();
    dns?.leave();
    await ipam?.leave();
  }

  async removePeer(id: string): Promise<number | undefined> {
    const { ipam, dns, services } = this.#parts;
    dns?.removePeer(id);
    services.removePeer(id);
    return await ipam?.removePeer(id);
  }
}

interface Parts {
  readonly log: Logger;
  readonly progress: { warn(line: string): void };
  readonly mtu: number;
  readonly mesh: Mesh;
  readonly carriers: Carriers;
  readonly datapath: Datapath;
  readonly loop: ControlLoop;
  readonly targets: Targets;
  readonly watch: HostWatch;
  /** undefined: there is no range to allocate from. */
  readonly ipam: Ipam | undefined;
  /** undefined: `--no-dns`. */
  readonly dns: Dns | undefined;
  readonly services: Services;
  /** undefined: `--proxy=false`. */
  readonly proxy: DockerProxy | undefined;
  /** undefined: `--plugin=false`. */
  readonly plugin: DockerPlugin | undefined;
  readonly ended: PromiseWithResolvers<number>;
}

interface StartContext {
  readonly options: RouterOptions;
  readonly log: Logger;
  /** What is started is stopped with it, last first. */
  readonly owned: AsyncDisposableStack;
  readonly ended: PromiseWithResolvers<number>;
}

async function startParts({ options, log, owned, ended }: StartContext): Promise<Parts> {
  if (options.proxy !== undefined) avoidOwnProxy(options.proxy.listen);
  const random = new SystemRandom();
  const now = SYSTEM_CLOCK.monotonicMs;
  const progress = { warn: (line: string) => log.warn("attention", { reason: line }) };
  const plumbing = new Plumbing(HOST, progress);
  const links = owned.use(new Links());
  const { dbPrefix, host: address, port, testIdentity } = options;
  const name = await findPeerName({
    name: options.name,
    links,
    bridge: HOST.bridge,
    statePrefix: dbPrefix,
    random,
  });

  // First what another router would have: nothing is touched then.
  const udp = owned.use(openUdpPair({ address: address ?? 0, port }));
  const { tap, mtu, watchedHost } = await prepareHost({ options, plumbing, name, owned });
  const wake = owned.use(new EventFd());
  const sockets = new ControlSockets({ log });
  owned.defer(() => sockets.stop());

  const datapath = await Datapath.start({
    ourName: name,
    tapFd: tap.fd.raw,
    dfFd: udp.df.raw,
    plainFd: udp.plain.raw,
    wake: { fd: wake.fd.raw, signal: () => wake.signal() },
    tapUdpSegments: tap.udpSegments,
    onEvent: (event) => loop.run((at) => carriers.handleEvent(event, at)),
    onCrash: (error) => {
      log.error("packet thread died", { error: error.message });
      ended.resolve(1);
    },
  });
  owned.defer(() => datapath.stop());

  const uid = testIdentity?.uid ?? nonZero(random);
  const mesh = new Mesh({
    name,
    nickName: options.nickname,
    uid,
    shortId: testIdentity?.shortId ?? random.below(4096),
    port,
    overlays: ["sleeve"],
    extensions: testIdentity === undefined ? ["probe", "digest"] : [],
    discovery: options.discovery,
    connectionLimit: options.connLimit,
    trustedSubnets: options.trustedSubnets,
    random,
    log,
    connectionIds: testIdentity?.connectionIds ?? [],
  }, now());
  const carriers = new Carriers({
    ourName: name,
    datapath,
    log,
    listener: {
      established: (id) => loop.run((at) => mesh.handleCarrierEstablished(id, at)),
      failed: (id, reason) => loop.run((at) => mesh.handleCarrierFailed(id, reason, at)),
      control: (id, overlay, subTag, payload) => loop.run(() => mesh.sendOverlayControl(id, overlay, subTag, payload)),
    },
  });
  const loop: ControlLoop = new ControlLoop({
    mesh,
    carriers,
    sockets,
    crypto: await openControlBoxes({ privateKeys: testIdentity?.privateKeys ?? [] }),
    password: options.password === undefined ? undefined : Buffer.from(options.password, "utf8"),
    host: address,
    port,
    minProtocolVersion: options.minProtocolVersion,
    clock: SYSTEM_CLOCK,
    tellClock: testIdentity === undefined,
    log,
    onTargetsChanged: () => targets.save(),
  });
  owned.defer(() => loop.stop());
  const targets: Targets = new Targets({ prefix: dbPrefix, port, mesh, run: (input) => loop.run(input), log });
  owned.defer(() => targets.stop());
  loop.run(() => carriers.routesChanged());

  const bridgeWatch = owned.use(new BridgeWatch(links, HOST.bridge, log));
  owned.defer(sockets.watch(bridgeWatch.fd, () => bridgeWatch.handleReadable()));
  const run = <T>(input: (at: Instant) => T) => loop.run(input);
  let ipam: Ipam | undefined;
  if (options.ipam !== undefined) {
    ipam = await Ipam.start({
      options: options.ipam,
      statePrefix: dbPrefix,
      ourName: name,
      ourUid: uid,
      nickName: options.nickname,
      targetCount: () => mesh.activeTargets().length + targets.unresolved.length,
      mesh,
      run,
      plumbing,
      clock: SYSTEM_CLOCK,
      random,
      log,
    });
    owned.defer(() => ipam?.stop());
    loop.add(ipam);
  }
  let dns: Dns | undefined;
  if (!options.noDns) {
    const around = { mesh, run, sockets, plumbing, links, clock: SYSTEM_CLOCK, random, log };
    dns = await Dns.start({ options, ourName: name, ourUid: uid, ...around });
    owned.defer(() => dns?.stop());
    loop.add(dns);
  }
  const services = await Services.start({
    options,
    ourName: name,
    mesh,
    run,
    ipam,
    dns,
    sockets,
    plumbing,
    links,
    clock: SYSTEM_CLOCK,
    random,
    log,
    restarted: wasRunning(dbPrefix),
  });
  owned.defer(() => services.stop());
  loop.add(services);
  // Without a proxy there still are containers that wait to be attached: those of `weave run`.
  const attaching = await DockerProxy.start({ options: options.proxy ?? NO_PROXY, ipam, dns, log });
  owned.defer(() => attaching.stop());
  const proxy = options.proxy === undefined ? undefined : attaching;
  let plugin: DockerPlugin | undefined;
  if (options.plugin !== undefined) {
    const around = { plumbing, links, ipam, dns, progress, log };
    plugin = await DockerPlugin.start({ options: options.plugin, statePrefix: dbPrefix, ...around });
    owned.defer(() => plugin?.stop());
  }
  const containers = new ContainerWatch({
    log,
    listener: {
      running(ids) {
        void ipam?.handleContainersRunning(ids);
        dns?.handleContainersRunning(ids);
        attaching.handleContainersRunning(ids);
        plugin?.handleContainersRunning(ids);
        if (plugin?.serving === true) void startMissed(log);
      },
      present(ids) {
        ipam?.handleContainersPresent(ids);
        dns?.handleContainersRunning(ids);
        attaching.handleContainersRunning(ids);
        plugin?.handleContainersPresent();
      },
      started(id) {
        ipam?.handleContainerStarted(id);
        attaching.handleContainerStarted(id);
        plugin?.handleContainerStarted(id);
      },
      networksChanged: (id) => plugin?.handleContainerStarted(id),
      gone: () => plugin?.handleEngineGone(),
      died(id) {
        ipam?.handleContainerDied(id);
        dns?.handleContainerDied(id);
        attaching.handleContainerDied(id);
        plugin?.handleContainerDied(id);
      },
      destroyed(id) {
        ipam?.handleContainerDestroyed(id);
        dns?.handleContainerDied(id);
      },
    },
  });
  owned.defer(() => containers.stop());
  const onGone = ({ id }: Attachment) => {
    ipam?.handleGone(id);
    dns?.handleContainerDied(id);
  };
  const watch = new HostWatch({ plumbing, links, host: watchedHost, log, onGone });
  owned.defer(() => watch.stop());
  return {
    log,
    progress,
    mtu,
    mesh,
    carriers,
    datapath,
    loop,
    targets,
    watch,
    ipam,
    dns,
    services,
    proxy,
    plugin,
    ended,
  };
}

interface PrepareOptions {
  readonly options: RouterOptions;
  readonly plumbing: Plumbing;
  readonly name: Mesh["name"];
  readonly owned: AsyncDisposableStack;
}

/** Bridge, TAP and packet filter. */
async function prepareHost({ options, plumbing, name, owned }: PrepareOptions) {
  const { httpAddr, port, dockerBridge, dockerBridgeIp, noFastdp } = options;
  const mtu = overlayMtu({ noFastdp, ...(options.mtu === undefined ? {} : { mtu: options.mtu }) });
  const watchedHost: HostStartOptions<Tap> = {
    plumbing,
    name,
    mtu,
    port,
    dockerBridge,
    openTap: (tapName) => owned.use(openOwnTap(tapName)),
    ...(httpAddr?.transport === "tcp" ? { controlPort: httpAddr.port } : {}),
    ...(dockerBridgeIp === undefined ? {} : { dockerBridgeIp }),
  };
  const { tap }: HostStart<Tap> = await startHost(watchedHost);
  return { tap, mtu, watchedHost };
}

/** Who keeps its state elsewhere and listens elsewhere is found out here. */
function openOwnTap(name: string): Tap {
  try {
    return openTap(name);
  } catch (error) {
    if (!(error instanceof SysError) || error.errnoName !== "EBUSY") throw error;
    throw new OperationError(`Another weave router runs on this host: ${error.message}`, 1, { cause: error });
  }
}

function nonZero(random: SystemRandom): bigint {
  for (;;) {
    const uid = random.u64();
    if (uid !== 0n) return uid;
  }
}
