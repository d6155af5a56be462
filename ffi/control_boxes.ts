/**
 * Keys and boxes of control connections: X25519, HSalsa20 and SHA-256 make the session's key, XSalsa20-Poly1305 the boxes, as NaCl has
 * them. libsodium through FFI where the library is, else its WebAssembly build.
 */
import { createHash } from "node:crypto";
import {
  loadWebAssemblySodium,
  NATIVE_SODIUM,
  openSodium,
  WEB_ASSEMBLY_SODIUM,
  type WebAssemblySodium,
} from "./sodium.ts";

export const KEY_OCTETS = 32;
const NONCE_OCTETS = 24;
/** A box is so much longer than what is in it; the authenticator comes first. */
const AUTHENTICATOR_OCTETS = 16;

/** What a session needs; the arguments are borrowed, the results the caller's. */
export interface ControlBoxes {
  /** What status shows. */
  readonly implementation: string;
  /** A fresh pair for X25519. */
  generateKeyPair(): { publicKey: Uint8Array; privateKey: Uint8Array };
  /** SHA-256 of the shared key and the password; undefined where their key has no part in the shared key (RFC 7748 §6.1). */
  sessionKey(theirPublicKey: Uint8Array, ourPrivateKey: Uint8Array, password: Uint8Array): Uint8Array | undefined;
  seal(message: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array;
  /** undefined where the authenticator is not right. */
  open(box: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array | undefined;
}

export interface ControlBoxesOptions {
  /** For tests: these private keys are used, one after the other, before random ones. */
  readonly privateKeys?: readonly Uint8Array[];
  /** For tests and measurements. */
  readonly forceWebAssembly?: boolean;
}

export async function openControlBoxes(options: ControlBoxesOptions = {}): Promise<ControlBoxes> {
  const primitives = LIBRARY && !options.forceWebAssembly
    ? nativePrimitives(LIBRARY)
    : webAssemblyPrimitives(await loadWebAssemblySodium());
  return new Boxes(primitives, options.privateKeys ?? []);
}

/** The four functions of libsodium, on arrays. False means that the input is not acceptable. */
interface Primitives {
  readonly implementation: string;
  scalarMultBase(publicKey: Uint8Array, privateKey: Uint8Array): boolean;
  boxBeforeNm(shared: Uint8Array, publicKey: Uint8Array, privateKey: Uint8Array): boolean;
  secretBox(box: Uint8Array, message: Uint8Array, nonce: Uint8Array, key: Uint8Array): boolean;
  secretBoxOpen(message: Uint8Array, box: Uint8Array, nonce: Uint8Array, key: Uint8Array): boolean;
}

class Boxes implements ControlBoxes {
  readonly #primitives: Primitives;
  readonly #privateKeys: Uint8Array[];

  constructor(primitives: Primitives, privateKeys: readonly Uint8Array[]) {
    for (const key of privateKeys) check("private key", key, KEY_OCTETS);
    this.#primitives = primitives;
    this.#privateKeys = privateKeys.map((key) => key.slice());
  }

  get implementation(): string {
    return this.#primitives.implementation;
  }

  generateKeyPair(): { publicKey: Uint8Array; privateKey: Uint8Array } {
    const privateKey = this.#privateKeys.shift() ?? crypto.getRandomValues(new Uint8Array(KEY_OCTETS));
    const publicKey = new Uint8Array(KEY_OCTETS);
    this.#primitives.scalarMultBase(publicKey, privateKey);
    return { publicKey, privateKey };
  }

  sessionKey(theirPublicKey: Uint8Array, ourPrivateKey: Uint8Array, password: Uint8Array): Uint8Array | undefined {
    check("public key", theirPublicKey, KEY_OCTETS);
    check("private key", ourPrivateKey, KEY_OCTETS);
    const shared = new Uint8Array(KEY_OCTETS);
    if (!this.#primitives.boxBeforeNm(shared, theirPublicKey, ourPrivateKey)) return undefined;
    return new Uint8Array(createHash("sha256").update(shared).update(password).digest());
  }

  seal(message: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array {
    checkNonceAndKey(nonce, key);
    const box = new Uint8Array(AUTHENTICATOR_OCTETS + message.length);
    if (!this.#primitives.secretBox(box, message, nonce, key)) throw new Error("Cannot seal a message");
    return box;
  }

  open(box: Uint8Array, nonce: Uint8Array, key: Uint8Array): Uint8Array | undefined {
    checkNonceAndKey(nonce, key);
    if (box.length < AUTHENTICATOR_OCTETS) return undefined;
    const message = new Uint8Array(box.length - AUTHENTICATOR_OCTETS);
    return this.#primitives.secretBoxOpen(message, box, nonce, key) ? message : undefined;
  }
}

/** The library reads as much as it expects, whatever it is given. */
function check(what: string, octets: Uint8Array, expected: number): void {
  if (octets.length !== expected) {
    throw new RangeError(`Cannot use ${what}: ${expected} octets expected, is ${octets.length}`);
  }
}

function checkNonceAndKey(nonce: Uint8Array, key: Uint8Array): void {
  check("nonce", nonce, NONCE_OCTETS);
  check("key", key, KEY_OCTETS);
}

/** Opened once per thread. */
const LIBRARY = openSodium({
  /** (q, n) */
  crypto_scalarmult_base: { parameters: ["buffer", "buffer"], result: "i32" },
  /** (k, pk, sk) */
  crypto_box_beforenm: { parameters: ["buffer", "buffer", "buffer"], result: "i32" },
  /** (c, m, mlen, n, k) */
  crypto_secretbox_easy: { parameters: ["buffer", "buffer", "u64", "buffer", "buffer"], result: "i32" },
  /** (m, c, clen, n, k) */
  crypto_secretbox_open_easy: { parameters: ["buffer", "buffer", "u64", "buffer", "buffer"], result: "i32" },
});

function nativePrimitives(library: NonNullable<typeof LIBRARY>): Primitives {
  const own = (octets: Uint8Array) => octets as Uint8Array<ArrayBuffer>; // nothing here is shared between threads
  return {
    implementation: NATIVE_SODIUM,
    scalarMultBase: (publicKey, privateKey) => library.crypto_scalarmult_base(own(publicKey), own(privateKey)) === 0,
    boxBeforeNm: (shared, publicKey, privateKey) =>
      library.crypto_box_beforenm(own(shared), own(publicKey), own(privateKey)) === 0,
    secretBox: (box, message, nonce, key) =>
      library.crypto_secretbox_easy(own(box), own(message), BigInt(message.length), own(nonce), own(key)) === 0,
    secretBoxOpen: (message, box, nonce, key) =>
      library.crypto_secretbox_open_easy(own(message), own(box), BigInt(box.length), own(nonce), own(key)) === 0,
  };
}

function webAssemblyPrimitives(sodium: WebAssemblySodium): Primitives {
  /** Copies the inputs in, calls, and copies the output out. */
  const call = (
    output: Uint8Array,
    inputs: readonly Uint8Array[],
    run: (output: number, ...inputs: number[]) => number,
  ): boolean => {
    const all = [output, ...inputs];
    const addresses: number[] = [];
    try {
      for (const { length } of all) addresses.push(allocate(sodium, length));
      inputs.forEach((input, i) => sodium.HEAPU8.set(input, addresses[i + 1]!));
      if (run(addresses[0]!, ...addresses.slice(1)) !== 0) return false;
      output.set(sodium.HEAPU8.subarray(addresses[0]!, addresses[0]! + output.length));
      return true;
    } finally {
      addresses.forEach((address, i) => {
        sodium.HEAPU8.fill(0, address, address + all[i]!.length); // no keys are left behind
        sodium._free(address);
      });
    }
  };
  return {
    implementation: WEB_ASSEMBLY_SODIUM,
    scalarMultBase: (publicKey, privateKey) =>
      call(publicKey, [privateKey], (q, n) => sodium._crypto_scalarmult_base(q, n!)),
    boxBeforeNm: (shared, publicKey, privateKey) =>
      call(shared, [publicKey, privateKey], (k, pk, sk) => sodium._crypto_box_beforenm(k, pk!, sk!)),
    secretBox: (box, message, nonce, key) =>
      call(
        box,
        [message, nonce, key],
        (c, m, n, k) => sodium._crypto_secretbox_easy(c, m!, message.length, 0, n!, k!),
      ),
    secretBoxOpen: (message, box, nonce, key) =>
      call(
        message,
        [box, nonce, key],
        (m, c, n, k) => sodium._crypto_secretbox_open_easy(m, c!, box.length, 0, n!, k!),
      ),
  };
}

function allocate(sodium: WebAssemblySodium, octets: number): number {
  const address = sodium._malloc(Math.max(octets, 1));
  if (address === 0) throw new Error("Cannot allocate memory for libsodium");
  return address;
}
