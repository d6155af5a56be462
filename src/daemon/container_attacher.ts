/**
 * Puts containers into the network that were made through the proxy, whenever they start: a client waits for it, Docker's own restart
 * policy did it, or the router itself starts and finds them running. The container's process is held until then.
 *
 *     start ─▶ look at it ─▶ not ours: nothing
 *                        └─▶ attach ─▶ done · failed: it is killed, so that nothing runs without its network
 */
import type { ProxyOptions } from "../config/proxy_options.ts";
import { askEngine, askEngineFor, messageOf } from "../host/docker_api.ts";
import { OperationError } from "../lib/errors.ts";
import { formatCidr } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { type Inspected, readInspected, wishOf } from "../proxy/container.ts";
import { type AddressBook, type AddressToken, parseAddressToken } from "./address_book.ts";
import { attach } from "./attach.ts";

export interface AttacherOptions {
  readonly settings: Pick<ProxyOptions, "withoutDns" | "noMulticastRoute" | "rewriteHosts" | "noDefaultIpalloc">;
  /** Whose allocations are called off by the signal, with a reason. */
  readonly book: (signal: AbortSignal) => AddressBook;
  /** Address of Docker's bridge, for hosts entries that mean this host. */
  readonly hostGateway: () => string | undefined;
  readonly log: Logger;
}

/** Containers that wait for an address that another one gives back, after half a minute say, are not given up before. */
const ATTACH_MS = 45_000;
/** Of those that run when the router starts. */
const FIRST_RETRY_MS = 2_000;
const LAST_RETRY_MS = 60_000;
const INSPECTED_AT_ONCE = 16;
/** Of what a container says. */
const MAX_SHOWN = 100;

/** What a failure to attach leads to. */
type OnFailure = "kill" | "retry";

export class ContainerAttacher {
  readonly #o: AttacherOptions;
  /** By id: what is under way. */
  readonly #working = new Map<string, Promise<void>>();
  /** By id: the process whose network is there. */
  readonly #attached = new Map<string, number>();
  /** By id: clients that wait for it to start. */
  readonly #clients = new Map<string, number>();
  /** By id, as long as there are such clients: what came of it, whoever began it. It may be removed by the time they ask. */
  readonly #outcomes = new Map<string, "attached" | { readonly error: unknown }>();
  readonly #retries = new Map<string, number>();
  readonly #stopped = new AbortController();

  constructor(o: AttacherOptions) {
    this.#o = o;
  }

