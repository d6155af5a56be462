/** How many flows there are to which backend, and from which network: counted now and then, as long as somebody wants to know. */
import { Conntrack } from "../host/conntrack.ts";
import { markedBackend, markedClientNetwork, OURS } from "../host/service_marks.ts";
import type { Logger } from "../lib/log.ts";
import type { BackendId, NetworkId } from "../service/plan.ts";
import { TCP_STATE } from "../wire/conntrack.ts";

export interface ServiceFlowsOptions {
  readonly log: Logger;
  /** Where there were flows there are none, or the other way round. */
  readonly onChanged: () => void;
}

const COUNT_MS = 1_000;
/** Where there were flows there are none after so many counts without any: short ones come and go. */
const PATIENCE = 3;

export class ServiceFlows {
  readonly #o: ServiceFlowsOptions;
  #counts = new Map<BackendId, Map<NetworkId, number>>();
  /** How many counts ago there was one, by backend and network. */
  readonly #seen = new Map<string, number>();
  #timer: number | undefined;
  #counting: Promise<void> | undefined;
  #failed = false;
  #stopped = false;

  constructor(o: ServiceFlowsOptions) {
    this.#o = o;
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  /** Counts again and again, from now on or no more. */
  need(wanted: boolean): void {
    if (wanted === (this.#timer !== undefined) || this.#stopped) return;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (wanted) this.#again();
    else this.#seen.clear();
  }

  /** Whether any of these backends has flows from a network, or had a moment ago. */
  has(backends: Iterable<BackendId>, network: NetworkId): boolean {
    for (const id of backends) if (this.#seen.has(keyOf(id, network))) return true;
    return false;
  }

  total(id: BackendId): number {
    return [...this.#counts.get(id)?.values() ?? []].reduce((sum, count) => sum + count, 0);
  }

  /** Counts at once; several who ask meanwhile get the same. */
  countNow(): Promise<void> {
    return this.#counting ??= this.#count().finally(() => this.#counting = undefined);
  }

  #again(): void {
    this.#timer = setTimeout(async () => {
      const before = this.#summary();
      try {
        await this.countNow();
        this.#failed = false;
      } catch (error) {
        if (!this.#failed) this.#o.log.warn("flows cannot be counted", { error: (error as Error).message });
        this.#failed = true;
      }
      if (this.#timer === undefined || this.#stopped) return;
      if (this.#summary() !== before) this.#o.onChanged();
      this.#again();
    }, COUNT_MS);
  }

  #summary(): string {
    return [...this.#seen.keys()].sort().join();
  }

  async #count(): Promise<void> {
    const counts = new Map<BackendId, Map<NetworkId, number>>();
    using conntrack = new Conntrack();
    for await (const flows of conntrack.flows({ mark: OURS, mask: OURS })) {
      for (const { mark, tcpState } of flows) {
        const id = markedBackend(mark);
        if (id === 0 || !isAlive(tcpState)) continue;
        const network = markedClientNetwork(mark);
        const byNetwork = counts.get(id) ?? new Map<NetworkId, number>();
        counts.set(id, byNetwork.set(network, (byNetwork.get(network) ?? 0) + 1));
      }
    }
    this.#counts = counts;
    for (const [key, age] of this.#seen) {
      if (age + 1 >= PATIENCE) this.#seen.delete(key);
      else this.#seen.set(key, age + 1);
    }
    for (const [id, byNetwork] of counts) for (const network of byNetwork.keys()) this.#seen.set(keyOf(id, network), 0);
  }
}

/** UDP as long as the kernel remembers it. */
function isAlive(tcpState: number | undefined): boolean {
  return tcpState === undefined || tcpState >= TCP_STATE.synReceived && tcpState <= TCP_STATE.lastAck;
}

function keyOf(id: BackendId, network: NetworkId): string {
  return `${id} ${network}`;
}
