/**
 * Coming by the first ring. A router that votes proposes and counts, one that does not (an observer) asks until it is given a ring.
 *
 *     idle ──begin──► waiting ──decided, or a ring came──► over
 */
import type { PeerName } from "../lib/mac.ts";
import { Paxos, type PaxosState, seedsOf } from "./paxos.ts";

export interface ElectionOptions {
  /** What votes for us; undefined: we are an observer. */
  readonly paxos: Paxos | undefined;
  /** How many must agree, asked for when it begins. */
  readonly quorum: () => number;
}

/** As `weave report` shows it while we wait. */
export interface ElectionStatus {
  readonly elector: boolean;
  readonly knownNodes: number;
  readonly quorum: number;
}

export class Election {
  readonly #o: ElectionOptions;
  #waiting = false;

  constructor(o: ElectionOptions) {
    this.#o = o;
  }

  /** Whether we have begun and nothing is decided yet. */
  get waiting(): boolean {
    return this.#waiting;
  }

  get votes(): boolean {
    return this.#o.paxos !== undefined;
  }

  /** What to tell of the votes; undefined for an observer. */
  state(): PaxosState | undefined {
    return this.#o.paxos?.state();
  }

  /** Begins, unless it has begun. True: everybody is to hear. */
  begin(): boolean {
    if (this.#waiting) return false;
    this.#waiting = true;
    if (this.#o.paxos !== undefined) this.#o.paxos.quorum = this.#o.quorum();
    this.#o.paxos?.propose();
    return true;
  }

  /** Once more, as long as nothing is decided: everybody is to hear again. */
  repeat(): void {
    this.#o.paxos?.propose();
  }

  /** Takes in what another voter knows. True: everybody is to hear. */
  handleState(theirs: PaxosState): boolean {
    const { paxos } = this.#o;
    return paxos !== undefined && paxos.update(theirs) && paxos.think();
  }

  /** Among whom to divide the universe, once that is decided. */
  decided(): readonly PeerName[] | undefined {
    const seeds = seedsOf(this.#o.paxos?.consensus()?.value ?? []);
    return seeds.length === 0 ? undefined : seeds;
  }

  /** There is a ring. */
  end(): void {
    this.#waiting = false;
  }

  /** Undefined while there is nothing to wait for. */
  status(): ElectionStatus | undefined {
    if (!this.#waiting) return undefined;
    const { paxos } = this.#o;
    return { elector: paxos !== undefined, knownNodes: paxos?.knownNodes ?? 0, quorum: paxos?.quorum ?? 0 };
  }
}
