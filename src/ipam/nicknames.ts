/** What people call the peers that allocate addresses; kept for owners that are gone, so that they can be named. */
import { formatMac, type PeerName } from "../lib/mac.ts";

const MAX_NICKNAMES = 16_384;

export class Nicknames {
  readonly #us: PeerName;
  readonly #names = new Map<PeerName, string>();
  /** Another number whenever something is another. */
  #generation = 0;

  constructor(us: PeerName, nickname: string) {
    this.#us = us;
    this.#names.set(us, nickname);
  }

  get generation(): number {
    return this.#generation;
  }

  get(name: PeerName): string | undefined {
    return this.#names.get(name);
  }

  entries(): (readonly [PeerName, string])[] {
    return [...this.#names];
  }

  /** Folds in what others call whom, as far as they are worth knowing. What we are called we know best. */
  merge(theirs: Iterable<readonly [PeerName, string]>, isWorthKnowing: (name: PeerName) => boolean): void {
    for (const [name, nickname] of theirs) {
      if (name === this.#us || this.#names.get(name) === nickname || !isWorthKnowing(name)) continue;
      if (!this.#names.has(name) && this.#names.size >= MAX_NICKNAMES) continue;
      this.#names.set(name, nickname);
      this.#generation++;
    }
  }

  /** Forgets those that are not worth knowing any more. */
  prune(isWorthKnowing: (name: PeerName) => boolean): void {
    for (const name of this.#names.keys()) {
      if (name === this.#us || isWorthKnowing(name)) continue;
      this.#names.delete(name);
      this.#generation++;
    }
  }

  /** Who is called so. */
  calledSo(nickname: string): PeerName[] {
    return [...this.#names].filter(([, known]) => known === nickname).map(([name]) => name);
  }

  /** `02:aa:00:00:00:01(alpha)`, or the name alone. */
  annotate(name: PeerName): string {
    const nickname = this.#names.get(name);
    return nickname === undefined ? formatMac(name) : `${formatMac(name)}(${nickname})`;
  }
}
