/**
 * The main thread's handle on the packet thread: starts and stops it, publishes connections and routes to it, gives it commands,
 * and hears its events. Nothing here waits for the packet thread, and no frame passes here.
 */
import { Counters, type CounterSnapshot, countersOctets, type SlotCounts } from "../datapath/counters.ts";
import { FDB_OCTETS, listFdb } from "../datapath/fdb.ts";
import { RING_OCTETS, RingReader, RingWriter } from "../datapath/ring.ts";
import { type ConnectionEntry, type PeerRoutes, SLOTS, TABLES_OCTETS, TableWriter } from "../datapath/tables.ts";
import type { Endpoint } from "../lib/ip.ts";
import type { Mac, PeerName } from "../lib/mac.ts";
import {
  COMMAND_FORGET_PEER,
  COMMAND_SPECIAL,
  EVENT_SPECIAL,
  EVENT_TOO_BIG,
  type FromThread,
  type SharedParts,
  type StartMessage,
} from "./packet_messages.ts";

/** What the packet thread tells. The generation is that of the connection it speaks of. */
export type DatapathEvent =
  & { readonly slot: number; readonly generation: number }
  & (
    | { readonly type: "special"; readonly kind: "heartbeat"; readonly uid: bigint; readonly from: Endpoint }
    | { readonly type: "special"; readonly kind: "fragmentationTest" }
    | { readonly type: "special"; readonly kind: "probe"; readonly mtu: number }
    /** A packet met EMSGSIZE; the path MTU is the kernel's, octets of the outer IP packet. */
    | { readonly type: "tooBig"; readonly pathMtu: number }
  );

export interface SpecialFrame {
  readonly frameOctets: number;
  readonly df: boolean;
  /** Of the connection: makes it a heartbeat, of 22 octets. */
  readonly uid?: bigint;
}

export interface FdbRow {
  readonly mac: Mac;
  readonly peer: PeerName;
  /** Wall clock, to the minute. */
  readonly lastSeenMs: number;
}

/** Descriptors and limits; the descriptors stay the caller's, who closes them after `stop()`. */
export interface DatapathOptions {
  readonly ourName: PeerName;
  readonly tapFd: number;
  /** UDP socket that sends what must not be fragmented. */
  readonly dfFd: number;
  /** UDP socket on the same port that sends what may be fragmented. Both are read. */
  readonly plainFd: number;
  /** An eventfd, nonblocking, and what signals it. */
  readonly wake: { readonly fd: number; signal(): void };
  /** Whether the TAP takes super-frames of UDP (USO). */
  readonly tapUdpSegments: boolean;
  /** Use the WebAssembly build of libsodium even where the library is, to measure it. */
  readonly webAssemblyBoxes?: boolean;
  readonly onEvent: (event: DatapathEvent) => void;
  /** The packet thread died; it moves nothing any more. Not called after `stop()`. */
  readonly onCrash: (error: Error) => void;
}

const HEARTBEAT_OCTETS = 22;
const FRAGMENTATION_TEST_OCTETS = 60001;
const ETHERNET_HEADER = 14;
const STOP_LIMIT_MS = 1000;
const EVENTS_PER_TURN = 512;

export class Datapath {
  /** Which implementation of secret boxes the packet thread found. */
  readonly secretBox: string;
  readonly #options: DatapathOptions;
  readonly #shared: SharedParts;
  readonly #tables: TableWriter;
  readonly #commands: RingWriter;
  readonly #events: RingReader;
  readonly #counters: Counters;
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  #stopping = false;

