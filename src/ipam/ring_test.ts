import assert from "node:assert/strict";
import {
  addressOf,
  peerOf,
  rangeOf,
  readVectors,
  ringOf,
  type VectorRing,
  type VectorSpan,
} from "../../test/ipam_vectors.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { decodeRing, encodeRing, ipamTypeIds, type RingEntry, type RingValue } from "../wire/ipam.ts";
import { type AddressRange, sizeOf } from "./range.ts";
import { Ring, RingConflict } from "./ring.ts";

// Against Weave Net 2.8 ---------------------------------------------------------------------------

interface MergeCase {
  note: string;
  ours: VectorRing;
  incoming: VectorRing;
  incoming_hex: string;
  allocated_here: string[] | null;
  has_allocations_asked_for: VectorSpan[][];
  updated?: boolean;
  error?: string;
  after?: VectorRing;
  ours_after_error?: VectorRing;
  owned_ranges_after?: VectorSpan[];
}

for (const c of readVectors<{ cases: MergeCase[] }>("ring-merge.json").cases) {
  Deno.test(`merge() does as the vectors say: ${c.note}`, () => {
    const ring = restored(ringOf(c.ours));
    const incoming = decodeRing(Uint8Array.fromHex(c.incoming_hex));
    assert.deepEqual(incoming, ringOf(c.incoming));
    const allocated = (c.allocated_here ?? []).map(addressOf);
    const questions: AddressRange[][] = [];
    const rules = {
      hasAllocations(ranges: readonly AddressRange[]) {
        questions.push([...ranges]);
        return ranges.some(({ start, end }) => allocated.some((address) => address >= start && address < end));
      },
    };
    if (c.error === undefined) {
      assert.equal(ring.merge(incoming, rules), c.updated);
      assert.deepEqual(ring.value(), ringOf(c.after!));
      assert.deepEqual(ring.ownedRanges(), (c.owned_ranges_after ?? []).map(rangeOf));
    } else {
      assert.throws(() => ring.merge(incoming, rules), (error) => {
        assert.ok(error instanceof RingConflict);
        assert.equal(error.message, c.error);
        return true;
      });
      assert.deepEqual(ring.value(), ringOf(c.ours_after_error!));
    }
    assert.deepEqual(questions, c.has_allocations_asked_for.map((ranges) => ranges.map(rangeOf)));
  });
}

interface OpCase {
  op: "grant" | "transfer" | "report_free";
  note: string;
  before: VectorRing;
  after: VectorRing;
  start?: string;
  end?: string;
  from?: string;
  to?: string;
  new_ranges?: VectorSpan[] | null;
  owned_ranges?: VectorSpan[] | null;
  free?: Record<string, number>;
  updated?: boolean;
}

interface OpVectors {
  cases: OpCase[];
  owner: { ring: VectorRing; address: string; owner: string }[];
  owned_ranges: { ring: VectorRing; peer: string; ranges: VectorSpan[] }[];
}

const OPS = readVectors<OpVectors>("ring-ops.json");

for (const c of OPS.cases) {
  Deno.test(`Ring does as the vectors say: ${c.op} ${c.note}`, () => {
    const ring = restored(ringOf(c.before));
    switch (c.op) {
      case "grant":
        ring.grant({ start: addressOf(c.start!), end: addressOf(c.end!) }, peerOf(c.to!));
        assert.deepEqual(ring.ownedRanges(), (c.owned_ranges ?? []).map(rangeOf));
        break;
      case "transfer":
        assert.deepEqual(ring.transfer(peerOf(c.from!), peerOf(c.to!)), (c.new_ranges ?? []).map(rangeOf));
        break;
      case "report_free": {
        const free = new Map(Object.entries(c.free!).map(([address, count]) => [addressOf(address), count]));
        assert.equal(ring.reportFree(({ start }) => free.get(start)!), c.updated);
        break;
      }
      default:
        c.op satisfies never;
    }
    assert.deepEqual(ring.value(), ringOf(c.after));
  });
}

Deno.test("ownerOf() and ownedRanges() do as the vectors say", () => {
  assert.ok(OPS.owner.length > 10);
  for (const { ring, address, owner } of OPS.owner) {
    assert.equal(restored(ringOf(ring)).ownerOf(addressOf(address)), peerOf(owner));
  }
  for (const { ring, peer, ranges } of OPS.owned_ranges) {
    assert.deepEqual(restored(ringOf(ring)).ownedRanges(peerOf(peer)), ranges.map(rangeOf));
  }
});

