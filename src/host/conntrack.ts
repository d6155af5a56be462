/** Flows that the kernel tracks, of one network namespace: walked and forgotten. */
import { SysError } from "../../ffi/errno.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { withNetns } from "../../ffi/netns.ts";
import {
  decodeFlows,
  encodeDeleteFlow,
  encodeDeleteFlows,
  encodeListFlows,
  type Flow,
  type FlowFilter,
  NETLINK_NETFILTER,
} from "../wire/conntrack.ts";

/** How long flows are walked before others have their turn. */
const TURN_MS = 4;

export class Conntrack implements Disposable {
  readonly #namespace: string | undefined;
  readonly #socket: NetlinkSocket;

  /** @param namespace path of another network namespace than this thread's @throws SysError where there is none */
  constructor(namespace?: string) {
    this.#namespace = namespace;
    this.#socket = this.#open();
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }

  /**
   * Flows as they are now, in no order, some at a time; one may come twice, or not at all, when the table changes meanwhile. However large
   * the table is, only a part of it is in memory, and others have their turn in between.
   */
  async *flows(filter: FlowFilter): AsyncGenerator<readonly Flow[], void, void> {
    // A socket has one walk at a time, and is of no use when that was left half-way.
    using socket = this.#open();
    let turn = performance.now();
    for (const datagram of socket.answers(encodeListFlows(filter))) {
      const flows: Flow[] = [];
      decodeFlows(datagram, (flow) => {
        // A kernel that does not know the filter tells all.
        if (((flow.mark & filter.mask) >>> 0) === filter.mark) flows.push(flow);
      });
      yield flows;
      if (performance.now() - turn < TURN_MS) continue;
      await new Promise((resolve) => setTimeout(resolve, 0));
      turn = performance.now();
    }
  }

  /** Forgets one flow; its packets are taken for those of a new one from then on. @returns whether it was there */
  delete(flow: Flow): boolean {
    try {
      this.#socket.request(encodeDeleteFlow(flow));
      return true;
    } catch (error) {
      if (error instanceof SysError && error.errnoName === "ENOENT") return false;
      throw error;
    }
  }

  /** Forgets all that match; where none does, that is no error. */
  deleteAll(filter: FlowFilter): void {
    this.#socket.request(encodeDeleteFlows(filter));
  }

  #open(): NetlinkSocket {
    const open = () => new NetlinkSocket(NETLINK_NETFILTER);
    return this.#namespace === undefined ? open() : withNetns(this.#namespace, open);
  }
}