  private constructor(
    o: DatapathOptions,
    shared: SharedParts,
    worker: Worker,
    secretBox: string,
  ) {
    this.#options = o;
    this.#shared = shared;
    this.#worker = worker;
    this.secretBox = secretBox;
    this.#tables = new TableWriter(shared.tables);
    this.#commands = new RingWriter(shared.commands);
    this.#events = new RingReader(shared.events);
    this.#counters = new Counters(shared.counters);
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#ended = promise;
    const crashed = (message: string) => {
      resolve();
      if (!this.#stopping) o.onCrash(new Error(`Packet thread died: ${message}`));
    };
    worker.onmessage = (event: MessageEvent<FromThread>) => {
      if (event.data.type === "events") this.#drainEvents();
      else if (event.data.type === "stopped") resolve();
      else if (event.data.type === "crashed") crashed(event.data.message);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      crashed(event.message);
    };
  }

  /** Starts the packet thread. Rejects when it cannot begin, a library or descriptor missing, say. */
  static start(o: DatapathOptions): Promise<Datapath> {
    const shared: SharedParts = {
      tables: new SharedArrayBuffer(TABLES_OCTETS),
      fdb: new SharedArrayBuffer(FDB_OCTETS),
      counters: new SharedArrayBuffer(countersOctets(SLOTS)),
      commands: new SharedArrayBuffer(RING_OCTETS),
      events: new SharedArrayBuffer(RING_OCTETS),
    };
    const worker = new Worker(new URL("./packet_thread.ts", import.meta.url), { type: "module", name: "packets" });
    const { promise, resolve, reject } = Promise.withResolvers<Datapath>();
    const failed = (message: string) => {
      worker.terminate();
      reject(new Error(`Cannot start packet thread: ${message}`));
    };
    worker.onmessage = (event: MessageEvent<FromThread>) => {
      if (event.data.type === "started") resolve(new Datapath(o, shared, worker, event.data.secretBox));
      else if (event.data.type === "crashed") failed(event.data.message);
    };
    worker.onerror = (event) => {
      event.preventDefault();
      failed(event.message);
    };
    const { ourName, tapFd, dfFd, plainFd, wake, tapUdpSegments, webAssemblyBoxes = false } = o;
    const wakeFd = wake.fd;
    const start: StartMessage = { shared, ourName, tapFd, dfFd, plainFd, wakeFd, tapUdpSegments, webAssemblyBoxes };
    worker.postMessage(start);
    return promise;
  }

  /** Connections there may be at one time: slots are 0 to this less one. */
  static readonly slots = SLOTS;

  /** Makes a connection known, or changes it, or (undefined) takes it away. */
  publishConnection(slot: number, connection: ConnectionEntry | undefined): void {
    this.#tables.publishConnection(slot, connection);
    this.#options.wake.signal();
  }

  /** Replaces all routes; the fdb forgets peers that are not among them. Returns how many peers there was no room for. */
  publishRoutes(routes: { readonly peers: readonly PeerRoutes[] }): number {
    const leftOut = this.#tables.publishRoutes(this.#options.ourName, routes.peers);
    this.#options.wake.signal();
    return leftOut;
  }

  /** Sends a message of the carrier on a connection; dropped when it has no address, or is another by then. */
  sendSpecial(slot: number, generation: number, frame: SpecialFrame): void {
    const uid = frame.uid ?? 0n;
    this.#command(
      COMMAND_SPECIAL,
      slot,
      generation,
      frame.frameOctets,
      frame.df ? 1 : 0,
      Number(uid >> 32n),
      Number(uid & 0xffff_ffffn),
    );
  }

  /** Forgets the addresses learned at a peer. */
  forgetPeer(name: PeerName): void {
    const index = this.#tables.indexOf(name);
    if (index >= 0) this.#command(COMMAND_FORGET_PEER, index);
  }

  counters(): CounterSnapshot {
    return this.#counters.snapshot();
  }

  slotCounters(slot: number): SlotCounts {
    return this.#counters.slot(slot);
  }

  fdb(): FdbRow[] {
    const now = Date.now();
    return listFdb(this.#shared.fdb).map((e) => ({
      mac: e.mac,
      peer: this.#tables.peerAt(e.peer),
      lastSeenMs: now - e.ageS * 1000,
    }));
  }

  /** Ends the packet thread; resolves when it has ended, after a second at the latest. */
  async stop(): Promise<void> {
    if (this.#stopping) return this.#ended;
    this.#stopping = true;
    this.#tables.requestStop();
    this.#options.wake.signal();
    let timer: number | undefined;
    const late = new Promise<void>((resolve) => timer = setTimeout(resolve, STOP_LIMIT_MS));
    await Promise.race([this.#ended, late]);
    clearTimeout(timer);
    this.#worker.terminate();
  }

  #command(...record: number[]): void {
    const at = this.#commands.reserve();
    // A thousand commands unread: the packet thread is not there, which onCrash says.
    if (at < 0) return;
    record.forEach((word, i) => this.#commands.words[at + i] = word);
    this.#commands.commit();
    this.#options.wake.signal();
  }

  /** Takes a bounded number of events: while more come in all the time, the others on this thread have their turn. */
  #drainEvents(): void {
    this.#events.rearm();
    for (let taken = 0, at = this.#events.peek(); at >= 0; at = this.#events.peek()) {
      if (taken++ === EVENTS_PER_TURN) {
        setTimeout(() => this.#drainEvents(), 0);
        return;
      }
      const event = readEvent(this.#events.words, at);
      this.#events.release();
      if (event && !this.#stopping) this.#options.onEvent(event);
    }
  }
}

function readEvent(words: Uint32Array, at: number): DatapathEvent | undefined {
  const slot = words[at + 1]!, generation = words[at + 2]!;
  if (words[at] === EVENT_TOO_BIG) return { type: "tooBig", slot, generation, pathMtu: words[at + 3]! };
  if (words[at] !== EVENT_SPECIAL) return undefined;
  const octets = words[at + 3]!;
  if (octets === FRAGMENTATION_TEST_OCTETS) return { type: "special", kind: "fragmentationTest", slot, generation };
  if (octets !== HEARTBEAT_OCTETS) {
    return { type: "special", kind: "probe", slot, generation, mtu: octets - ETHERNET_HEADER };
  }
  const uid = BigInt(words[at + 6]!) << 32n | BigInt(words[at + 7]!);
  return {
    type: "special",
    kind: "heartbeat",
    slot,
    generation,
    uid,
    from: { address: words[at + 4]!, port: words[at + 5]! },
  };
}
