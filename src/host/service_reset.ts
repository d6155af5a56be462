/**
 * Ends flows of backends that were revoked, also those that nobody speaks on. Rules refuse every packet of theirs with a reset that takes
 * its numbers from the packet, so each side has only to be made to speak. We send it something in the other's name:
 *
 *       0 ms  a SYN to the server, a SYN/ACK to the client: whatever its numbers, it is answered with an ACK that has the real ones
 *             (RFC 5961 §4), and firewalls that keep track of connections let it pass
 *     250 ms  two ACKs whose sequence numbers are 2^31 apart: one at least is outside the window, and is answered as well
 *             (RFC 9293 §3.10.7.4); for whoever does not answer a SYN, or not so many of them
 *     550 ms  as at first, as one socket answers no sooner than 500 ms after it last did
 *     750 ms  the kernel forgets the flows; what is left of them is refused like everything that nobody has asked for
 */
import { RawSocket } from "../../ffi/raw_socket.ts";
import { withNetns } from "../../ffi/netns.ts";
import type { BackendId, NetworkId } from "../service/plan.ts";
import { type Flow, type FlowFilter, type FlowTuple, IPPROTO, TCP_STATE } from "../wire/conntrack.ts";
import { encodeEmptySegment, TCP_FLAG } from "../wire/tcp_segment.ts";
import { Conntrack } from "./conntrack.ts";
import { statNetns } from "./netns.ts";
import { isTransitAddress } from "./network_namespace.ts";
import {
  BACKEND_MASK,
  INJECTED,
  markedBackend,
  markedBackendNetwork,
  markedClientNetwork,
  OURS,
  routeMark,
} from "./service_marks.ts";

const ROUNDS = [{ atMs: 0, kind: "syn" }, { atMs: 250, kind: "ack" }, { atMs: 550, kind: "syn" }] as const;
const FORGET_AT_MS = 750;
/** The kernel looks at the whole table for each; above that we look at all flows of services once. */
const FILTERED_BACKENDS = 8;
/** Any will do. */
const SEQUENCES = [0x1111_1111, 0x9111_1111] as const;

export interface ResetOptions {
  readonly backends: ReadonlySet<BackendId>;
  /** Paths of the namespaces of isolated networks, beside this one, that may have flows of these backends. */
  readonly namespaces?: readonly string[];
}

export interface ResetResult {
  /** Flows that were ended. */
  readonly flows: number;
}

/**
 * Ends every flow of these backends within a second, TCP with a reset to both sides. Rules must refuse all of their packets, TCP by a
 * reset, before this is called, and go on to refuse them until it is done.
 */
export async function resetFlows({ backends, namespaces = [] }: ResetOptions): Promise<ResetResult> {
  if (backends.size === 0) return { flows: 0 };
  using opened = new DisposableStack();
  const here = opened.use(new Place(undefined));
  const inside = namespaces.filter((namespace) => statNetns(namespace) !== undefined)
    .map((namespace) => opened.use(new Place(namespace)));
  const revoked: Revoked = { backends, fromTransit: new Set() };
  const start = performance.now();
  let flows = 0;
  for (const [round, { atMs, kind }] of ROUNDS.entries()) {
    await until(start + atMs);
    // What passes through a namespace is in the table here as well.
    const first = round === 0;
    const count = await here.provoke(revoked, kind, first);
    if (first) flows = count;
    for (const place of inside) await place.provoke(revoked, kind, first);
    if (flows === 0) break;
  }
  if (flows > 0) await until(start + FORGET_AT_MS);
  for (const place of [...inside, here]) await place.forget(revoked);
  return { flows };
}

/** Whose flows. */
interface Revoked {
  readonly backends: ReadonlySet<BackendId>;
  /** First tuples of those flows here that come from an isolated network: the rules there do not know the backend. */
  readonly fromTransit: Set<string>;
}

/** A namespace with its table of flows. */
class Place implements Disposable {
  readonly #namespace: string | undefined;
  readonly #conntrack: Conntrack;
  /** By network to send to: a few at most. */
  readonly #sockets = new Map<NetworkId, RawSocket>();

  constructor(namespace: string | undefined) {
    this.#namespace = namespace;
    this.#conntrack = new Conntrack(namespace);
  }

