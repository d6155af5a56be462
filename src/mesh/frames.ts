/** Octets of a stream on their way in, cut into units of known length, and on their way out, put together for writing. */

export const LENGTH_OCTETS = 4;
/** One write has up to so many octets, unless a single frame is longer. */
const CHUNK_OCTETS = 65_536;
/** A frame up to this size is copied behind its length; a longer one is a piece of its own. */
const SMALL_FRAME_OCTETS = 4096;
/** Room for the start of a unit that is not complete. */
const FIRST_ROOM_OCTETS = 16_384;
const NO_OCTETS = new Uint8Array();

/**
 * Puts a unit of known length together out of whatever pieces it comes in. Its memory grows with what came, not with what was
 * announced.
 */
export class Assembly {
  #wanted = 0;
  #have = 0;
  #room: Uint8Array<ArrayBuffer> = NO_OCTETS;
  /** A unit that came in one piece: a view of it, borrowed from the caller. */
  #whole: Uint8Array | undefined;

  /** Begins a unit. */
  expect(octets: number): void {
    this.#wanted = octets;
    this.#have = 0;
    this.#room = NO_OCTETS;
    this.#whole = undefined;
  }

  get complete(): boolean {
    return this.#have === this.#wanted;
  }

  /** Takes what it needs of the octets from `at` on. @returns where the rest begins */
  fill(octets: Uint8Array, at: number): number {
    const count = Math.min(this.#wanted - this.#have, octets.length - at);
    if (count === 0) return at;
    if (count === this.#wanted) this.#whole = octets.subarray(at, at + count);
    else {
      this.#grow(this.#have + count);
      this.#room.set(octets.subarray(at, at + count), this.#have);
    }
    this.#have += count;
    return at + count;
  }

  /** The unit, until the caller gets its octets back. */
  take(): Uint8Array {
    return this.#whole ?? this.#room.subarray(0, this.#have);
  }

  /** The unit, for good. */
  takeOwn(): Uint8Array {
    return this.#whole?.slice() ?? this.#room.subarray(0, this.#have);
  }

  #grow(needed: number): void {
    if (needed <= this.#room.length) return;
    const octets = Math.min(this.#wanted, Math.max(needed, 2 * this.#room.length, FIRST_ROOM_OCTETS));
    const larger = new Uint8Array(octets);
    larger.set(this.#room.subarray(0, this.#have));
    this.#room = larger;
  }
}

/** Octets on their way to the socket, frames among them: u32 octets | frame. */
export class OutputQueue {
  octets = 0;
  readonly #pieces: Uint8Array[] = [];
  #next = 0;

  push(piece: Uint8Array): void {
    this.#pieces.push(piece);
    this.octets += piece.length;
  }

  pushFrame(frame: Uint8Array): void {
    const small = frame.length <= SMALL_FRAME_OCTETS;
    const first = new Uint8Array(LENGTH_OCTETS + (small ? frame.length : 0));
    new DataView(first.buffer).setUint32(0, frame.length);
    if (small) first.set(frame, LENGTH_OCTETS);
    this.push(first);
    if (!small) this.push(frame);
  }

  /** Pieces up to a good size for one write, or a single longer one. */
  take(): Uint8Array | undefined {
    const from = this.#next;
    let octets = 0;
    while (this.#next < this.#pieces.length) {
      const more = this.#pieces[this.#next]!.length;
      if (octets > 0 && octets + more > CHUNK_OCTETS) break;
      octets += more;
      this.#next++;
    }
    const taken = this.#pieces.slice(from, this.#next);
    this.octets -= octets;
    if (2 * this.#next >= this.#pieces.length) { // seldom enough, so that taking stays cheap
      this.#pieces.splice(0, this.#next);
      this.#next = 0;
    }
    if (taken.length < 2) return taken[0];
    const chunk = new Uint8Array(octets);
    let at = 0;
    for (const piece of taken) {
      chunk.set(piece, at);
      at += piece.length;
    }
    return chunk;
  }
}
