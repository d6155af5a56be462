/** What the main thread and the packet thread say to each other, apart from the tables: a start message, and records of two rings. */
import type { PeerName } from "../lib/mac.ts";

/** Shared memory, one buffer each. */
export interface SharedParts {
  readonly tables: SharedArrayBuffer;
  readonly fdb: SharedArrayBuffer;
  readonly counters: SharedArrayBuffer;
  /** To the packet thread. */
  readonly commands: SharedArrayBuffer;
  /** From the packet thread. */
  readonly events: SharedArrayBuffer;
}

export interface StartMessage {
  readonly shared: SharedParts;
  readonly ourName: PeerName;
  readonly tapFd: number;
  /** Sends what must not be fragmented. */
  readonly dfFd: number;
  /** Sends what may be fragmented. */
  readonly plainFd: number;
  /** An eventfd that wakes the packet thread. */
  readonly wakeFd: number;
  /** Whether the TAP takes super-frames of UDP. */
  readonly tapUdpSegments: boolean;
  /** Use the WebAssembly build of libsodium even where the library is. */
  readonly webAssemblyBoxes: boolean;
}

export type FromThread =
  | { readonly type: "started"; readonly secretBox: string }
  /** There is something in the event ring. */
  | { readonly type: "events" }
  | { readonly type: "stopped" }
  | { readonly type: "crashed"; readonly message: string };

/** Records of the command ring. Word 0 is the kind. */
export const COMMAND_SPECIAL = 1; // 1 slot, 2 generation, 3 frame octets, 4 DF, 5 uid high, 6 uid low
export const COMMAND_FORGET_PEER = 2; // 1 index of the peer

/** Records of the event ring. Word 0 is the kind. */
export const EVENT_SPECIAL = 1; // 1 slot, 2 generation, 3 frame octets, 4 address, 5 port, 6 uid high, 7 uid low
export const EVENT_TOO_BIG = 2; // 1 slot, 2 generation, 3 path MTU
