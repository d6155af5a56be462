/** Octets from one connection to another: with constant memory, as soon as they come, and both ends of each half where they belong. */
import { type BodyEnd, headLength, HttpError, MAX_HEAD_OCTETS } from "../proxy/http.ts";

/** What we need of a connection, be it TLS. */
export interface Duplex {
  /** null at the other side's end. */
  read(into: Uint8Array): Promise<number | null>;
  write(octets: Uint8Array): Promise<number>;
  /** Says that nothing follows. */
  closeWrite(): Promise<void>;
  close(): void;
}

/** Most connections say little, and there may be many; those that say much get more room while they do. */
const FIRST_BUFFER_OCTETS = 16 << 10;
const LARGEST_BUFFER_OCTETS = 256 << 10;

export async function writeAll(to: Duplex, octets: Uint8Array): Promise<void> {
  for (let at = 0; at < octets.length;) at += await to.write(octets.subarray(at));
}

/** What comes from a connection, with what was read too much for one purpose kept for the next. */
export class Input {
  readonly #from: Duplex;
  #buffer = new Uint8Array(FIRST_BUFFER_OCTETS);
  #start = 0;
  #end = 0;
  #reading: Promise<boolean> | undefined;
  #ended = false;

  constructor(from: Duplex) {
    this.#from = from;
  }

  /** Borrowed until `consume` or `more`. */
  get pending(): Uint8Array {
    return this.#buffer.subarray(this.#start, this.#end);
  }

  get full(): boolean {
    return this.#end - this.#start === this.#buffer.length;
  }

  consume(octets: number): void {
    this.#start += octets;
  }

  /** Waits for further octets; false at the end. Who asks while another waits waits with him. */
  more(): Promise<boolean> {
    this.#reading ??= this.#read().finally(() => this.#reading = undefined);
    return this.#reading;
  }

  async #read(): Promise<boolean> {
    if (this.#ended) return false;
    if (this.#start === this.#end) this.#reuse();
    if (this.#end === this.#buffer.length) this.#makeRoom();
    const count = await this.#from.read(this.#buffer.subarray(this.#end));
    if (count === null) {
      this.#ended = true;
      return false;
    }
    this.#end += count;
    return true;
  }

  /** All of it was consumed. */
  #reuse(): void {
    const wasFull = this.#end === this.#buffer.length;
    if (wasFull && this.#end < LARGEST_BUFFER_OCTETS) this.#buffer = new Uint8Array(2 * this.#end);
    this.#start = this.#end = 0;
  }

  #makeRoom(): void {
    const length = this.#end - this.#start;
    const buffer = length > this.#buffer.length / 2 ? new Uint8Array(2 * this.#buffer.length) : this.#buffer;
    buffer.set(this.pending.slice());
    this.#buffer = buffer;
    this.#start = 0;
    this.#end = length;
  }

  /** The octets of a head; undefined where the connection ends before it begins. */
  async head(): Promise<Uint8Array | undefined> {
    for (;;) {
      const length = headLength(this.pending);
      if (length !== undefined) {
        const head = this.pending.slice(0, length);
        this.consume(length);
        return head;
      }
      if (this.pending.length > MAX_HEAD_OCTETS) throw new HttpError(431, "Head too large");
      if (!await this.more()) {
        if (this.pending.length === 0) return undefined;
        throw new HttpError(400, "Head cut off");
      }
    }
  }

  /** What a body says, whole. */
  async content(body: BodyEnd, limit: number): Promise<Uint8Array<ArrayBuffer>> {
    const pieces: Uint8Array<ArrayBuffer>[] = [];
    let total = 0;
    for (;;) {
      this.consume(body.take(this.pending, (octets) => {
        total += octets.length;
        if (total > limit) throw new HttpError(413, `Body larger than ${limit} octets`);
        pieces.push(octets.slice());
      }));
      if (body.done) break;
      if (!await this.more()) {
        if (body.endsWithConnection) break;
        throw new HttpError(400, "Body cut off");
      }
    }
    return new Uint8Array(await new Blob(pieces).arrayBuffer());
  }

  /** Hands a body on as it comes. @returns false where the connection ended before it did */
  async pump(body: BodyEnd, to: Duplex): Promise<boolean> {
    for (;;) {
      const count = body.take(this.pending);
      if (count > 0) {
        await writeAll(to, this.pending.subarray(0, count));
        this.consume(count);
      }
      if (body.done) return true;
      if (!await this.more()) return body.endsWithConnection;
    }
  }

  /** Hands everything on, and the end too. */
  async pumpAll(to: Duplex): Promise<void> {
    do {
      const { pending } = this;
      if (pending.length > 0) await writeAll(to, pending);
      this.consume(pending.length);
    } while (await this.more());
    await to.closeWrite();
  }
}
