/**
 * TLS for servers that ask their clients for certificates, which the runtime's own cannot: OpenSSL's libssl, the host's. No socket is
 * given to it: octets of the network go in and come out, so whoever has the connection waits for it in his own way.
 *
 *     network ── feed() ──▶ ┌─────────┐ ── read() ──▶ us
 *     network ◀── drain() ─ └─────────┘ ◀── write() ─ us
 */
import { cString } from "./libc.ts";

/** PEM files, by their absolute paths. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  /** Clients need a certificate of this one; undefined: none. */
  readonly clientCa: string | undefined;
}

/** The files do not do, or a connection is not what it should be; the message has OpenSSL's own words. */
export class TlsError extends Error {
  override readonly name = "TlsError";
}

/** OpenSSL 3, and the one before it. */
const VERSIONS = ["3", "1.1"];

const PEM = 1; // SSL_FILETYPE_PEM
const VERIFY_PEER_OR_FAIL = 1 | 2; // SSL_VERIFY_PEER, SSL_VERIFY_FAIL_IF_NO_PEER_CERT
const SET_MIN_PROTO_VERSION = 123; // SSL_CTRL_SET_MIN_PROTO_VERSION
const TLS_1_2 = 0x0303n;
const WANT_READ = 2; // SSL_ERROR_WANT_READ
const ZERO_RETURN = 6; // SSL_ERROR_ZERO_RETURN
/** What one record carries. */
const RECORD_OCTETS = 16_384;

const SSL = {
  TLS_server_method: { parameters: [], result: "pointer" },
  SSL_CTX_new: { parameters: ["pointer"], result: "pointer" },
  SSL_CTX_free: { parameters: ["pointer"], result: "void" },
  SSL_CTX_ctrl: { parameters: ["pointer", "i32", "i64", "pointer"], result: "i64" },
  SSL_CTX_use_certificate_chain_file: { parameters: ["pointer", "buffer"], result: "i32" },
  SSL_CTX_use_PrivateKey_file: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  SSL_CTX_check_private_key: { parameters: ["pointer"], result: "i32" },
  SSL_CTX_load_verify_locations: { parameters: ["pointer", "buffer", "pointer"], result: "i32" },
  SSL_load_client_CA_file: { parameters: ["buffer"], result: "pointer" },
  SSL_CTX_set_client_CA_list: { parameters: ["pointer", "pointer"], result: "void" },
  SSL_CTX_set_verify: { parameters: ["pointer", "i32", "pointer"], result: "void" },
  SSL_new: { parameters: ["pointer"], result: "pointer" },
  SSL_free: { parameters: ["pointer"], result: "void" },
  SSL_set_bio: { parameters: ["pointer", "pointer", "pointer"], result: "void" },
  SSL_set_accept_state: { parameters: ["pointer"], result: "void" },
  SSL_do_handshake: { parameters: ["pointer"], result: "i32" },
  SSL_read: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  SSL_write: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  SSL_shutdown: { parameters: ["pointer"], result: "i32" },
  SSL_get_error: { parameters: ["pointer", "i32"], result: "i32" },
} as const satisfies Deno.ForeignLibraryInterface;

const CRYPTO = {
  BIO_s_mem: { parameters: [], result: "pointer" },
  BIO_new: { parameters: ["pointer"], result: "pointer" },
  BIO_read: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  BIO_write: { parameters: ["pointer", "buffer", "i32"], result: "i32" },
  ERR_get_error: { parameters: [], result: "u64" },
  ERR_error_string_n: { parameters: ["u64", "buffer", "usize"], result: "void" },
} as const satisfies Deno.ForeignLibraryInterface;

interface OpenSsl {
  readonly ssl: Deno.DynamicLibrary<typeof SSL>["symbols"];
  readonly crypto: Deno.DynamicLibrary<typeof CRYPTO>["symbols"];
}

let opened: OpenSsl | undefined;

/** Whether the host has what it takes. */
export function hasTls(): boolean {
  try {
    openSsl();
    return true;
  } catch {
    return false;
  }
}

/** @throws TlsError where the host has no OpenSSL */
function openSsl(): OpenSsl {
  for (const version of VERSIONS) {
    if (opened !== undefined) break;
    try {
      opened = {
        ssl: Deno.dlopen(`libssl.so.${version}`, SSL).symbols,
        crypto: Deno.dlopen(`libcrypto.so.${version}`, CRYPTO).symbols,
      };
    } catch {
      // Not this one.
    }
  }
  if (opened !== undefined) return opened;
  throw new TlsError("Cannot speak TLS: OpenSSL's libssl.so.3 is not on this host (Debian: libssl3)");
}

/** What all connections of a server share. */
export class TlsServer implements Disposable {
  readonly #openSsl: OpenSsl;
  readonly #context: Deno.PointerValue;