  stop(): void {
    this.#stopped.abort();
    for (const timer of this.#retries.values()) clearTimeout(timer);
    this.#retries.clear();
  }

  /** A client asks for this container to be started, until the result is called: it hears of a failure. */
  expect(id: string): () => void {
    this.#clients.set(id, (this.#clients.get(id) ?? 0) + 1);
    return () => {
      const left = this.#clients.get(id)! - 1;
      if (left > 0) return void this.#clients.set(id, left);
      this.#clients.delete(id);
      this.#outcomes.delete(id);
    };
  }

  /** Resolves when it is in the network, or is not meant to be. Rejects with the reason; it does not run then. */
  async whenAttached(id: string): Promise<void> {
    if (!this.#outcomes.has(id)) {
      try {
        await this.#ensure(id, "kill");
      } catch (error) {
        if (!this.#outcomes.has(id)) throw error;
      }
    }
    const outcome = this.#outcomes.get(id);
    if (typeof outcome === "object") throw outcome.error;
  }

  handleStarted(id: string): void {
    if (this.#stopped.signal.aborted) return;
    void this.#tryUntilDone(id, FIRST_RETRY_MS, "kill"); // what fails is logged
  }

  handleDied(id: string): void {
    this.#attached.delete(id);
    clearTimeout(this.#retries.get(id));
    this.#retries.delete(id);
  }

  /** Those that are found running. */
  async handleRunning(ids: ReadonlySet<string>): Promise<void> {
    for (const id of this.#attached.keys()) if (!ids.has(id)) this.handleDied(id);
    const rest = [...ids];
    const work = async () => {
      for (let id = rest.shift(); id !== undefined; id = rest.shift()) {
        if (!this.#stopped.signal.aborted) await this.#tryUntilDone(id, FIRST_RETRY_MS);
      }
    };
    await Promise.all(Array.from({ length: INSPECTED_AT_ONCE }, work));
  }

  async #tryUntilDone(id: string, retryMs: number, onFailure: OnFailure = "retry"): Promise<void> {
    try {
      await this.#ensure(id, onFailure);
    } catch {
      if (this.#stopped.signal.aborted || this.#retries.has(id)) return;
      const again = () => {
        this.#retries.delete(id);
        void this.#tryUntilDone(id, Math.min(1.5 * retryMs, LAST_RETRY_MS));
      };
      this.#retries.set(id, setTimeout(again, retryMs));
    }
  }

  #ensure(id: string, onFailure: OnFailure): Promise<void> {
    let working = this.#working.get(id);
    if (working === undefined) {
      working = this.#attach(id, onFailure).finally(() => this.#working.delete(id));
      this.#working.set(id, working);
    }
    return working;
  }

  async #attach(id: string, onFailure: OnFailure): Promise<void> {
    const container = readInspected(await askEngineFor(`/containers/${id}/json`));
    if (container === undefined || !container.running || !container.ours) return;
    if (this.#attached.get(id) === container.pid) return;
    const wish = wishOf(container, this.#o.settings);
    if (!wish.attach) return;
    const limit = AbortSignal.timeout(ATTACH_MS);
    try {
      await this.#attachNow(container, wish.addresses, AbortSignal.any([limit, this.#stopped.signal]));
      if (isAlive(container.pid)) this.#attached.set(id, container.pid);
      if (this.#clients.has(id)) this.#outcomes.set(id, "attached");
    } catch (error) {
      if (this.#stopped.signal.aborted) throw error;
      const { message } = error as Error;
      this.#o.log.warn("cannot attach container", { container: id, reason: message });
      if (this.#clients.has(id)) this.#outcomes.set(id, { error });
      // What 'weave run' started it ends itself, and says why; at later starts it waits.
      if (onFailure === "kill" && container.switches === undefined) await this.#kill(container);
      throw error;
    }
  }

  async #attachNow(container: Inspected, addresses: readonly string[], signal: AbortSignal): Promise<void> {
    const { settings, book, log } = this.#o;
    const started = performance.now();
    const { switches } = container;
    const isOn = (word: string, setting: boolean) => switches === undefined ? setting : switches.includes(word);
    const result = await attach({
      container: container.id,
      addresses: readAddresses(addresses),
      book: book(signal),
      withoutDns: isOn("without-dns", settings.withoutDns),
      noMulticastRoute: isOn("no-multicast-route", settings.noMulticastRoute),
      rewriteHosts: !isOn("no-rewrite-hosts", !settings.rewriteHosts),
      addHosts: this.#addHosts(container),
      held: container.hasHelper,
      progress: { warn: (line) => log.warn("attention", { container: container.id, reason: line }) },
    });
    log.info("attached", {
      container: container.id,
      address: result.addresses.map(formatCidr).join(" "),
      duration_ms: Math.round(performance.now() - started),
    });
  }

  #addHosts({ extraHosts }: Inspected): string[] {
    const gateway = this.#o.hostGateway();
    return extraHosts.flatMap((line) => {
      const [, name, address] = /^([^:=]+)[:=]\[?([^\]]+)\]?$/.exec(line) ?? [];
      if (address !== "host-gateway") return name === undefined ? [] : [`${name}:${address}`];
      return gateway === undefined ? [] : [`${name}:${gateway}`];
    });
  }

  /**
   * Where a client waits it is told, and the engine stops it for good. Else it dies as if by itself, so that its restart policy tries
   * again.
   */
  async #kill({ id, pid }: Inspected): Promise<void> {
    try {
      if (this.#clients.has(id)) {
        const { status, json } = await askEngine({ method: "POST", path: `/containers/${id}/kill` });
        if (status >= 300 && status !== 404 && status !== 409) throw new OperationError(messageOf(json));
      } else Deno.kill(pid, "SIGKILL");
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return;
      this.#o.log.error("cannot end container", { container: id, error: (error as Error).message });
    }
  }
}

function isAlive(pid: number): boolean {
  try {
    return Deno.statSync(`/proc/${pid}`).isDirectory;
  } catch {
    return false;
  }
}

/** What `WEAVE_CIDR` says. Rejects what makes no sense. */
export function readAddresses(words: readonly string[]): AddressToken[] {
  return words.map((word) => {
    const token = parseAddressToken(word);
    if (token !== undefined) return token;
    throw new OperationError(
      `Cannot use "${
        word.slice(0, MAX_SHOWN)
      }" in WEAVE_CIDR: none, or addresses such as 10.0.0.1/24, net:10.0.0.0/24 or net:default expected`,
    );
  });
}
