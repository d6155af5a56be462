/**
 * What the packet thread counts, in memory it shares with the main thread: it alone writes, the main thread reads at any time.
 * A count is a double in one aligned cell, so that a reader never sees half of one.
 */

/** Why a frame or packet went no further, with the words `status` has for it. The order is that of the cells. */
const DROP_TEXTS = {
  shortPacket: "packet shorter than its header",
  unknownSender: "packet from a name without a confirmed connection",
  undecryptable: "packet that does not open with the connection's key",
  replayed: "packet seen before, or too old to know",
  malformedPacket: "octets in a packet that are no frame",
  malformedFrame: "frame that is shorter than its headers say",
  unknownSourcePeer: "frame from a peer we do not know",
  unknownDestinationPeer: "frame for a peer we do not know",
  ownFrame: "frame of ours that came back",
  noRoute: "no connection leads to the peer",
  noAddress: "the connection has no remote address yet",
  broadcastTooBig: "frame above the path MTU, not to be fragmented, for several peers",
  tooBig: "frame above the path MTU, not to be fragmented",
  oversized: "frame that no packet can hold",
  macElsewhere: "captured frame whose sender is known at another peer",
  macHere: "captured frame whose receiver is here too",
  spanningTree: "captured spanning-tree frame",
  foreignSpecial: "special frame that is not between us and the connection's peer",
  queueFull: "no room in the sending queue",
  txError: "the kernel refused to send",
  txTooBig: "the kernel found the packet above the path MTU",
  tapTooBig: "frame above what the TAP takes (65521)",
  tapError: "the kernel refused the frame at the TAP",
  eventLost: "more than the main thread can be told",
} as const;

export type DropReason = keyof typeof DROP_TEXTS;
export const DROP_REASONS = Object.keys(DROP_TEXTS) as readonly DropReason[];
/** Index of each reason, for the packet path. */
export const DROP: Readonly<Record<DropReason, number>> = Object.freeze(
  Object.fromEntries(DROP_REASONS.map((name, i) => [name, i])) as Record<DropReason, number>,
);

/** What happened otherwise, per thread. */
const TOTALS = [
  "capturedFrames", // read from the TAP; a super-frame counts once
  "capturedOctets",
  "injectedFrames", // written to the TAP; a super-frame counts once
  "injectedOctets",
  "gluedSegments", // received segments that went into super-frames
  "relayedFrames",
  "floodedFrames",
  "fragmentedFrames",
  "icmpSent",
  "fdbMoves",
  "fdbFull", // addresses not learned for want of room
  "sendCalls",
  "receiveCalls",
  "wakeUps",
  "gsoRefused", // runs sent again packet by packet
] as const;
export type Total = typeof TOTALS[number];
/** Index of each total among the cells. */
export const TOTAL: Readonly<Record<Total, number>> = Object.freeze(
  Object.fromEntries(TOTALS.map((name, i) => [name, DROP_REASONS.length + i])) as Record<Total, number>,
);

const SLOT_COUNTS = ["txPackets", "txOctets", "rxPackets", "rxOctets"] as const;
const PER_SLOT = SLOT_COUNTS.length;
const FIRST_SLOT = DROP_REASONS.length + TOTALS.length;

/** Counts of one connection since its generation began. Octets are UDP payload. */
export type SlotCounts = Record<typeof SLOT_COUNTS[number], number>;

export interface CounterSnapshot {
  readonly drops: Readonly<Record<DropReason, number>>;
  readonly totals: Readonly<Record<Total, number>>;
}

export function countersOctets(slots: number): number {
  return (FIRST_SLOT + slots * PER_SLOT) * 8;
}

export class Counters {
  /** The cells themselves: `cells[DROP.noRoute]!++` on the packet path. */
  readonly cells: Float64Array;

  constructor(memory: ArrayBufferLike) {
    this.cells = new Float64Array(memory);
  }

  drop(reason: number): void {
    this.cells[reason] = this.cells[reason]! + 1;
  }

  add(total: number, amount: number): void {
    this.cells[total] = this.cells[total]! + amount;
  }

  sent(slot: number, packets: number, octets: number): void {
    const at = FIRST_SLOT + slot * PER_SLOT;
    this.cells[at] = this.cells[at]! + packets;
    this.cells[at + 1] = this.cells[at + 1]! + octets;
  }

  received(slot: number, octets: number): void {
    const at = FIRST_SLOT + slot * PER_SLOT + 2;
    this.cells[at] = this.cells[at]! + 1;
    this.cells[at + 1] = this.cells[at + 1]! + octets;
  }

  /** Packet thread: a new connection begins in the slot. */
  resetSlot(slot: number): void {
    const at = FIRST_SLOT + slot * PER_SLOT;
    this.cells.fill(0, at, at + PER_SLOT);
  }

  snapshot(): CounterSnapshot {
    return {
      drops: Object.fromEntries(DROP_REASONS.map((name, i) => [name, this.cells[i]!])) as Record<DropReason, number>,
      totals: Object.fromEntries(TOTALS.map((name) => [name, this.cells[TOTAL[name]]!])) as Record<Total, number>,
    };
  }

  slot(slot: number): SlotCounts {
    const at = FIRST_SLOT + slot * PER_SLOT;
    return Object.fromEntries(SLOT_COUNTS.map((name, i) => [name, this.cells[at + i]!])) as SlotCounts;
  }
}

/** What to show a person for a reason. */
export function dropText(reason: DropReason): string {
  return DROP_TEXTS[reason];
}
