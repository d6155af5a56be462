/**
 * Where a 48-bit name (of a peer, or an Ethernet address) stands in a hash table. Containers and peers choose such names: the seeds are
 * different in each thread and run, so that nobody can choose many that fall on one place.
 */
const [HIGH_SEED, LOW_SEED] = crypto.getRandomValues(new Uint32Array(2)) as unknown as [number, number];

/** @returns 32 bits, signed, of which the low ones are as good as any */
export function hashName(high: number, low: number): number {
  let mixed = Math.imul(low ^ LOW_SEED, 0x85ebca6b);
  mixed = Math.imul(mixed ^ mixed >>> 15 ^ high ^ HIGH_SEED, 0xc2b2ae35);
  return mixed ^ mixed >>> 16;
}
