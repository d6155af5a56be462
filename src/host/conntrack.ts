/** Flows that the kernel tracks, of one network namespace: walked, counted and forgotten. */
import type { BackendId, NetworkId } from "../service/plan.ts";
import type { Flow, FlowFilter } from "../wire/conntrack.ts";

export class Conntrack implements Disposable {
  /** @param namespace path of another network namespace than this thread's */
  constructor(_namespace?: string) {}

  /**
   * Flows as they are now, in no order; one may come twice, or not at all, when the table changes meanwhile. However large the table is,
   * only a datagram of it is in memory, and others have their turn in between.
   */
  // deno-lint-ignore require-yield
  async *flows(_filter: FlowFilter): AsyncGenerator<Flow> {
    throw new Error("to come");
  }

  /** Flows of each backend that are alive: TCP until it is closed on both sides, UDP as long as the kernel remembers it. */
  countByBackend(_clientNetworks: Iterable<NetworkId>): Promise<Map<BackendId, number>> {
    throw new Error("to come");
  }

  /** Forgets one flow; its packets are taken for those of a new one from then on. @returns whether it was there */
  delete(_flow: Flow): boolean {
    throw new Error("to come");
  }

  /** Forgets all that match. */
  deleteAll(_filter: FlowFilter): void {
    throw new Error("to come");
  }

  [Symbol.dispose](): void {}
}
