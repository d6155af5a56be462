import assert from "node:assert/strict";
import fc from "fast-check";
import { overheadOctets, PathMtu, UNKNOWN_MTU } from "./pmtu.ts";

const MINUTE = 60_000;

interface Probe {
  readonly candidate: number;
  readonly frame_len: number;
  readonly times_sent: number;
  readonly acknowledged: boolean;
}
interface Vectors {
  readonly overhead_plain: number;
  readonly overhead_encrypted: number;
  readonly table: readonly {
    readonly underlay_pmtu: number;
    readonly max_payload: number;
    readonly overlay_mtu_plain: number;
    readonly overlay_mtu_encrypted: number;
  }[];
  readonly search: readonly {
    readonly underlay_pmtu: number;
    readonly encrypted: boolean;
    readonly largest_that_gets_through: number;
    readonly first_candidate: number;
    readonly mtu_during_search: number;
    readonly max_payload_during_search: number;
    readonly effective_mtu: number;
    readonly effective_max_payload: number;
    readonly probes: readonly Probe[];
  }[];
}
const VECTORS: Vectors = JSON.parse(
  Deno.readTextFileSync(new URL("../../test/fixtures/vectors/sleeve-mtu.json", import.meta.url)),
);

Deno.test("overheads and limits are those of the vectors", () => {
  assert.equal(overheadOctets(false), VECTORS.overhead_plain);
  assert.equal(overheadOctets(true), VECTORS.overhead_encrypted);
  for (const row of VECTORS.table) {
    for (const encrypted of [false, true]) {
      const pmtu = new PathMtu(encrypted);
      pmtu.handleTooBig(row.underlay_pmtu, 0);
      assert.equal(pmtu.mtu, encrypted ? row.overlay_mtu_encrypted : row.overlay_mtu_plain);
      assert.equal(pmtu.maxPayload, row.max_payload);
    }
  }
});

for (const search of VECTORS.search) {
  const { underlay_pmtu, largest_that_gets_through, encrypted } = search;
  const how = `${underlay_pmtu}, ${largest_that_gets_through} pass${encrypted ? ", encrypted" : ""}`;
  Deno.test(`the search probes as in the vectors: ${how}`, () => {
    const pmtu = new PathMtu(encrypted);
    const path = new Path(pmtu, { passes: largest_that_gets_through });
    pmtu.handleTooBig(underlay_pmtu, path.now);
    assert.equal(pmtu.mtu, search.mtu_during_search);
    assert.equal(pmtu.maxPayload, search.max_payload_during_search);
    path.run(30_000);
    assert.deepEqual(
      path.probes().map((p) => ({ ...p, frame_len: p.candidate + 14 })),
      search.probes.map(({ candidate, frame_len, times_sent, acknowledged }) => (
        { candidate, times_sent, acknowledged, frame_len }
      )),
    );
    assert.equal(search.probes[0]!.candidate, search.first_candidate);
    assert.equal(pmtu.mtu, search.effective_mtu);
    assert.equal(pmtu.maxPayload, search.effective_max_payload);
  });
}

Deno.test("a probe that nobody acknowledges is sent eight times, with doubled waits", () => {
  const pmtu = new PathMtu(false);
  const path = new Path(pmtu, { passes: 1000 });
  pmtu.handleTooBig(1500, path.now);
  path.run(2_600);
  const times = path.sent.filter((s) => s.mtu === 1438).map((s) => s.at);
  assert.deepEqual(times, [0, 10, 30, 70, 150, 310, 630, 1270]);
  assert.deepEqual(path.sent[8], { at: 2550, mtu: 995 });
});

Deno.test("begin() provokes the kernel with 60000 octets, and searches from what that says", () => {
  const pmtu = new PathMtu(false);
  const path = new Path(pmtu, { kernel: 1500 });
  pmtu.begin(path.now);
  assert.equal(pmtu.mtu, UNKNOWN_MTU);
  path.run(1_000);
  assert.deepEqual(path.sent, [{ at: 0, mtu: 59986 }, { at: 0, mtu: 1438 }]);
  assert.equal(pmtu.mtu, 1438);
});

