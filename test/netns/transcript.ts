/** What the router under test says on one control connection: octets on one side, cut into header, flag, key and messages; words on the other. */

import type { ControlBoxes } from "../../ffi/control_boxes.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { wordsOfFeatures, wordsOfMessage } from "./words.ts";

export interface TranscriptOptions {
  readonly speaker: PeerName;
  /** The speaker made the connection. */
  readonly outbound: boolean;
  readonly boxes: ControlBoxes;
  /** What the speaker seals with, who has just sent this public key; undefined where that cannot be known. */
  readonly keyFor: (publicKey: Uint8Array) => Uint8Array | undefined;
  readonly onWord: (word: string) => void;
}

const HEADER_OCTETS = 7;
const KEY_OCTETS = 32;
const LENGTH_OCTETS = 4;
const NONCE_OCTETS = 24;

export class Transcript {
  readonly #o: TranscriptOptions;
  #pending = new Uint8Array();
  #part: "header" | "flag" | "key" | "features" | "messages" = "header";
  #sealed = false;
  #key: Uint8Array | undefined;
  #frames = 0n;

  constructor(o: TranscriptOptions) {
    this.#o = o;
  }

  add(octets: Uint8Array): void {
    this.#pending = new Uint8Array([...this.#pending, ...octets]);
    for (let length = this.#nextLength(); this.#pending.length >= length; length = this.#nextLength()) {
      const part = this.#pending.slice(0, length);
      this.#pending = this.#pending.slice(length);
      for (const word of this.#wordsOf(part)) this.#o.onWord(word);
    }
  }

  #nextLength(): number {
    switch (this.#part) {
      case "header":
        return HEADER_OCTETS;
      case "flag":
        return 1;
      case "key":
        return KEY_OCTETS;
      default: {
        if (this.#pending.length < LENGTH_OCTETS) return LENGTH_OCTETS;
        return LENGTH_OCTETS + new DataView(this.#pending.buffer).getUint32(0);
      }
    }
  }

  #wordsOf(part: Uint8Array): string[] {
    switch (this.#part) {
      case "header":
        this.#part = "flag";
        return [`header ${part.toHex()}`];
      case "flag":
        this.#sealed = part[0] === 1;
        this.#part = this.#sealed ? "key" : "features";
        return [`flag ${part.toHex()}`];
      case "key":
        this.#part = "features";
        this.#key = this.#o.keyFor(part);
        return [`key ${part.toHex()}`];
      case "features": {
        this.#part = "messages";
        return [wordsOfFeatures(this.#opened(part))];
      }
      case "messages":
        return wordsOfMessage(this.#opened(part), this.#o.speaker);
      default:
        return this.#part satisfies never;
    }
  }

  #opened(frame: Uint8Array): Uint8Array {
    const message = frame.subarray(LENGTH_OCTETS);
    if (!this.#sealed) return message;
    const nonce = new Uint8Array(NONCE_OCTETS);
    nonce[0] = this.#o.outbound ? 0xc0 : 0x40;
    new DataView(nonce.buffer).setBigUint64(NONCE_OCTETS - 8, this.#frames++);
    const opened = this.#key && this.#o.boxes.open(message, nonce, this.#key);
    if (!opened) throw new Error(`Cannot open a message of the router under test: ${message.toHex()}`);
    return opened;
  }
}
