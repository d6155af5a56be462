/**
 * One control connection as octets on one side and values on the other: introduction, framing, encryption.
 */
import type { Deadline, Instant } from "../lib/time.ts";
import type { Features, Message } from "../wire/control.ts";

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

export class Session {
  constructor(_options: SessionOptions) {}

  /** Takes what the socket received, cut anywhere; the octets are not kept. */
  handleOctets(_octets: Uint8Array, _now: Instant): void {
    throw new Error("Not yet");
  }

  handleTimeout(_now: Instant): void {
    throw new Error("Not yet");
  }

  /** Until the other side is introduced: later deadlines are the mesh's. */
  pollTimeout(): Deadline | undefined {
    throw new Error("Not yet");
  }

  /** Only after the introduction; without effect once the session failed. */
  send(_message: Message): void {
    throw new Error("Not yet");
  }

  /** The next octets for the socket, a few messages at a time. They may be kept. */
  pollOctets(): Uint8Array | undefined {
    throw new Error("Not yet");
  }

  pollEvent(): SessionEvent | undefined {
    throw new Error("Not yet");
  }

  /** Octets that `pollOctets()` would still return. */
  get queuedOctets(): number {
    throw new Error("Not yet");
  }
}