Deno.test("begin() leaves the MTU unknown where 60000 octets pass, and finds it where they vanish", () => {
  const wide = new PathMtu(false);
  const widePath = new Path(wide, {});
  wide.begin(0);
  widePath.run(10 * MINUTE);
  assert.deepEqual([wide.mtu, wide.maxPayload], [UNKNOWN_MTU, 65507]);
  assert.ok(widePath.sent.length <= 3);

  const narrow = new PathMtu(false);
  const narrowPath = new Path(narrow, { passes: 8000 });
  narrow.begin(0);
  narrowPath.run(MINUTE);
  assert.deepEqual([narrow.mtu, narrow.maxPayload], [8000, 8034]);
});

Deno.test("acknowledgements of other sizes, and late ones, change nothing", () => {
  const pmtu = new PathMtu(false);
  pmtu.handleAcknowledgement(1438, 0);
  pmtu.handleTooBig(1500, 0);
  for (const mtu of [0, 1437, 1439, 59986, 65535]) pmtu.handleAcknowledgement(mtu, 1);
  assert.equal(pmtu.mtu, 1438);
  assert.equal(pmtu.pollTimeout(), 10);
  pmtu.handleAcknowledgement(1438, 5);
  pmtu.handleAcknowledgement(1438, 6);
  assert.equal(pmtu.pollTimeout(), 5 + MINUTE);
});

Deno.test("a path that becomes narrower, and says so, is followed at once", () => {
  const { pmtu, path } = settled(1500);
  path.kernel = 1300;
  pmtu.handleTooBig(1300, path.now);
  assert.equal(pmtu.mtu, 1238);
  path.run(100);
  assert.equal(pmtu.mtu, 1238);
  assert.deepEqual(path.sent.slice(-1).map((s) => s.mtu), [1238]);
});

Deno.test("a path that becomes narrower without a word is noticed within a minute and seconds", () => {
  for (const passes of [1300, 1000, 600, 552]) {
    const { pmtu, path } = settled(1500);
    path.passes = passes;
    const began = path.now;
    path.run(MINUTE + 30_000, () => pmtu.mtu <= passes);
    assert.ok(path.now - began < MINUTE + 9_000, `${passes} after ${path.now - began} ms`);
    path.run(30_000);
    assert.equal(pmtu.mtu, passes);
  }
});

Deno.test("between our own routers that is noticed within a quarter of a minute and seconds", () => {
  const pmtu = new PathMtu(true, true);
  const path = new Path(pmtu, { kernel: 1500, encrypted: true });
  pmtu.begin(0);
  path.run(MINUTE);
  const probes = path.sent.length;
  path.run(4 * MINUTE - 1);
  assert.equal(path.sent.length - probes, 15);
  path.passes = 1200;
  const began = path.now;
  path.run(MINUTE, () => pmtu.mtu <= 1200);
  assert.ok(path.now - began < 24_000, `after ${path.now - began} ms`);
});

Deno.test("once it is proved wrong, the MTU in use is one that has passed before the search ends", () => {
  const { pmtu, path } = settled(1500);
  path.passes = 1300;
  path.run(MINUTE + 30_000, () => pmtu.mtu <= 1300);
  assert.equal(pmtu.mtu, 1216);
  const seen: number[] = [pmtu.mtu];
  path.run(30_000, () => {
    if (seen.at(-1) !== pmtu.mtu) seen.push(pmtu.mtu);
    return false;
  });
  assert.deepEqual(seen, seen.toSorted((a, b) => a - b), "it only grows from there");
  assert.equal(pmtu.mtu, 1300);
});

Deno.test("a path that is down for a while keeps its MTU", () => {
  const { pmtu, path } = settled(1500);
  path.passes = 0;
  path.run(2 * MINUTE);
  assert.equal(pmtu.mtu, 1438);
  path.passes = Infinity;
  path.run(MINUTE);
  assert.equal(pmtu.mtu, 1438);
});

