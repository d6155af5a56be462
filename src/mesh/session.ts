/**
 * One control connection as octets on one side and values on the other: introduction, framing, encryption. Both sides send what they can
 * without waiting for the other; what follows the header depends on the version, so that alone is waited for.
 *
 *              their header      flag 0, no password here                        feature map
 *     header ───────────────▶ flag ──────────────────────────────▶ features ───────────────▶ open
 *                              │ flag 1, password here               ▲
 *                              └──────────────────────▶ key ─────────┘ their public key
 *
 *     from anywhere, when something is wrong or late: failed, which is the end
 *
 *     header    "weave" | u8 lowest version | u8 highest version
 *     flag      0: no password · 1: password, and a public key of 32 octets follows
 *     frame     u32 octets | message, sealed where there is a password; the first one is the feature map
 *     nonce     octet 0: 0x80 if the sender made the connection, and 0x40 | 15 zero octets | u64 number of the frame, from 0 on
 */
import { ProtocolError, WireError } from "../lib/errors.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import {
  decodeFeatures,
  decodeHeader,
  decodeMessage,
  encodeFeatures,
  encodeHeader,
  encodeMessage,
  type Features,
  HEADER_OCTETS,
  MAX_MESSAGE_OCTETS,
  type Message,
  negotiateVersion,
  PROTOCOL_VERSION,
} from "../wire/control.ts";
import { Assembly, LENGTH_OCTETS, OutputQueue } from "./frames.ts";

export interface KeyPair {
  readonly publicKey: Uint8Array;
  readonly privateKey: Uint8Array;
}