Deno.test("divide() does as the vectors say", () => {
  const { cases } = readVectors<
    { cases: { start: string; end: string; peers: string[]; after: VectorRing; hex: string }[] }
  >(
    "ring-claim.json",
  );
  for (const { start, end, peers, after, hex } of cases) {
    const expected = ringOf(after);
    const ring = new Ring(rangeOf([start, end]), expected.peer);
    ring.divide(peers.map(peerOf));
    assert.deepEqual(ring.value(), expected);
    const octets = Uint8Array.fromHex(hex);
    assert.equal(encodeRing(ring.value(), ipamTypeIds(octets, "ring")).toHex(), hex);
  }
});

Deno.test("donorsIn() finds whom the vectors find", () => {
  const { ring: given, cases } = readVectors<
    { ring: VectorRing; cases: { start: string; end: string; candidates: Record<string, boolean> }[] }
  >("ring-donors.json");
  const ring = restored(ringOf(given));
  for (const { start, end, candidates } of cases) {
    const found = ring.donorsIn(rangeOf([start, end]));
    assert.deepEqual([...found.keys()].sort(), Object.keys(candidates).map(peerOf).sort());
  }
});

// By hand ------------------------------------------------------------------------------------------

const A = 0x02aa as PeerName, B = 0x02bb as PeerName, C = 0x02cc as PeerName;
const UNIVERSE = { start: 0, end: 256 };
const UNUSED = { hasAllocations: () => false };
const USED = { hasAllocations: () => true };

Deno.test("grant() refuses what is not ours", () => {
  const ring = new Ring(UNIVERSE, A);
  assert.throws(() => ring.grant({ start: 0, end: 1 }, B), RangeError);
  ring.divide([A, B]);
  ring.grant({ start: 0, end: 64 }, C);
  assert.throws(() => ring.grant({ start: 0, end: 1 }, B), RangeError);
  assert.throws(() => ring.grant({ start: 120, end: 130 }, B), RangeError);
  assert.throws(() => ring.grant({ start: 250, end: 260 }, B), RangeError);
  assert.throws(() => ring.grant({ start: 70, end: 70 }, B), RangeError);
});

Deno.test("canGrant() is false where versions have come to their end", () => {
  const ring = new Ring(UNIVERSE, A);
  ring.divide([A]);
  const ours = ring.value();
  const last = { ...ours, entries: ours.entries.map((entry) => ({ ...entry, version: 0xffff_ffff })) };
  assert.equal(ring.merge(last, USED), false);
  assert.equal(ring.entries[0]!.version, 0xffff_ffff);
  assert.equal(ring.canGrant({ start: 8, end: 16 }), false);
  assert.equal(ring.merge(last, USED), false);
});

Deno.test("merge() that yields lets a range go that we use, and cuts free counts that are too great", () => {
  const ring = new Ring(UNIVERSE, A);
  ring.divide([A, B]);
  const other = new Ring(UNIVERSE, B);
  other.restore(ring.value());
  other.transfer(A, B);
  assert.throws(() => ring.merge(other.value(), USED), RingConflict);
  assert.equal(ring.merge(other.value(), { ...USED, yields: true }), true);
  assert.deepEqual(ring.ownedRanges(), []);

  const knowing = new Ring(UNIVERSE, A);
  knowing.divide([A, B]);
  const unknowing = knowing.value();
  const [ofA, ofB] = unknowing.entries;
  knowing.merge({ ...unknowing, entries: [ofA!, { ...ofB!, version: 1, free: 72 }, entry(200, C)] }, UNUSED);
  const newer = { ...unknowing, entries: [ofA!, { ...ofB!, version: 5 }] };
  assert.throws(() => knowing.merge(newer, UNUSED), /Merge of incoming data causes/);
  assert.equal(knowing.merge(newer, { ...UNUSED, yields: true }), true);
  assert.deepEqual(knowing.entries.map(({ free }) => free), [128, 72, 56]);
});

Deno.test("merge() that yields decides between two takers alike, whoever asks", () => {
  const divided = new Ring(UNIVERSE, C);
  divided.divide([A, B, C]);
  const takerA = viewOf(divided.value(), A);
  const takerB = viewOf(divided.value(), B);
  takerA.transfer(C, A);
  takerB.transfer(C, B);
  const [ofA, ofB] = [takerA.value(), takerB.value()];
  takerA.merge(ofB, { ...USED, yields: true });
  takerB.merge(ofA, { ...USED, yields: true });
  assert.deepEqual(takerA.entries, takerB.entries);
  assert.equal(takerA.ownerOf(200), A);
});