Deno.test("a path that becomes wider is used within six minutes, and nothing is lost meanwhile", () => {
  const { pmtu, path } = settled(1300);
  path.kernel = 1500;
  path.passes = 1438;
  let smallest = Infinity, largest = 0;
  path.run(6 * MINUTE, () => {
    smallest = Math.min(smallest, pmtu.mtu);
    largest = Math.max(largest, pmtu.mtu);
    return false;
  });
  assert.deepEqual([smallest, largest, pmtu.mtu], [1238, 1438, 1438]);
});

Deno.test("a path that becomes somewhat wider, without a word, is found by bisection", () => {
  const { pmtu, path } = settled(1500, 1100);
  assert.equal(pmtu.mtu, 1100);
  path.passes = 1350;
  path.run(7 * MINUTE, () => {
    assert.ok(pmtu.mtu >= 1100 && pmtu.mtu <= 1350);
    return false;
  });
  assert.equal(pmtu.mtu, 1350);
});

Deno.test("a narrow path whose kernel has forgotten it costs a few probes now and then, and no traffic", () => {
  const { pmtu, path } = settled(1500, 1100);
  const before = path.sent.length;
  path.run(20 * MINUTE, () => {
    assert.equal(pmtu.mtu, 1100);
    return false;
  });
  // Sixteen verifications; four times the provoking frame, two sizes eight times.
  assert.ok(path.sent.length - before <= 16 + 4 * 17 + 5, `${path.sent.length - before} probes`);
});

Deno.test("a router on the way that says how narrow it is ends the search for more", () => {
  const { pmtu, path } = settled(1300);
  path.kernel = 1500; // it forgot after ten minutes
  path.router = 1300;
  const before = path.sent.length;
  path.run(6 * MINUTE, () => {
    assert.equal(pmtu.mtu, 1238);
    return false;
  });
  const probes = path.sent.slice(before).map((s) => s.mtu).filter((mtu) => mtu !== 1238);
  assert.deepEqual(probes, [59986, 1438, 1438]);
});

Deno.test("a refusal within a search narrows it", () => {
  const { pmtu, path } = settled(1500);
  path.passes = 1300;
  path.run(MINUTE + 10_000, () => pmtu.mtu <= 1300);
  pmtu.handleTooBig(1290, path.now);
  path.passes = 1228;
  path.run(30_000);
  assert.equal(pmtu.mtu, 1228);
});

Deno.test("refusals that tell nothing new start a check now and then, not each", () => {
  const { pmtu, path } = settled(1500);
  path.run(30_000);
  const before = path.sent.length;
  for (let i = 0; i < 1000; i++) {
    pmtu.handleTooBig(1500, path.now);
    path.run(10);
  }
  assert.ok(path.sent.length - before <= 2);
  assert.equal(pmtu.mtu, 1438);
});

Deno.test("where no size has passed at all, it looks again soon", () => {
  const pmtu = new PathMtu(true);
  const path = new Path(pmtu, { kernel: 1500, passes: 0 });
  pmtu.begin(0);
  path.run(30_000, () => pmtu.mtu === 552);
  assert.equal(pmtu.mtu, 552);
  path.passes = Infinity;
  const began = path.now;
  path.run(MINUTE, () => pmtu.mtu === 1414);
  assert.ok(path.now - began < 15_000, `${path.now - began} ms`);
});

Deno.test("whatever the kernel says, sizes stay within what a packet holds", () => {
  for (const encrypted of [false, true]) {
    for (const said of [0, 1, 68, 86, 150, 576, 60049, 60073, 65535, 65536, 2 ** 31, -5]) {
      const pmtu = new PathMtu(encrypted);
      const path = new Path(pmtu, { passes: 59987 });
      pmtu.handleTooBig(said, 0);
      path.run(10 * MINUTE);
      for (const { mtu } of path.sent) assert.ok(mtu >= 68 && mtu + overheadOctets(encrypted) <= 65535);
      assert.ok(path.sent.every((s) => s.mtu !== 59987), "no probe looks like a fragmentation test");
      assert.ok(pmtu.maxPayload <= 65507 && pmtu.mtu >= 68);
    }
  }
});

