/** libsodium: the machine's own where it is, else its WebAssembly build, which comes with us. Whatever uses it looks it up here. */
import loadSodium from "libsodium";

const NAMES = ["libsodium.so.26", "libsodium.so.23", "libsodium.so"];

/** What status shows. */
export const NATIVE_SODIUM = "libsodium";
export const WEB_ASSEMBLY_SODIUM = "libsodium (WebAssembly)";

/** The functions asked for, or undefined where the library is not there or too old to have them. */
export function openSodium<const S extends Deno.ForeignLibraryInterface>(
  functions: S,
): Deno.DynamicLibrary<S>["symbols"] | undefined {
  for (const name of NAMES) {
    try {
      const { sodium_init } = Deno.dlopen(name, { sodium_init: { parameters: [], result: "i32" } }).symbols;
      // Without it the portable code runs, at two thirds of the speed.
      if (sodium_init() >= 0) return Deno.dlopen(name, functions).symbols;
    } catch {
      // Not under this name, or without a function: the next one, or the build that comes with us.
    }
  }
  return undefined;
}

/** Functions of the WebAssembly build, which take addresses in its own memory. */
export interface WebAssemblySodium {
  /** All of that memory. It moves when more of it is needed: take it anew after `_malloc`. */
  readonly HEAPU8: Uint8Array;
  _malloc(octets: number): number;
  _free(address: number): void;
  _crypto_box_beforenm(key: number, publicKey: number, privateKey: number): number;
  _crypto_scalarmult_base(publicKey: number, privateKey: number): number;
  /** Lengths have 64 bits, in two halves, the lower one first. */
  _crypto_secretbox_easy(c: number, m: number, octets: number, high: number, nonce: number, key: number): number;
  _crypto_secretbox_open_easy(m: number, c: number, octets: number, high: number, nonce: number, key: number): number;
  _crypto_secretbox_detached(
    c: number,
    mac: number,
    m: number,
    octets: number,
    high: number,
    nonce: number,
    key: number,
  ): number;
  _crypto_secretbox_open_detached(
    m: number,
    c: number,
    mac: number,
    octets: number,
    high: number,
    nonce: number,
    key: number,
  ): number;
}

/** A new instance, with memory of its own. */
export async function loadWebAssemblySodium(): Promise<WebAssemblySodium> {
  return await loadSodium() as WebAssemblySodium;
}