Deno.test("rangesOf() and ownerOf() go round the end of the universe", () => {
  const ring = restored({
    ...UNIVERSE,
    peer: A,
    seeds: [],
    entries: [{ token: 10, peer: A, version: 0, free: 0 }, { token: 200, peer: B, version: 0, free: 66 }],
  });
  assert.deepEqual(ring.ownedRanges(B), [{ start: 0, end: 10 }, { start: 200, end: 256 }]);
  assert.deepEqual([ring.ownerOf(0), ring.ownerOf(9), ring.ownerOf(10), ring.ownerOf(255)], [B, B, A, B]);
  assert.deepEqual([...ring.donorsIn({ start: 0, end: 5 }).keys()], [B]);
  assert.deepEqual([...ring.sizes()], [[A, 190], [B, 66]]);
});

// Laws of merging -----------------------------------------------------------------------------------

/**
 * What routers do that own something each, each with a view that may be old: grants, transfers of those that are gone, reports. Nobody
 * uses an address, and nobody is taken for gone who is not: then whatever is merged with whatever, in whatever order, comes out alike.
 */
Deno.test("merge() is commutative, associative and idempotent over thousands of histories", () => {
  for (let seed = 1; seed <= 3000; seed++) {
    const random = new SeededRandom(seed);
    const views = someHistory(random);
    const [x, y, z] = [0, 1, 2].map(() => views[random.below(views.length)]!.value()) as [
      RingValue,
      RingValue,
      RingValue,
    ];
    const message = `seed ${seed}`;
    assert.deepEqual(joined(x, y), joined(y, x), message);
    assert.deepEqual(joined(joined(x, y), z), joined(x, joined(y, z)), message);
    assert.deepEqual(joined(x, x), { ...x, peer: OBSERVER }, message);
    assert.deepEqual(joined(joined(x, y), y), joined(x, y), message);
  }
});

Deno.test("every address has exactly one owner after every step of thousands of histories", () => {
  for (let seed = 1; seed <= 1000; seed++) {
    for (const ring of someHistory(new SeededRandom(seed))) {
      const owners = [...ring.owners()];
      const ranges = owners.flatMap((owner) => ring.ownedRanges(owner)).sort((a, b) => a.start - b.start);
      assert.equal(ranges.reduce((sum, range) => sum + sizeOf(range), 0), 256, `seed ${seed}`);
      ranges.forEach(({ start }, i) => assert.equal(start, i === 0 ? 0 : ranges[i - 1]!.end, `seed ${seed}`));
    }
  }
});

const OBSERVER = 0x0fff as PeerName;

/** As somebody sees it who owns nothing. */
function joined(x: RingValue, y: RingValue): RingValue {
  const ring = viewOf(x, OBSERVER);
  ring.merge(y, UNUSED);
  return ring.value();
}

function someHistory(random: SeededRandom): Ring[] {
  const names = [1, 2, 3, 4, 5].map((n) => n as PeerName);
  const first = new Ring(UNIVERSE, names[0]!);
  first.divide(names.slice(0, 1 + random.below(4)));
  const views = new Map(names.map((name) => [name, viewOf(first.value(), name)]));
  const free = (view: Ring, range: AddressRange) => (range.start * 7 + view.us + random.below(3)) % (sizeOf(range) + 1);
  for (let step = 0; step < 30; step++) {
    const alive = [...views.keys()];
    const name = alive[random.below(alive.length)]!;
    const view = views.get(name)!;
    const other = alive[random.below(alive.length)]!;
    switch (random.below(7)) {
      case 0:
      case 1: {
        const ranges = view.ownedRanges();
        const range = ranges[random.below(ranges.length || 1)];
        if (range === undefined || other === name) break;
        const start = range.start + random.below(sizeOf(range));
        view.grant({ start, end: start + 1 + random.below(range.end - start) }, other);
        break;
      }
      case 2:
        view.reportFree((range) => free(view, range));
        break;
      case 3:
        // Somebody is gone, and everything that it said is known to who takes over.
        if (alive.length < 3 || other === name || random.below(3) > 0) break;
        view.merge(views.get(other)!.value(), UNUSED);
        views.delete(other);
        view.transfer(other, name);
        break;
      default:
        view.merge(views.get(other)!.value(), UNUSED);
    }
  }
  return [...views.values()];
}

function entry(token: number, peer: PeerName): RingEntry {
  return { token, peer, version: 0, free: 256 - token };
}

function viewOf(value: RingValue, us: PeerName): Ring {
  const ring = new Ring({ start: value.start, end: value.end }, us);
  ring.restore({ ...value, peer: us });
  return ring;
}

/** As it stands in a vector, well formed or not. */
function restored(value: RingValue): Ring {
  const ring = new Ring({ start: value.start, end: value.end }, value.peer);
  ring.restore(value);
  return ring;
}