/** What the session needs of cryptography; keys have 32 octets, nonces 24. */
export interface SessionCrypto {
  generateKeyPair(): KeyPair;
  /** SHA-256 of the shared key (NaCl box, precomputed) and the password; undefined where their key is no use. */
  sessionKey(theirPublicKey: Uint8Array, ourPrivateKey: Uint8Array, password: Uint8Array): Uint8Array | undefined;
  /** Authenticator and ciphertext (NaCl secretbox), 16 octets longer than the message. */
  seal(message: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array;
  /** undefined where the authenticator is not right. */
  open(box: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array | undefined;
}

export interface SessionOptions {
  /** We made the connection. */
  readonly outbound: boolean;
  /** Ours, for this connection. */
  readonly features: Features;
  readonly password: Uint8Array | undefined;
  readonly crypto: SessionCrypto;
  /** Lowest protocol version that is offered; 2 is the one that is spoken, and the default. */
  readonly minVersion?: number;
  readonly now: Instant;
}

export type SessionEvent =
  /** Comes once, before any message. The key is there where both sides have a password. */
  | { readonly type: "introduced"; readonly features: Features; readonly sessionKey: Uint8Array | undefined }
  /** Its octets belong to whoever takes the event. */
  | { readonly type: "message"; readonly message: Message }
  /** The last event: the socket is to be closed. */
  | { readonly type: "failed"; readonly reason: string };

const HEADER_MS = 10_000;
const INTRODUCTION_MS = 60_000;
const KEY_OCTETS = 32;
const NONCE_OCTETS = 24;
const AUTHENTICATOR_OCTETS = 16;
/** The longest feature map that is accepted: real ones have 200 octets. */
const MAX_FEATURES_OCTETS = 65_536;

type State =
  | { readonly in: "header" }
  | { readonly in: "flag"; readonly keys: KeyPair | undefined }
  | { readonly in: "key"; readonly keys: KeyPair }
  | { readonly in: "features" }
  | { readonly in: "open"; readonly legacyOverlay: boolean }
  | { readonly in: "failed" };

export class Session {
  readonly #options: SessionOptions;
  readonly #input = new Assembly();
  readonly #output = new OutputQueue();
  readonly #events: SessionEvent[] = [];
  #nextEvent = 0;
  #state: State = { in: "header" };
  #deadline: Deadline | undefined;
  /** The length of the next frame is read: the frame itself comes now. */
  #inFrame = false;
  #sealing: Sealing | undefined;

  constructor(options: SessionOptions) {
    this.#options = options;
    this.#output.push(encodeHeader(this.#versions));
    this.#deadline = { at: options.now + HEADER_MS, why: "protocol header" };
    this.#input.expect(HEADER_OCTETS);
  }

  /**
   * Takes what the socket received, cut anywhere; the octets are not kept. What it makes of them waits in `pollEvent()`: take it all
   * before the next octets.
   */
  handleOctets(octets: Uint8Array, now: Instant): void {
    let at = 0;
    while (this.#state.in !== "failed") {
      at = this.#input.fill(octets, at);
      if (!this.#input.complete) return;
      try {
        this.#advance(now);
      } catch (error) {
        if (!(error instanceof WireError || error instanceof ProtocolError)) throw error;
        this.#fail(error.message);
      }
    }
  }

  handleTimeout(now: Instant): void {
    if (this.#deadline && now >= this.#deadline.at) this.#fail(`timed out waiting for ${this.#deadline.why}`);
  }

  /** Until the other side is introduced: later deadlines are the mesh's. */
  pollTimeout(): Deadline | undefined {
    return this.#deadline;
  }

  /** Only after the introduction; without effect once the session failed. */
  send(message: Message): void {
    if (this.#state.in === "failed") return;
    if (this.#state.in !== "open") throw new Error("Cannot send: the other side is not introduced yet");
    this.#sendFrame(encodeMessage(message, this.#state.legacyOverlay));
  }

  /** The next octets for the socket, a few messages at a time. They may be kept. */
  pollOctets(): Uint8Array | undefined {
    return this.#output.take();
  }

  pollEvent(): SessionEvent | undefined {
    if (this.#nextEvent < this.#events.length) return this.#events[this.#nextEvent++];
    this.#events.length = 0;
    this.#nextEvent = 0;
    return undefined;
  }

  /** Octets that `pollOctets()` would still return. */
  get queuedOctets(): number {
    return this.#output.octets;
  }

  /** Takes the unit that is complete, and says what comes next. */
  #advance(now: Instant): void {
    const state = this.#state;
    switch (state.in) {
      case "header":
        return this.#takeHeader(now);
      case "flag":
        return this.#takeFlag(state.keys);
      case "key":
        return this.#takeKey(state.keys);
      case "features":
      case "open":
        return this.#inFrame ? this.#takeFrame() : this.#takeLength();
      case "failed":
        return;
      default:
        state satisfies never;
    }
  }

  #takeHeader(now: Instant): void {
    const theirs = decodeHeader(this.#input.take());
    if (negotiateVersion(this.#versions, theirs) !== PROTOCOL_VERSION) {
      negotiateVersion({ min: PROTOCOL_VERSION, max: PROTOCOL_VERSION }, theirs); // throws: offered, but not spoken here
    }
    this.#deadline = { at: now + INTRODUCTION_MS, why: "introduction" };
    const keys = this.#options.password && this.#options.crypto.generateKeyPair();
    this.#state = { in: "flag", keys };
    this.#input.expect(1);
    if (keys) {
      this.#output.push(Uint8Array.of(1));
      this.#output.push(keys.publicKey.slice());
    } else {
      this.#output.push(Uint8Array.of(0));
      this.#sendFrame(encodeFeatures(this.#options.features));
    }
  }

  #takeFlag(keys: KeyPair | undefined): void {
    const flag = this.#input.take()[0]!;
    if (flag > 1) throw new ProtocolError(`Bad encryption flag ${flag}`);
    if (flag === 0 && keys) {
      throw new ProtocolError("password specified, but peer requested an unencrypted connection");
    }
    if (flag === 1 && !keys) { // misspelt as in Weave Net 2.8, for whoever looks for it
      throw new ProtocolError("no password specificed, but peer requested an encrypted connection");
    }
    if (keys) {
      this.#state = { in: "key", keys };
      this.#input.expect(KEY_OCTETS);
    } else this.#expectFeatures();
  }

  #takeKey(keys: KeyPair): void {
    const { crypto, password, outbound, features } = this.#options;
    const key = crypto.sessionKey(this.#input.take(), keys.privateKey, password!);
    if (!key) throw new ProtocolError("Cannot agree on a session key: the public key of the peer is no use");
    this.#sealing = new Sealing(crypto, key, outbound);
    this.#sendFrame(encodeFeatures(features));
    this.#expectFeatures();
  }

  #expectFeatures(): void {
    this.#state = { in: "features" };
    this.#input.expect(LENGTH_OCTETS);
  }

  #takeLength(): void {
    const limit = this.#state.in === "open" ? MAX_MESSAGE_OCTETS : MAX_FEATURES_OCTETS;
    const b = this.#input.take();
    const length = (b[0]! << 24 | b[1]! << 16 | b[2]! << 8 | b[3]!) >>> 0;
    if (length > limit) throw new ProtocolError(`incoming message exceeds maximum size: ${length} > ${limit}`);
    this.#inFrame = true;
    this.#input.expect(length);
  }

  #takeFrame(): void {
    const message = this.#sealing ? this.#sealing.open(this.#input.take()) : this.#input.takeOwn();
    this.#inFrame = false;
    this.#input.expect(LENGTH_OCTETS);
    if (this.#state.in === "open") this.#events.push({ type: "message", message: decodeMessage(message) });
    else this.#takeFeatures(message);
  }

  #takeFeatures(message: Uint8Array): void {
    const features = decodeFeatures(message);
    this.#state = { in: "open", legacyOverlay: features.overlays === undefined };
    this.#deadline = undefined;
    this.#events.push({ type: "introduced", features, sessionKey: this.#sealing?.key });
  }

  #sendFrame(message: Uint8Array): void {
    const frameOctets = message.length + (this.#sealing ? AUTHENTICATOR_OCTETS : 0);
    if (frameOctets > MAX_MESSAGE_OCTETS) {
      return this.#fail(`outgoing message exceeds maximum size: ${frameOctets} > ${MAX_MESSAGE_OCTETS}`);
    }
    this.#output.pushFrame(this.#sealing ? this.#sealing.seal(message) : message);
  }

  #fail(reason: string): void {
    this.#state = { in: "failed" };
    this.#deadline = undefined;
    this.#input.expect(0);
    this.#events.push({ type: "failed", reason });
  }

  get #versions() {
    return { min: this.#options.minVersion ?? PROTOCOL_VERSION, max: PROTOCOL_VERSION };
  }
}

/** The boxes of one connection: a key, and the numbers of the frames in both directions. */
class Sealing {
  readonly #ourNonce: Uint8Array;
  readonly #theirNonce: Uint8Array;
  #sent = 0;
  #received = 0;

  constructor(readonly crypto: SessionCrypto, readonly key: Uint8Array, outbound: boolean) {
    this.#ourNonce = firstNonce(outbound);
    this.#theirNonce = firstNonce(!outbound);
  }

  seal(message: Uint8Array): Uint8Array {
    return this.crypto.seal(message, numbered(this.#ourNonce, this.#sent++), this.key);
  }

  open(box: Uint8Array): Uint8Array {
    const message = this.crypto.open(box, numbered(this.#theirNonce, this.#received++), this.key);
    if (!message) throw new ProtocolError("Unable to decrypt TCP msg");
    return message;
  }
}

function firstNonce(senderIsOutbound: boolean): Uint8Array {
  const nonce = new Uint8Array(NONCE_OCTETS);
  nonce[0] = senderIsOutbound ? 0xc0 : 0x40;
  return nonce;
}

/** Writes the number of a frame into its nonce. */
function numbered(nonce: Uint8Array, number: number): Uint8Array {
  const view = new DataView(nonce.buffer);
  view.setUint32(NONCE_OCTETS - 8, Math.floor(number / 0x1_0000_0000));
  view.setUint32(NONCE_OCTETS - 4, number >>> 0);
  return nonce;
}
