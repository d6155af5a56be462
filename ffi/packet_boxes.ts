/**
 * Secret boxes (XSalsa20-Poly1305) in the packet thread's memory, named by offset: libsodium through FFI where the library is,
 * else its WebAssembly build, which copies in and out. Neither makes garbage.
 */
import { addressOf } from "./packet_calls.ts";
import {
  loadWebAssemblySodium,
  NATIVE_SODIUM,
  openSodium,
  WEB_ASSEMBLY_SODIUM,
  type WebAssemblySodium,
} from "./sodium.ts";

/** All places are offsets in the memory given at the start. */
export interface PacketBoxes {
  /** What status shows. */
  readonly implementation: string;
  /**
   * Encrypts `octets` of text to `out` and writes 16 octets of authenticator.
   * @param out may be `text`, but not overlap it otherwise
   */
  seal(out: number, authenticator: number, text: number, octets: number, nonce: number, key: number): void;
  /** Decrypts in place; false, with the memory unchanged, when the authenticator is not right. */
  open(text: number, authenticator: number, octets: number, nonce: number, key: number): boolean;
}

/** @param forceWebAssembly for tests and measurements */
export async function openPacketBoxes(
  memory: Uint8Array<ArrayBuffer>,
  forceWebAssembly = false,
): Promise<PacketBoxes> {
  if (LIBRARY && !forceWebAssembly) return new NativeBoxes(memory);
  return new WebAssemblyBoxes(await loadWebAssemblySodium(), memory);
}

/** Once per thread, and a constant: the compiler then knows what is called. */
const LIBRARY = openSodium({
  /** (c, mac, m, mlen, n, k) */
  crypto_secretbox_detached: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
  /** (m, c, mac, clen, n, k) */
  crypto_secretbox_open_detached: { parameters: ["u64", "u64", "u64", "u64", "u64", "u64"], result: "i32" },
});
const sealDetached = LIBRARY?.crypto_secretbox_detached;
const openDetached = LIBRARY?.crypto_secretbox_open_detached;

/** Bigints come from a typed array right into the call: compiled code then makes none on the heap. */
class NativeBoxes implements PacketBoxes {
  readonly implementation = NATIVE_SODIUM;
  readonly #base: number;
  readonly #words = new Uint32Array(12);
  readonly #arguments = new BigUint64Array(this.#words.buffer);

  constructor(memory: Uint8Array<ArrayBuffer>) {
    this.#base = Number(addressOf(memory));
  }

  seal(out: number, authenticator: number, text: number, octets: number, nonce: number, key: number): void {
    this.#put(0, out);
    this.#put(1, authenticator);
    this.#put(2, text);
    this.#words[6] = octets;
    this.#put(4, nonce);
    this.#put(5, key);
    const a = this.#arguments;
    sealDetached!(a[0]!, a[1]!, a[2]!, a[3]!, a[4]!, a[5]!);
  }

  open(text: number, authenticator: number, octets: number, nonce: number, key: number): boolean {
    this.#put(0, text);
    this.#put(1, text);
    this.#put(2, authenticator);
    this.#words[6] = octets;
    this.#put(4, nonce);
    this.#put(5, key);
    const a = this.#arguments;
    return openDetached!(a[0]!, a[1]!, a[2]!, a[3]!, a[4]!, a[5]!) === 0;
  }

  #put(argument: number, offset: number): void {
    const address = this.#base + offset;
    this.#words[argument * 2] = address >>> 0;
    this.#words[argument * 2 + 1] = address / 0x1_0000_0000;
  }
}

/** Room for the longest packet, and for one text less aligned than the other. */
const TEXT_OCTETS = 65536 + 16;

class WebAssemblyBoxes implements PacketBoxes {
  readonly implementation = WEB_ASSEMBLY_SODIUM;
  readonly #sodium: WebAssemblySodium;
  readonly #ours: Uint8Array;
  readonly #theirs: Uint8Array;
  readonly #text: number;
  readonly #small: number;

  constructor(sodium: WebAssemblySodium, memory: Uint8Array<ArrayBuffer>) {
    this.#sodium = sodium;
    this.#ours = memory;
    this.#text = sodium._malloc(TEXT_OCTETS);
    this.#small = sodium._malloc(128);
    if (this.#text === 0 || this.#small === 0) throw new Error("Cannot allocate memory for libsodium");
    this.#theirs = sodium.HEAPU8; // grows no more: nothing else allocates
  }

  seal(out: number, authenticator: number, text: number, octets: number, nonce: number, key: number): void {
    this.#copyIn(text, octets, nonce, key);
    const s = this.#small;
    this.#sodium._crypto_secretbox_detached(this.#text, s, this.#text, octets, 0, s + 16, s + 40);
    this.#copyOut(authenticator, s, 16);
    this.#copyOut(out, this.#text, octets);
  }

  open(text: number, authenticator: number, octets: number, nonce: number, key: number): boolean {
    this.#copyIn(text, octets, nonce, key);
    const s = this.#small;
    for (let i = 0; i < 16; i++) this.#theirs[s + i] = this.#ours[authenticator + i]!;
    const result = this.#sodium._crypto_secretbox_open_detached(this.#text, this.#text, s, octets, 0, s + 16, s + 40);
    if (result !== 0) return false;
    this.#copyOut(text, this.#text, octets);
    return true;
  }

  #copyIn(text: number, octets: number, nonce: number, key: number): void {
    const ours = this.#ours, theirs = this.#theirs;
    const s = this.#small;
    for (let i = 0; i < 24; i++) theirs[s + 16 + i] = ours[nonce + i]!;
    for (let i = 0; i < 32; i++) theirs[s + 40 + i] = ours[key + i]!;
    const to = this.#text;
    for (let i = 0; i < octets; i++) theirs[to + i] = ours[text + i]!;
  }

  #copyOut(to: number, from: number, octets: number): void {
    const ours = this.#ours, theirs = this.#theirs;
    for (let i = 0; i < octets; i++) ours[to + i] = theirs[from + i]!;
  }
}