  /** Makes both sides of each TCP flow speak. @returns how many flows are not over, those of UDP too */
  async provoke(revoked: Revoked, kind: "syn" | "ack", first: boolean): Promise<number> {
    let count = 0;
    for await (const flow of this.#flows(revoked)) {
      // Closed it is from our first reset on, whichever side has it; where both sides ended it properly, nobody is to be told.
      if (flow.tcpState === TCP_STATE.timeWait || first && isOver(flow)) continue;
      count++;
      if (!this.#isInside && isTransitAddress(flow.original.source)) revoked.fromTransit.add(keyOf(flow.original));
      if (flow.original.protocol === IPPROTO.tcp) this.#provoke(flow, kind);
    }
    return count;
  }

  async forget(revoked: Revoked): Promise<void> {
    if (this.#filters(revoked)) {
      for (const backend of revoked.backends) this.#conntrack.deleteAll(flowsOf(backend));
    } else {
      for await (const flow of this.#flows(revoked)) this.#conntrack.delete(flow);
    }
  }

  get #isInside(): boolean {
    return this.#namespace !== undefined;
  }

  /** The kernel can tell whose flows they are. */
  #filters({ backends }: Revoked): boolean {
    return !this.#isInside && backends.size <= FILTERED_BACKENDS;
  }

  async *#flows(revoked: Revoked): AsyncGenerator<Flow, void, void> {
    if (this.#filters(revoked)) {
      for (const backend of revoked.backends) {
        for await (const flows of this.#conntrack.flows(flowsOf(backend))) yield* flows;
      }
    } else {
      for await (const flows of this.#conntrack.flows({ mark: OURS, mask: OURS })) {
        for (const flow of flows) if (this.#isOf(flow, revoked)) yield flow;
      }
    }
  }

  #isOf(flow: Flow, { backends, fromTransit }: Revoked): boolean {
    // Where a flow leads out of the namespace of an isolated network, the number in its mark is not a backend's.
    const leadsOut = this.#isInside && isTransitAddress(flow.reply.source);
    return leadsOut ? fromTransit.has(keyOf(answerOf(flow.reply))) : backends.has(markedBackend(flow.mark));
  }

  #provoke({ original, reply, mark }: Flow, kind: "syn" | "ack"): void {
    // The client is spoken to as by whom it called, the backend as by whom it was called: both as after translation.
    const toClient = {
      source: original.destination,
      sourcePort: original.destinationPort,
      destination: original.source,
      destinationPort: original.sourcePort,
      route: markedClientNetwork(mark),
      flags: kind === "syn" ? TCP_FLAG.syn | TCP_FLAG.ack : TCP_FLAG.ack,
    };
    const toBackend = {
      source: reply.destination,
      sourcePort: reply.destinationPort,
      destination: reply.source,
      destinationPort: reply.sourcePort,
      route: markedBackendNetwork(mark),
      flags: kind === "syn" ? TCP_FLAG.syn : TCP_FLAG.ack,
    };
    for (const { route, ...segment } of [toClient, toBackend]) {
      // Behind a transit it is for the other namespace to do.
      if (isTransitAddress(segment.destination)) continue;
      for (const sequence of kind === "syn" ? SEQUENCES.slice(0, 1) : SEQUENCES) {
        const packet = encodeEmptySegment({ ...segment, sequence, acknowledgement: sequence });
        // Where it cannot be sent there is nobody to be told.
        this.#socketTo(route).send(packet, segment.destination);
      }
    }
  }

  #socketTo(network: NetworkId): RawSocket {
    const known = this.#sockets.get(network);
    if (known !== undefined) return known;
    const open = () => new RawSocket((routeMark(network) | INJECTED) >>> 0);
    const socket = this.#namespace === undefined ? open() : withNetns(this.#namespace, open);
    this.#sockets.set(network, socket);
    return socket;
  }

  [Symbol.dispose](): void {
    for (const socket of this.#sockets.values()) socket[Symbol.dispose]();
    this.#conntrack[Symbol.dispose]();
  }
}

function flowsOf(backend: BackendId): FlowFilter {
  return { mark: OURS | backend, mask: OURS | BACKEND_MASK };
}

/** The tuple of packets that those of `tuple` answer. */
function answerOf(tuple: FlowTuple): FlowTuple {
  const { source, sourcePort, destination, destinationPort } = tuple;
  return {
    ...tuple,
    source: destination,
    sourcePort: destinationPort,
    destination: source,
    destinationPort: sourcePort,
  };
}

function keyOf({ protocol, source, sourcePort, destination, destinationPort }: FlowTuple): string {
  return [protocol, source, sourcePort, destination, destinationPort].join();
}

function isOver({ tcpState }: Flow): boolean {
  return tcpState === TCP_STATE.timeWait || tcpState === TCP_STATE.close;
}

async function until(at: number): Promise<void> {
  const waitMs = at - performance.now();
  if (waitMs > 0) await new Promise((resolve) => setTimeout(resolve, waitMs));
}
