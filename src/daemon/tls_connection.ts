/** A connection of a TLS server, as its clients mean it: octets of ours over octets of the network. */
import { TlsError, type TlsServer, type TlsSession } from "../../ffi/tls.ts";
import { type Duplex, writeAll } from "./proxy_streams.ts";

/** For both sides to know each other. */
const HANDSHAKE_MS = 10_000;
const BUFFER_OCTETS = 64 << 10;

export class TlsConnection implements Duplex {
  readonly #network: Duplex;
  readonly #session: TlsSession;
  readonly #received = new Uint8Array(BUFFER_OCTETS);
  readonly #toSend = new Uint8Array(BUFFER_OCTETS);
  /** The network is written to by one at a time, in the order of the records. */
  #flushing: Promise<void> = Promise.resolve();
  #closed = false;

  private constructor(network: Duplex, session: TlsSession) {
    this.#network = network;
    this.#session = session;
  }

  /** Owns the connection from now on. Rejects where the client is not who he should be, or does not say so in time. */
  static async accept(network: Duplex, server: TlsServer): Promise<TlsConnection> {
    const connection = new TlsConnection(network, server.accept());
    const late = setTimeout(() => connection.close(), HANDSHAKE_MS);
    try {
      await connection.#handshake();
      return connection;
    } catch (error) {
      connection.close();
      throw error;
    } finally {
      clearTimeout(late);
    }
  }

  async read(into: Uint8Array): Promise<number | null> {
    for (;;) {
      let count: number | null | undefined;
      try {
        count = this.#session.read(into);
      } finally {
        await this.#flush(); // where it fails: why
      }
      if (count !== undefined) return count;
      // Who ends without a word has ended.
      if (!await this.#receive()) return null;
    }
  }

  async write(octets: Uint8Array): Promise<number> {
    const count = this.#session.write(octets);
    await this.#flush();
    return count;
  }

  async closeWrite(): Promise<void> {
    this.#session.closeWrite();
    await this.#flush();
  }

  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#session[Symbol.dispose]();
    this.#network.close();
  }

  async #handshake(): Promise<void> {
    for (;;) {
      let done: boolean;
      try {
        done = this.#session.handshake();
      } finally {
        await this.#flush(); // where it fails: why
      }
      if (done) return;
      if (!await this.#receive()) throw new TlsError("The client hung up");
    }
  }

  async #receive(): Promise<boolean> {
    const count = await this.#network.read(this.#received);
    if (count === null) return false;
    this.#session.feed(this.#received.subarray(0, count));
    return true;
  }

  #flush(): Promise<void> {
    // One that failed has told its own caller.
    this.#flushing = this.#flushing.catch(() => {}).then(async () => {
      for (let count = this.#session.drain(this.#toSend); count > 0; count = this.#session.drain(this.#toSend)) {
        await writeAll(this.#network, this.#toSend.subarray(0, count));
      }
    });
    return this.#flushing;
  }
}
