/** Randomness as cores see it: handed in. */

export interface Random {
  /** Uniform in [0, 2^32). */
  u32(): number;
  /** Uniform in [0, 2^64). */
  u64(): bigint;
  /** Uniform in [0, 1). */
  unit(): number;
  /** Uniform integer in [0, limit), limit at most 2^32. */
  below(limit: number): number;
}

/** Reproducible generator (xoshiro128**, seeded through splitmix32) for tests and the simulator. Not for secrets. */
export class SeededRandom implements Random {
  #a: number;
  #b: number;
  #c: number;
  #d: number;

  constructor(seed: number) {
    let s = seed >>> 0;
    const next = () => {
      s = (s + 0x9e3779b9) >>> 0;
      let z = s;
      z = Math.imul(z ^ (z >>> 16), 0x85ebca6b);
      z = Math.imul(z ^ (z >>> 13), 0xc2b2ae35);
      return (z ^ (z >>> 16)) >>> 0;
    };
    this.#a = next();
    this.#b = next();
    this.#c = next();
    this.#d = next() | 1;
  }

  u32(): number {
    const r = Math.imul(rotl(Math.imul(this.#b, 5), 7), 9) >>> 0;
    const t = this.#b << 9;
    this.#c ^= this.#a;
    this.#d ^= this.#b;
    this.#b ^= this.#c;
    this.#a ^= this.#d;
    this.#c ^= t;
    this.#d = rotl(this.#d, 11);
    return r;
  }

  u64(): bigint {
    return (BigInt(this.u32()) << 32n) | BigInt(this.u32());
  }

  unit(): number {
    return this.u32() / 0x1_0000_0000;
  }

  below(limit: number): number {
    return Math.floor(this.unit() * limit);
  }
}

function rotl(x: number, k: number): number {
  return (x << k) | (x >>> (32 - k));
}

/** The operating system's generator, for the running router. */
export class SystemRandom implements Random {
  readonly #words = new Uint32Array(2);

  u32(): number {
    crypto.getRandomValues(this.#words);
    return this.#words[0]!;
  }

  u64(): bigint {
    crypto.getRandomValues(this.#words);
    return (BigInt(this.#words[0]!) << 32n) | BigInt(this.#words[1]!);
  }

  unit(): number {
    return this.u32() / 0x1_0000_0000;
  }

  below(limit: number): number {
    return Math.floor(this.unit() * limit);
  }
}
