/**
 * What the main thread tells the packet thread, in memory both have: connections, peers and routes. The main thread alone
 * writes. It makes a version odd, writes, makes it even again; the packet thread copies everything when the version has moved,
 * and keeps what it had when the version is odd or moves under the copy.
 *
 *     words 0-7     0 version of the connections · 1 connection records in use (highest slot + 1)
 *                   2 version of the peers · 3 peer records in use · 4 index of our own peer record
 *                   5 not zero: the packet thread shall end · 6, 7 unused
 *     then          SLOTS connection records of 20 words
 *         0         flags, see SLOT_…
 *         1         generation: another number is another connection
 *         2, 3      the peer's name: high 16 bits, low 32 bits
 *         4, 5      remote address (first octet most significant), remote port
 *         6, 7      overlay MTU, maximum UDP payload; octets
 *         8-15      key, 32 octets as they are
 *         16-19     unused
 *     then          PEERS peer records of 36 words
 *         0, 1      name: high 16 bits (bit 31 set: in use), low 32 bits
 *         2         slot of the connection on the way there, 0xffffffff where there is none
 *         3         unused
 *         4-35      bit set of slots: where what this peer broadcasts goes on to
 */
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Endpoint } from "../lib/ip.ts";
import { hashName } from "./name_hash.ts";

/** Connections there may be at one time. */
export const SLOTS = 1024;
/** Peers there may be at one time, ourselves included. */
export const PEERS = 4096;
export const BITSET_WORDS = SLOTS / 32;

export const SLOT_PRESENT = 1;
/** We made the TCP connection. */
export const SLOT_OUTBOUND = 2;
export const SLOT_ENCRYPTED = 4;
/** Its packets are taken. */
export const SLOT_CONFIRMED = 8;
export const SLOT_ESTABLISHED = 16;
/** What is larger than the path MTU may be left to the kernel's fragmentation. */
export const SLOT_STACK_FRAGMENTS = 32;
export const SLOT_HAS_ADDRESS = 64;

const CONNECTION_VERSION = 0;
const CONNECTION_COUNT = 1;
const PEER_VERSION = 2;
const PEER_COUNT = 3;
const OUR_PEER = 4;
const STOP = 5;
const HEADER_WORDS = 8;
const SLOT_WORDS = 20;
const PEER_WORDS = 4 + BITSET_WORDS;
const FIRST_SLOT = HEADER_WORDS;
const FIRST_PEER = FIRST_SLOT + SLOTS * SLOT_WORDS;
const PEER_IN_USE = 0x8000_0000;

export const TABLES_OCTETS = (FIRST_PEER + PEERS * PEER_WORDS) * 4;

export interface ConnectionEntry {
  readonly peer: PeerName;
  /** Another number is another connection: sequence numbers and replay windows begin anew. */
  readonly generation: number;
  readonly outbound: boolean;
  /** Session key of the overlay; absent where packets travel in clear. */
  readonly key?: Uint8Array;
  readonly confirmed: boolean;
  readonly established: boolean;
  readonly remote?: Endpoint;
  /** Overlay MTU: the largest frame without its Ethernet header. */
  readonly mtu: number;
  /** Largest UDP payload that passes unfragmented. */
  readonly maxPayload: number;
  readonly stackFragments: boolean;
}

export interface PeerRoutes {
  readonly name: PeerName;
  /** Slot of the connection to the next hop; -1 where there is none (and for ourselves). */
  readonly unicastSlot: number;
  /** Slots to which a frame that this peer broadcasts goes on from here. */
  readonly broadcastSlots: readonly number[];
}

/** The main thread's side. */
export class TableWriter {
  readonly #words: Uint32Array;
  readonly #control: Int32Array;
  /** Where each known peer's record is; it stays there as long as the peer is known. */
  readonly #indexOf = new Map<PeerName, number>();
  readonly #nameAt: PeerName[] = [];

  constructor(memory: ArrayBufferLike) {
    this.#words = new Uint32Array(memory);
    this.#control = new Int32Array(memory);
  }