  /** @throws TlsError */
  constructor({ cert, key, clientCa }: TlsFiles) {
    this.#openSsl = openSsl();
    const { ssl } = this.#openSsl;
    this.#context = ssl.SSL_CTX_new(ssl.TLS_server_method());
    try {
      ssl.SSL_CTX_ctrl(this.#context, SET_MIN_PROTO_VERSION, TLS_1_2, null);
      this.#check(ssl.SSL_CTX_use_certificate_chain_file(this.#context, cString(cert)), `use certificate "${cert}"`);
      this.#check(ssl.SSL_CTX_use_PrivateKey_file(this.#context, cString(key), PEM), `use key "${key}"`);
      this.#check(ssl.SSL_CTX_check_private_key(this.#context), `use "${key}" with "${cert}"`);
      if (clientCa !== undefined) this.#verifyClients(clientCa);
    } catch (error) {
      this[Symbol.dispose]();
      throw error;
    }
  }

  #verifyClients(ca: string): void {
    const { ssl } = this.#openSsl;
    this.#check(ssl.SSL_CTX_load_verify_locations(this.#context, cString(ca), null), `use CA certificate "${ca}"`);
    ssl.SSL_CTX_set_client_CA_list(this.#context, ssl.SSL_load_client_CA_file(cString(ca)));
    ssl.SSL_CTX_set_verify(this.#context, VERIFY_PEER_OR_FAIL, null);
  }

  #check(result: number, action: string): void {
    if (result !== 1) throw new TlsError(`Cannot ${action}: ${lastError(this.#openSsl)}`);
  }

  /** A connection that a client has just made. */
  accept(): TlsSession {
    return new TlsSession(this.#openSsl, this.#context);
  }

  [Symbol.dispose](): void {
    this.#openSsl.ssl.SSL_CTX_free(this.#context);
  }
}

/** One connection. Whatever is called, `drain` may have something for the network afterwards. */
export class TlsSession implements Disposable {
  readonly #openSsl: OpenSsl;
  readonly #ssl: Deno.PointerValue;
  /** They are freed with it. */
  readonly #fromNetwork: Deno.PointerValue;
  readonly #toNetwork: Deno.PointerValue;
  #freed = false;

  constructor(openSsl: OpenSsl, context: Deno.PointerValue) {
    const { ssl, crypto } = openSsl;
    this.#openSsl = openSsl;
    this.#ssl = ssl.SSL_new(context);
    this.#fromNetwork = crypto.BIO_new(crypto.BIO_s_mem());
    this.#toNetwork = crypto.BIO_new(crypto.BIO_s_mem());
    ssl.SSL_set_bio(this.#ssl, this.#fromNetwork, this.#toNetwork);
    ssl.SSL_set_accept_state(this.#ssl);
  }

  /** Takes what the network brought, all of it. */
  feed(octets: Uint8Array): void {
    this.#live();
    if (octets.length > 0) this.#openSsl.crypto.BIO_write(this.#fromNetwork, octets as BufferSource, octets.length);
  }

  /** The next octets for the network; 0: none. */
  drain(into: Uint8Array): number {
    this.#live();
    return Math.max(0, this.#openSsl.crypto.BIO_read(this.#toNetwork, into as BufferSource, into.length));
  }

  /** Whether both sides know who they are; false: more of the network is needed. @throws TlsError */
  handshake(): boolean {
    this.#live();
    const result = this.#openSsl.ssl.SSL_do_handshake(this.#ssl);
    if (result === 1) return true;
    if (this.#blocked(result) === null) throw new TlsError("the client hung up");
    return false;
  }

  /** undefined: more of the network is needed; null: the other side has said that nothing follows. @throws TlsError */
  read(into: Uint8Array): number | null | undefined {
    this.#live();
    const result = this.#openSsl.ssl.SSL_read(this.#ssl, into as BufferSource, into.length);
    return result > 0 ? result : this.#blocked(result);
  }

  /** Takes a part of it, how much it says. @throws TlsError */
  write(octets: Uint8Array): number {
    this.#live();
    if (octets.length === 0) return 0;
    const part = octets.subarray(0, RECORD_OCTETS);
    const result = this.#openSsl.ssl.SSL_write(this.#ssl, part as BufferSource, part.length);
    if (result > 0) return result;
    throw new TlsError(`Cannot write: ${lastError(this.#openSsl)}`);
  }

  /** Says that nothing follows. */
  closeWrite(): void {
    if (!this.#freed) this.#openSsl.ssl.SSL_shutdown(this.#ssl);
  }

  #blocked(result: number): null | undefined {
    const error = this.#openSsl.ssl.SSL_get_error(this.#ssl, result);
    if (error === WANT_READ) return undefined;
    if (error === ZERO_RETURN) return null;
    throw new TlsError(lastError(this.#openSsl));
  }

  #live(): void {
    if (this.#freed) throw new TlsError("The connection is closed");
  }

  [Symbol.dispose](): void {
    if (this.#freed) return;
    this.#freed = true;
    this.#openSsl.ssl.SSL_free(this.#ssl);
  }
}

/** The oldest, which is what began it; the others go, so that nobody takes them for his own. */
function lastError({ crypto }: OpenSsl): string {
  const code = crypto.ERR_get_error();
  while (crypto.ERR_get_error() !== 0n);
  if (code === 0n) return "the connection broke";
  const text = new Uint8Array(256);
  crypto.ERR_error_string_n(code, text, BigInt(text.length));
  // error:0A0000C7:SSL routines::peer did not return a certificate
  return new TextDecoder().decode(text.subarray(0, text.indexOf(0))).replace(/^error:[^:]*:[^:]*:[^:]*:/, "");
}
