/**
 * Where a 48-bit name (of a peer, or an Ethernet address) stands in a hash table. Containers and peers choose such names: the seeds are
 * different in each thread and run, and so are the factors, so that nobody can choose many that fall on one place.
 */
const [HIGH_SEED, LOW_SEED, HIGH_FACTOR, LOW_FACTOR] = crypto.getRandomValues(new Int32Array(4)).map((seed, i) =>
  i < 2 ? seed : seed | 1
) as unknown as [number, number, number, number];

/** @returns 32 bits, signed, of which the low ones are as good as any */
export function hashName(high: number, low: number): number {
  let mixed = Math.imul(low ^ LOW_SEED, LOW_FACTOR);
  mixed = Math.imul(mixed ^ mixed >>> 15 ^ Math.imul(high ^ HIGH_SEED, HIGH_FACTOR), 0xc2b2ae35);
  return mixed ^ mixed >>> 16;
}
