/**
 * What is to leave the allocator, in an order that survives a crash at any instant: nothing that tells of a change leaves before the
 * change is on disk. Changes have numbers; `stored` is the highest that is on disk.
 *
 *     persist            first: whatever follows waits for it
 *     requests, denials  tell of nothing that was changed: at once
 *     answers            wait for their change, each for its own
 *     states             wait too, and are made of what is on disk when they leave; of several for one peer one is enough
 */
import type { PeerName } from "../lib/mac.ts";
import type { Instant } from "../lib/time.ts";

/** The same state is told to one peer at most once in this time, however often it asks. */
const SAME_STATE_MS = 1_000;
/** Peers of whom is known what they were told last. */
const MAX_TOLD = 4096;

/** Everybody, as the one whom a state is for. */
export const EVERYBODY = 0 as PeerName;

interface Waiting {
  /** The change that it tells of. */
  after: number;
  /** There was another change since: it is to be told as well, later. */
  again: number | undefined;
}

export class Outbox<Output> {
  readonly #now: Output[] = [];
  readonly #answers: { readonly after: number; readonly output: Output }[] = [];
  readonly #states = new Map<PeerName, Waiting>();
  readonly #told = new Map<PeerName, { readonly change: number; readonly at: Instant }>();
  #stored: number;
  /** The highest change that storing was asked for, and whether the asking has been taken. */
  #asked: number;
  #askTaken = true;

  /** @param stored what is on disk at the start */
  constructor(stored: number) {
    this.#stored = stored;
    this.#asked = stored;
  }

  get stored(): number {
    return this.#stored;
  }

  /** This change is to be stored. */
  wantStored(change: number): void {
    if (change <= this.#asked) return;
    this.#asked = change;
    this.#askTaken = false;
  }

  /** What is on disk now. A write that failed changes nothing: it is to be tried again. */
  handleStored(change: number): void {
    this.#stored = Math.max(this.#stored, change);
  }

  put(output: Output): void {
    this.#now.push(output);
  }

  putAnswer(after: number, output: Output): void {
    this.#answers.push({ after, output });
  }

  /** Our state is to be told to a peer, or to everybody. */
  putState(to: PeerName, after: number, now: Instant): void {
    const waiting = this.#states.get(to);
    if (waiting !== undefined) {
      if (after > waiting.after) waiting.again = after;
      return;
    }
    const told = this.#told.get(to);
    if (to !== EVERYBODY && told !== undefined && told.change >= after && now - told.at < SAME_STATE_MS) return;
    this.#states.set(to, { after, again: undefined });
  }

  /**
   * What comes next.
   * @param make what a state becomes; and what asks for storing
   */
  poll(make: { persist(): Output; state(to: PeerName): Output }, now: Instant): Output | undefined {
    if (!this.#askTaken) {
      this.#askTaken = true;
      return make.persist();
    }
    const output = this.#now.shift();
    if (output !== undefined) return output;
    if (this.#answers.length > 0 && this.#answers[0]!.after <= this.#stored) return this.#answers.shift()!.output;
    for (const [to, waiting] of this.#states) {
      if (waiting.after > this.#stored) continue;
      this.#states.delete(to);
      const { again } = waiting;
      if (again !== undefined && again > this.#stored) this.#states.set(to, { after: again, again: undefined });
      if (this.#told.size >= MAX_TOLD) this.#told.clear();
      this.#told.set(to, { change: this.#stored, at: now });
      return make.state(to);
    }
    return undefined;
  }
}