Deno.test("whatever a path becomes, its MTU is in use some minutes later", () => {
  const change = fc.record({
    kernel: fc.integer({ min: 700, max: 9000 }),
    router: fc.oneof(fc.constant(Infinity), fc.integer({ min: 700, max: 9000 })),
    passes: fc.oneof(fc.constant(Infinity), fc.integer({ min: 560, max: 9000 })),
    forMs: fc.integer({ min: 0, max: 7 * MINUTE }),
  });
  fc.assert(
    fc.property(fc.array(change, { minLength: 1, maxLength: 6 }), fc.boolean(), (changes, encrypted) => {
      const pmtu = new PathMtu(encrypted);
      const path = new Path(pmtu, { encrypted });
      pmtu.begin(0);
      for (const { forMs, ...limits } of changes) {
        Object.assign(path, limits);
        path.run(forMs);
      }
      path.run(8 * MINUTE);
      const { kernel, router, passes } = changes.at(-1)!;
      assert.equal(pmtu.mtu, Math.min(Math.min(kernel, router) - overheadOctets(encrypted), passes));
    }),
    { numRuns: 300 },
  );
});

/** The way of probes and what becomes of them: virtual time, and an answer after a millisecond. */
class Path {
  now = 0;
  /** What the kernel takes the path MTU to be. */
  kernel = Infinity;
  /** Path MTU that a router on the way tells the kernel of, when it drops something. */
  router = Infinity;
  /** Largest overlay MTU that arrives. */
  passes = Infinity;
  readonly sent: { at: number; mtu: number }[] = [];
  readonly #acknowledged: number[] = [];
  readonly #overhead: number;

  constructor(readonly pmtu: PathMtu, o: { kernel?: number; passes?: number; encrypted?: boolean }) {
    this.kernel = o.kernel ?? Infinity;
    this.passes = o.passes ?? Infinity;
    this.#overhead = overheadOctets(o.encrypted ?? false);
  }

  /** Lets time pass; stops early when `until` is true after an event. */
  run(ms: number, until?: () => boolean): void {
    const end = this.now + ms;
    for (;;) {
      this.#drain();
      if (until?.()) return;
      const at = this.pmtu.pollTimeout() ?? Infinity;
      if (at > end) break;
      this.now = Math.max(this.now, at);
      this.pmtu.handleTimeout(this.now);
    }
    this.now = end;
  }

  /** Consecutive transmissions of one size together, as the vectors have them. */
  probes(): { candidate: number; times_sent: number; acknowledged: boolean }[] {
    const result: { candidate: number; times_sent: number; acknowledged: boolean }[] = [];
    for (const { mtu } of this.sent) {
      if (result.at(-1)?.candidate === mtu) result.at(-1)!.times_sent++;
      else result.push({ candidate: mtu, times_sent: 1, acknowledged: this.#acknowledged.includes(mtu) });
    }
    return result;
  }

  #drain(): void {
    for (let octets = this.pmtu.pollProbe(); octets !== undefined; octets = this.pmtu.pollProbe()) {
      const mtu = octets - 14;
      this.sent.push({ at: this.now, mtu });
      const packet = mtu + this.#overhead;
      if (packet > this.kernel) this.pmtu.handleTooBig(this.kernel, this.now);
      else if (packet > this.router) this.kernel = this.router;
      else if (mtu <= this.passes) {
        this.#acknowledged.push(mtu);
        this.pmtu.handleAcknowledgement(mtu, this.now);
      }
    }
  }
}

/** A path whose MTU was found: what the kernel says, and what passes where that is less. */
function settled(kernel: number, passes = Infinity): { pmtu: PathMtu; path: Path } {
  const pmtu = new PathMtu(false);
  const path = new Path(pmtu, { kernel, passes });
  pmtu.begin(0);
  path.run(30_000);
  assert.equal(pmtu.mtu, Math.min(kernel - 62, passes));
  return { pmtu, path };
}