  /** Writes a connection's record, or clears it. Throws RangeError for a slot that is none. */
  publishConnection(slot: number, entry: ConnectionEntry | undefined): void {
    if (!(slot >= 0 && slot < SLOTS)) throw new RangeError(`Cannot publish slot ${slot}: must be below ${SLOTS}`);
    const words = this.#words;
    const at = FIRST_SLOT + slot * SLOT_WORDS;
    Atomics.add(this.#control, CONNECTION_VERSION, 1);
    words.fill(0, at, at + SLOT_WORDS);
    if (entry) {
      words[at] = flagsOf(entry);
      words[at + 1] = entry.generation;
      words[at + 2] = Math.floor(entry.peer / 0x1_0000_0000);
      words[at + 3] = entry.peer % 0x1_0000_0000;
      words[at + 4] = entry.remote?.address ?? 0;
      words[at + 5] = entry.remote?.port ?? 0;
      words[at + 6] = entry.mtu;
      words[at + 7] = entry.maxPayload;
      if (entry.key) new Uint8Array(words.buffer, (at + 8) * 4, 32).set(entry.key);
      words[CONNECTION_COUNT] = Math.max(words[CONNECTION_COUNT]!, slot + 1);
    }
    Atomics.add(this.#control, CONNECTION_VERSION, 1);
  }

  /** Replaces all peers and their routes. Those beyond the table's room are left out; returns how many. */
  publishRoutes(ourName: PeerName, routes: readonly PeerRoutes[]): number {
    const names = new Set(routes.map((r) => r.name));
    for (const [name, index] of this.#indexOf) {
      if (names.has(name)) continue;
      this.#indexOf.delete(name);
      this.#nameAt[index] = NO_PEER;
    }
    let leftOut = 0;
    Atomics.add(this.#control, PEER_VERSION, 1);
    this.#words.fill(0, FIRST_PEER, FIRST_PEER + this.#words[PEER_COUNT]! * PEER_WORDS);
    for (const route of routes) if (!this.#writePeer(route)) leftOut++;
    this.#words[PEER_COUNT] = this.#nameAt.length;
    this.#words[OUR_PEER] = this.#indexOf.get(ourName) ?? 0xffff_ffff;
    Atomics.add(this.#control, PEER_VERSION, 1);
    return leftOut;
  }

  /** The name of the peer record at an index, as fdb entries have it. */
  peerAt(index: number): PeerName {
    return this.#nameAt[index] ?? NO_PEER;
  }

  indexOf(name: PeerName): number {
    return this.#indexOf.get(name) ?? -1;
  }

  /** Tells the packet thread to end; it must be woken besides. */
  requestStop(): void {
    Atomics.store(this.#control, STOP, 1);
  }

  #writePeer(route: PeerRoutes): boolean {
    const words = this.#words;
    const index = this.#indexOf.get(route.name) ?? this.#place(route.name);
    if (index < 0) return false;
    const at = FIRST_PEER + index * PEER_WORDS;
    words[at] = PEER_IN_USE + Math.floor(route.name / 0x1_0000_0000);
    words[at + 1] = route.name % 0x1_0000_0000;
    words[at + 2] = route.unicastSlot;
    for (const slot of route.broadcastSlots) {
      const word = at + 4 + (slot >>> 5);
      words[word] = words[word]! | 1 << (slot & 31);
    }
    return true;
  }

  #place(name: PeerName): number {
    let index = this.#nameAt.indexOf(NO_PEER);
    if (index < 0) index = this.#nameAt.length;
    if (index >= PEERS) return -1;
    this.#nameAt[index] = name;
    this.#indexOf.set(name, index);
    return index;
  }
}

function flagsOf(entry: ConnectionEntry): number {
  return SLOT_PRESENT | (entry.outbound ? SLOT_OUTBOUND : 0) | (entry.key ? SLOT_ENCRYPTED : 0) |
    (entry.confirmed ? SLOT_CONFIRMED : 0) | (entry.established ? SLOT_ESTABLISHED : 0) |
    (entry.stackFragments ? SLOT_STACK_FRAGMENTS : 0) | (entry.remote ? SLOT_HAS_ADDRESS : 0);
}

/** Told of what a refresh changed, for what hangs on a connection or peer. */
export interface TableListener {
  /** Another connection than before is in the slot, or none. */
  connectionReplaced(slot: number): void;
  /** The slot's address, limits or flags may be others. */
  connectionChanged(slot: number): void;
  /** The peer at this index is another than before, or gone. */
  peerReplaced(index: number): void;
}

/** The packet thread's side: a private copy, one array per field, and name look-up. */
export class Tables {
  readonly slotFlags = new Uint32Array(SLOTS);
  readonly slotGeneration = new Uint32Array(SLOTS);
  readonly slotMtu = new Uint32Array(SLOTS);
  readonly slotMaxPayload = new Uint32Array(SLOTS);
  readonly slotAddress = new Uint32Array(SLOTS);
  readonly slotPort = new Uint32Array(SLOTS);
  readonly slotNameHigh = new Uint32Array(SLOTS);
  readonly slotNameLow = new Uint32Array(SLOTS);
  /** 8 words a slot. */
  readonly slotKey = new Uint32Array(SLOTS * 8);
  readonly peerHigh = new Uint32Array(PEERS);
  readonly peerLow = new Uint32Array(PEERS);
  /** Slot on the way, -1 for none. */
  readonly peerRoute = new Int32Array(PEERS);
  /** BITSET_WORDS words a peer. */
  readonly peerBroadcast = new Uint32Array(PEERS * BITSET_WORDS);
  slotCount = 0;
  peerCount = 0;
  /** Index of our own record; -1 before the first routes came. */
  ourPeer = -1;

  readonly #control: Int32Array;
  readonly #shared: Uint32Array;
  readonly #slotsCopy = new Uint32Array(SLOTS * SLOT_WORDS);
  readonly #peersCopy = new Uint32Array(PEERS * PEER_WORDS);
  readonly #slotsByName = new NameIndex(SLOTS);
  readonly #peersByName = new NameIndex(PEERS);
  #connectionVersion = 0;
  #peerVersion = 0;

  constructor(memory: ArrayBufferLike) {
    this.#control = new Int32Array(memory);
    this.#shared = new Uint32Array(memory);
  }

  get stopRequested(): boolean {
    return Atomics.load(this.#control, STOP) !== 0;
  }

  /** Slot of the confirmed connection to the peer of this name, or -1. */
  slotOf(high: number, low: number): number {
    return this.#slotsByName.find(high, low);
  }

  /** Index of the known peer of this name, or -1. */
  peerOf(high: number, low: number): number {
    return this.#peersByName.find(high, low);
  }

  /** Takes over what was published since the last call; two loads when nothing was. */
  refresh(listener: TableListener): void {
    if (Atomics.load(this.#control, CONNECTION_VERSION) !== this.#connectionVersion) this.#refreshConnections(listener);
    if (Atomics.load(this.#control, PEER_VERSION) !== this.#peerVersion) this.#refreshPeers(listener);
  }

  #refreshConnections(listener: TableListener): void {
    const version = Atomics.load(this.#control, CONNECTION_VERSION);
    if ((version & 1) !== 0) return;
    const count = Math.min(this.#shared[CONNECTION_COUNT]!, SLOTS);
    this.#slotsCopy.set(this.#shared.subarray(FIRST_SLOT, FIRST_SLOT + count * SLOT_WORDS));
    if (Atomics.load(this.#control, CONNECTION_VERSION) !== version) return;
    this.#connectionVersion = version;
    this.slotCount = count;
    for (let slot = 0; slot < count; slot++) this.#takeSlot(slot, listener);
    this.#indexSlots();
  }

  #takeSlot(slot: number, listener: TableListener): void {
    const words = this.#slotsCopy;
    const at = slot * SLOT_WORDS;
    const replaced = ((this.slotFlags[slot]! ^ words[at]!) & SLOT_PRESENT) !== 0 ||
      this.slotGeneration[slot] !== words[at + 1];
    this.slotFlags[slot] = words[at]!;
    this.slotGeneration[slot] = words[at + 1]!;
    this.slotNameHigh[slot] = words[at + 2]!;
    this.slotNameLow[slot] = words[at + 3]!;
    this.slotAddress[slot] = words[at + 4]!;
    this.slotPort[slot] = words[at + 5]!;
    this.slotMtu[slot] = words[at + 6]!;
    this.slotMaxPayload[slot] = words[at + 7]!;
    for (let i = 0; i < 8; i++) this.slotKey[slot * 8 + i] = words[at + 8 + i]!;
    if (replaced) listener.connectionReplaced(slot);
    listener.connectionChanged(slot);
  }

  /** While a connection takes the place of another to the same peer, the newer one has the name. */
  #indexSlots(): void {
    this.#slotsByName.clear();
    for (let slot = 0; slot < this.slotCount; slot++) {
      if ((this.slotFlags[slot]! & SLOT_CONFIRMED) === 0) continue;
      const high = this.slotNameHigh[slot]!, low = this.slotNameLow[slot]!;
      const other = this.#slotsByName.find(high, low);
      if (other >= 0 && this.slotGeneration[other]! > this.slotGeneration[slot]!) continue;
      this.#slotsByName.put(high, low, slot);
    }
  }

  #refreshPeers(listener: TableListener): void {
    const version = Atomics.load(this.#control, PEER_VERSION);
    if ((version & 1) !== 0) return;
    const count = Math.min(this.#shared[PEER_COUNT]!, PEERS);
    const ourPeer = this.#shared[OUR_PEER]! | 0;
    this.#peersCopy.set(this.#shared.subarray(FIRST_PEER, FIRST_PEER + count * PEER_WORDS));
    if (Atomics.load(this.#control, PEER_VERSION) !== version) return;
    this.#peerVersion = version;
    this.#peersByName.clear();
    this.peerCount = count;
    this.ourPeer = ourPeer;
    for (let index = 0; index < count; index++) this.#takePeer(index, listener);
  }

  #takePeer(index: number, listener: TableListener): void {
    const words = this.#peersCopy;
    const at = index * PEER_WORDS;
    const inUse = (words[at]! & PEER_IN_USE) !== 0;
    const high = words[at]! & 0xffff, low = words[at + 1]!;
    const replaced = this.peerHigh[index] !== high || this.peerLow[index] !== low;
    this.peerHigh[index] = high;
    this.peerLow[index] = low;
    this.peerRoute[index] = inUse ? words[at + 2]! | 0 : -1;
    for (let i = 0; i < BITSET_WORDS; i++) this.peerBroadcast[index * BITSET_WORDS + i] = words[at + 4 + i]!;
    if (inUse) this.#peersByName.put(high, low, index);
    if (replaced) listener.peerReplaced(index);
  }
}

/** Name → number, rebuilt whole whenever the names change. Makes no garbage. */
class NameIndex {
  readonly #high: Uint32Array;
  readonly #low: Uint32Array;
  readonly #value: Int32Array;
  readonly #mask: number;

  /** @param capacity a power of two; at most as many names are put */
  constructor(capacity: number) {
    this.#high = new Uint32Array(capacity * 2);
    this.#low = new Uint32Array(capacity * 2);
    this.#value = new Int32Array(capacity * 2).fill(-1);
    this.#mask = capacity * 2 - 1;
  }

  clear(): void {
    this.#value.fill(-1);
  }

  find(high: number, low: number): number {
    for (let i = hashName(high, low) & this.#mask;; i = (i + 1) & this.#mask) {
      const value = this.#value[i]!;
      if (value < 0 || (this.#low[i] === low && this.#high[i] === high)) return value;
    }
  }

  put(high: number, low: number, value: number): void {
    let i = hashName(high, low) & this.#mask;
    while (this.#value[i]! >= 0 && (this.#low[i] !== low || this.#high[i] !== high)) i = (i + 1) & this.#mask;
    this.#high[i] = high;
    this.#low[i] = low;
    this.#value[i] = value;
  }
}
