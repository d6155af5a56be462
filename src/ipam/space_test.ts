import assert from "node:assert/strict";
import { addressOf, rangeOf, readVectors, type VectorSpan } from "../../test/ipam_vectors.ts";
import { SeededRandom } from "../lib/random.ts";
import { formatIpv4 } from "../lib/ip.ts";
import { type AddressRange, biggestCidrIn, formatRange, hostRangeOf, sizeOf } from "./range.ts";
import { AddressSet, Space } from "./space.ts";

// Against Weave Net 2.8 ---------------------------------------------------------------------------

interface DonateCase {
  note: string;
  owned: VectorSpan[];
  in_use: string[] | null;
  requested: VectorSpan;
  donated: boolean;
  chunk: VectorSpan;
  free_in_range: number;
}

interface DonateVectors {
  cases: DonateCase[];
  biggest_cidr: { start: number; end: number; biggest_start: string; biggest_size: number }[];
}

const VECTORS = readVectors<DonateVectors>("ipam-donate.json");

for (const { note, owned, in_use, requested, donated, chunk, free_in_range } of VECTORS.cases) {
  Deno.test(`donation() does as the vectors say: ${note}`, () => {
    const space = new Space();
    space.setRanges(owned.map(rangeOf));
    for (const address of in_use ?? []) assert.equal(space.claim(addressOf(address)), true);
    assert.equal(space.freeIn(rangeOf(requested)), free_in_range);
    const given = space.donation(rangeOf(requested));
    assert.deepEqual(given, donated ? rangeOf(chunk) : undefined);
  });
}

Deno.test("biggestCidrIn() does as the vectors say", () => {
  for (const { start, end, biggest_start, biggest_size } of VECTORS.biggest_cidr) {
    const biggest = biggestCidrIn({ start, end });
    assert.deepEqual([formatIpv4(biggest.start), sizeOf(biggest)], [biggest_start, biggest_size]);
  }
});

// By hand ------------------------------------------------------------------------------------------

Deno.test("allocate() gives the lowest free address, none twice, and none of the first and last of a subnet", () => {
  const space = new Space();
  const subnet = { address: addressOf("10.32.0.0"), prefixLength: 29 };
  space.setRanges([rangeOf(["10.32.0.0", "10.48.0.0"])]);
  const given = Array.from({ length: 7 }, () => space.allocate(hostRangeOf(subnet)));
  assert.deepEqual(given.map((a) => a && formatIpv4(a)), [
    "10.32.0.1",
    "10.32.0.2",
    "10.32.0.3",
    "10.32.0.4",
    "10.32.0.5",
    "10.32.0.6",
    undefined,
  ]);
  space.free(addressOf("10.32.0.3"));
  assert.equal(space.allocate(hostRangeOf(subnet)), addressOf("10.32.0.3"));
});

Deno.test("setRanges() frees what is new and keeps nothing of what is gone", () => {
  const space = new Space();
  space.setRanges([{ start: 10, end: 20 }, { start: 30, end: 40 }]);
  assert.equal(space.claim(12), true);
  assert.equal(space.claim(32), true);
  space.setRanges([{ start: 5, end: 15 }]);
  assert.deepEqual([space.owns(5), space.owns(15), space.owns(32)], [true, false, false]);
  assert.equal(space.freeCount, 9);
  space.free(32);
  assert.equal(space.freeCount, 9);
  space.setRanges([{ start: 5, end: 15 }, { start: 30, end: 40 }]);
  assert.equal(space.freeCount, 19);
  assert.equal(space.isFree(12), false);
  assert.equal(space.hasAllocations([{ start: 5, end: 12 }]), false);
  assert.equal(space.hasAllocations([{ start: 5, end: 13 }]), true);
  assert.equal(space.hasAllocations([{ start: 13, end: 16 }]), true);
});

Deno.test("formatRange() names networks as such and other ranges by their ends", () => {
  assert.equal(formatRange(rangeOf(["10.32.0.0", "10.48.0.0"])), "10.32.0.0/12");
  assert.equal(formatRange(rangeOf(["10.32.0.0", "10.32.0.3"])), "10.32.0.0-10.32.0.2");
});

// Against a set of addresses, one by one ------------------------------------------------------------

Deno.test("AddressSet agrees with a plain set, whatever is added and removed", () => {
  for (let seed = 1; seed <= 500; seed++) {
    const random = new SeededRandom(seed);
    const set = new AddressSet();
    const plain = new Set<number>();
    const someRange = (): AddressRange => {
      const start = random.below(60);
      return { start, end: start + random.below(15) };
    };
    for (let step = 0; step < 40; step++) {
      const range = someRange();
      const adding = random.below(2) === 0;
      if (adding) set.add(range);
      else set.remove(range);
      for (let i = range.start; i < range.end; i++) {
        if (adding) plain.add(i);
        else plain.delete(i);
      }
      const asked = someRange();
      const inside = [...plain].filter((i) => i >= asked.start && i < asked.end).sort((a, b) => a - b);
      assert.equal(set.countIn(asked), inside.length, `seed ${seed}`);
      assert.equal(set.firstIn(asked), inside[0], `seed ${seed}`);
      const missing = [...set.missingIn(asked)].flatMap(each);
      assert.deepEqual(missing, each(asked).filter((i) => !plain.has(i)), `seed ${seed}`);
      for (let i = 0; i < 80; i++) assert.equal(set.has(i), plain.has(i), `seed ${seed}`);
      const intervals = [...set.intervals()];
      intervals.forEach(({ start }, i) => assert.ok(i === 0 || start > intervals[i - 1]!.end, `seed ${seed}`));
    }
  }
});

function each({ start, end }: AddressRange): number[] {
  return Array.from({ length: Math.max(0, end - start) }, (_, i) => start + i);
}
