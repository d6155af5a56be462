/**
 * Boxes of sleeve packets in the packet thread's memory: a key per connection, nonces made of the packet's own u64.
 *
 *     nonce:   octet 0: 0x80 if the sender made the TCP connection · 15 zero octets · the packet's u64
 *     packet:  name 6 | u64 8 | authenticator 16 | ciphertext
 */
import { openPacketBoxes, type PacketBoxes } from "../../ffi/packet_boxes.ts";
import type { PacketMemory } from "./packet_io.ts";

const U64_AT = 6;
const U64_OCTETS = 8;
const AUTHENTICATOR_AT = 14;
const TEXT_AT = 30;
const NONCE_OCTETS = 24;
const KEY_OCTETS = 32;

export class BoxIo {
  readonly #memory: PacketMemory;
  readonly #boxes: PacketBoxes;
  readonly #keysAt: number;
  readonly #nonceAt: number;
  readonly #outbound: Uint8Array;

  private constructor(memory: PacketMemory, boxes: PacketBoxes, slots: number) {
    this.#memory = memory;
    this.#boxes = boxes;
    this.#keysAt = memory.take(slots * KEY_OCTETS);
    this.#nonceAt = memory.take(NONCE_OCTETS);
    this.#outbound = new Uint8Array(slots);
  }

  static async open(memory: PacketMemory, slots: number, forceWebAssembly: boolean): Promise<BoxIo> {
    return new BoxIo(memory, await openPacketBoxes(memory.frames.u8, forceWebAssembly), slots);
  }

  /** Memory it takes. */
  static octets(slots: number): number {
    return slots * KEY_OCTETS + 128;
  }

  get implementation(): string {
    return this.#boxes.implementation;
  }

  /**
   * Sets a connection's key and which nonces are ours.
   * @param keys 8 words a slot, the key's octets as they are
   * @param outbound whether we made the TCP connection
   */
  setKey(slot: number, keys: Uint32Array, outbound: boolean): void {
    const at = (this.#keysAt + slot * KEY_OCTETS) >>> 2;
    for (let i = 0; i < 8; i++) this.#memory.frames.u32[at + i] = keys[slot * 8 + i]!;
    this.#outbound[slot] = outbound ? 1 : 0;
  }

  /** Makes the box of a packet whose name and u64 are written. */
  seal(slot: number, packet: number, text: number, octets: number): void {
    this.#writeNonce(packet, this.#outbound[slot] !== 0);
    const key = this.#keysAt + slot * KEY_OCTETS;
    this.#boxes.seal(packet + TEXT_AT, packet + AUTHENTICATOR_AT, text, octets, this.#nonceAt, key);
  }

  /** Opens a packet in its place. @param octets of the packet, at least 30 */
  open(slot: number, packet: number, octets: number): boolean {
    this.#writeNonce(packet, this.#outbound[slot] === 0);
    const key = this.#keysAt + slot * KEY_OCTETS;
    return this.#boxes.open(packet + TEXT_AT, packet + AUTHENTICATOR_AT, octets - TEXT_AT, this.#nonceAt, key);
  }

  #writeNonce(packet: number, senderIsOutbound: boolean): void {
    const m = this.#memory.frames;
    m.u8[this.#nonceAt] = senderIsOutbound ? 0x80 : 0;
    m.copy(this.#nonceAt + NONCE_OCTETS - U64_OCTETS, packet + U64_AT, U64_OCTETS);
  }
}
