/**
 * What the router looks after on its host while it runs: a bridge that somebody took away and packet filter rules that somebody flushed
 * are put back, and containers that only their namespace names are forgotten when it is gone.
 */
import type { Links } from "../host/links.ts";
import type { Logger } from "../lib/log.ts";
import { bridgeIntact, portsAboveMtu } from "../host/bridge.ts";
import { firewallOptions, type HostStartOptions, startHost } from "./host_start.ts";
import { type Attachment, type Plumbing, takeGoneAttachments } from "./plumbing.ts";

export interface HostWatchOptions {
  readonly plumbing: Plumbing;
  readonly links: Links;
  /** As the host was started. */
  readonly host: Omit<HostStartOptions<unknown>, "openTap">;
  readonly log: Logger;
  /** A container's namespace is gone: its addresses and names are to be given back. */
  readonly onGone?: (attachment: Attachment) => void;
}

const HOST_EVERY_MS = 10_000;
const ATTACHMENTS_EVERY_MS = 30_000;

export class HostWatch {
  readonly #o: HostWatchOptions;
  readonly #timers: number[] = [];
  #bridgeTrouble: string | undefined;
  #firewallTrouble: string | undefined;
  #mtuTrouble: string | undefined;

  constructor(o: HostWatchOptions) {
    this.#o = o;
    this.#checkMtu();
    this.#repeat(HOST_EVERY_MS, async () => {
      await this.#checkBridge();
      this.#checkMtu();
      await this.#checkFirewall();
    });
    this.#repeat(ATTACHMENTS_EVERY_MS, () => this.#checkAttachments());
  }

  /** What an operator should know, a line each. */
  get warnings(): readonly string[] {
    return [this.#bridgeTrouble, this.#firewallTrouble, this.#mtuTrouble].filter((trouble) => trouble !== undefined);
  }

  stop(): void {
    for (const timer of this.#timers) clearInterval(timer);
  }

  async #checkBridge(): Promise<void> {
    const { plumbing, links, host, log } = this.#o;
    try {
      if (!bridgeIntact(links, plumbing.host.bridge)) {
        // The TAP is open: it is there as long as this process is.
        await startHost({ ...host, openTap: () => undefined });
        log.warn("bridge was not as we left it; it is again");
      }
      this.#bridgeTrouble = undefined;
    } catch (error) {
      const { message } = error as Error;
      if (this.#bridgeTrouble === undefined) log.warn("bridge cannot be put back", { error: message });
      this.#bridgeTrouble = `The bridge is not as it should be and cannot be put back: ${message}`;
    }
  }

  #checkMtu(): void {
    const { plumbing, links, host, log } = this.#o;
    try {
      const { length } = portsAboveMtu(links, plumbing.host.bridge);
      this.#mtuTrouble = length === 0
        ? undefined
        : `Containers that were attached under a larger MTU than ${host.mtu}: ${length}; what they send in larger frames ` +
          "is lost until they are attached again";
    } catch (error) {
      log.warn("ports of the bridge cannot be looked at", { error: (error as Error).message });
    }
  }

  async #checkFirewall(): Promise<void> {
    const { plumbing, links, host, log } = this.#o;
    try {
      if (await plumbing.firewallIntact(links, firewallOptions(links, host))) {
        this.#firewallTrouble = undefined;
        return;
      }
      const changed = await plumbing.locked(() => plumbing.refreshFirewall(links, firewallOptions(links, host)));
      if (changed) log.warn("packet filter rules were not as we left them; they are again");
      this.#firewallTrouble = undefined;
    } catch (error) {
      const { message } = error as Error;
      if (this.#firewallTrouble === undefined) log.warn("packet filter rules cannot be put back", { error: message });
      this.#firewallTrouble = `Packet filter rules are missing and cannot be put back: ${message}`;
    }
  }

  async #checkAttachments(): Promise<void> {
    const { plumbing, log, onGone } = this.#o;
    try {
      for (const attachment of await takeGoneAttachments(plumbing)) {
        log.info("container is gone", { container: attachment.id });
        onGone?.(attachment);
      }
    } catch (error) {
      log.warn("containers cannot be looked after", { error: (error as Error).message });
    }
  }

  /** One at a time, however long it takes. */
  #repeat(everyMs: number, work: () => Promise<void>): void {
    let running = false;
    this.#timers.push(setInterval(async () => {
      if (running) return;
      running = true;
      await work();
      running = false;
    }, everyMs));
  }
}
