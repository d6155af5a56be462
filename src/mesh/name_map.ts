/**
 * What is known by peer name, found fast. A `Map` takes ten times as long with keys that are no small integers, and a mesh of a
 * thousand peers looks up millions of names while it settles. Open addressing, linear probing.
 */
import { NO_PEER, type PeerName } from "../lib/mac.ts";

const LEAST_SLOTS = 16;

/** NO_PEER is no key. */
export class NameMap<Value> {
  #names = new Float64Array(LEAST_SLOTS);
  #values: (Value | undefined)[] = new Array(LEAST_SLOTS).fill(undefined);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  get(name: PeerName): Value | undefined {
    const at = this.#find(name);
    return this.#names[at] === name ? this.#values[at] : undefined;
  }

  set(name: PeerName, value: Value): void {
    if (name === NO_PEER) throw new RangeError("Cannot keep anything for nobody");
    let at = this.#find(name);
    if (this.#names[at] !== name) {
      if (2 * ++this.#size > this.#names.length) {
        this.#grow();
        at = this.#find(name);
      }
      this.#names[at] = name;
    }
    this.#values[at] = value;
  }

  delete(name: PeerName): void {
    const names = this.#names;
    const mask = names.length - 1;
    let hole = this.#find(name);
    if (name === NO_PEER || names[hole] !== name) return;
    this.#size--;
    // Those behind the hole move up, as far as they would not be found otherwise.
    for (let at = hole + 1 & mask; names[at] !== 0; at = at + 1 & mask) {
      const home = hashOf(names[at]!) & mask;
      if ((at - home & mask) < (at - hole & mask)) continue;
      names[hole] = names[at]!;
      this.#values[hole] = this.#values[at];
      hole = at;
    }
    names[hole] = 0;
    this.#values[hole] = undefined;
  }

  /** The slot of a name, or the empty one where it would go. */
  #find(name: number): number {
    const names = this.#names;
    const mask = names.length - 1;
    let at = hashOf(name) & mask;
    while (names[at] !== name && names[at] !== 0) at = at + 1 & mask;
    return at;
  }

  #grow(): void {
    const [names, values] = [this.#names, this.#values];
    this.#names = new Float64Array(2 * names.length);
    this.#values = new Array(2 * names.length).fill(undefined);
    for (let i = 0; i < names.length; i++) {
      if (names[i] === 0) continue;
      const at = this.#find(names[i]!);
      this.#names[at] = names[i]!;
      this.#values[at] = values[i];
    }
  }
}

function hashOf(name: number): number {
  const high = name / 0x1_0000_0000 | 0;
  let h = Math.imul((name | 0) ^ Math.imul(high, 0x9e3779b1), 0x85ebca6b);
  h ^= h >>> 15;
  return Math.imul(h, 0xc2b2ae35) >>> 12;
}
