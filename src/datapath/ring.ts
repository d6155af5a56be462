/**
 * A ring of fixed records from one thread to another, in shared memory. One thread puts, one takes; nobody waits: a full ring
 * refuses, and the putter counts it.
 *
 *     word 0   head: records put since the start, modulo 2^32; the putter's
 *     word 1   tail: records taken since the start, modulo 2^32; the taker's
 *     word 2   whether the taker has been woken and has not looked yet (the flag of `wakeNeeded`)
 *     word 3   unused
 *     then RECORDS × RECORD_WORDS words
 */

export const RECORD_WORDS = 12;
const RECORDS = 1024;
const HEADER_WORDS = 4;
const HEAD = 0;
const TAIL = 1;
const WOKEN = 2;

export const RING_OCTETS = (HEADER_WORDS + RECORDS * RECORD_WORDS) * 4;

export class RingWriter {
  /** The records' memory: after `reserve()`, write `words[at]` to `words[at + RECORD_WORDS - 1]`, then `commit()`. */
  readonly words: Uint32Array;
  readonly #control: Int32Array;

  constructor(memory: ArrayBufferLike) {
    this.words = new Uint32Array(memory);
    this.#control = new Int32Array(memory);
  }

  /** Index of the first word of the next record, or -1 when the ring is full. Nothing is put before `commit()`. */
  reserve(): number {
    const head = Atomics.load(this.#control, HEAD) >>> 0;
    const tail = Atomics.load(this.#control, TAIL) >>> 0;
    if ((head - tail) >>> 0 >= RECORDS) return -1;
    return HEADER_WORDS + head % RECORDS * RECORD_WORDS;
  }

  commit(): void {
    Atomics.add(this.#control, HEAD, 1);
  }

  /** True once after the taker last looked: then it must be woken. */
  wakeNeeded(): boolean {
    return Atomics.exchange(this.#control, WOKEN, 1) === 0;
  }
}

export class RingReader {
  /** The records' memory: after `peek()`, read from `words[at]` on, then `release()`. */
  readonly words: Uint32Array;
  readonly #control: Int32Array;

  constructor(memory: ArrayBufferLike) {
    this.words = new Uint32Array(memory);
    this.#control = new Int32Array(memory);
  }

  /** To be called before looking: from now on, what is put wakes again. */
  rearm(): void {
    Atomics.store(this.#control, WOKEN, 0);
  }

  /** Index of the first word of the oldest record, or -1 when there is none. */
  peek(): number {
    const head = Atomics.load(this.#control, HEAD);
    const tail = Atomics.load(this.#control, TAIL);
    return head === tail ? -1 : HEADER_WORDS + (tail >>> 0) % RECORDS * RECORD_WORDS;
  }

  release(): void {
    Atomics.add(this.#control, TAIL, 1);
  }
}
