import { Buffer } from "node:buffer";
import assert from "node:assert/strict";
import fc from "fast-check";
import { Assembly, OutputQueue } from "./frames.ts";

Deno.test("Assembly puts units together, however their octets are cut", () => {
  const units = fc.array(fc.uint8Array({ maxLength: 50 }), { maxLength: 10 });
  const cuts = fc.array(fc.integer({ min: 0, max: 30 }), { minLength: 1, maxLength: 20 });
  fc.assert(fc.property(units, cuts, (units, cuts) => {
    const octets = Uint8Array.from(units.flatMap((unit) => [...unit]));
    const assembly = new Assembly();
    const got: Uint8Array[] = [];
    const takeAll = () => {
      while (got.length < units.length && assembly.complete) {
        got.push(got.length % 2 ? assembly.takeOwn() : assembly.take().slice());
        assembly.expect(units[got.length]?.length ?? 1);
      }
    };
    assembly.expect(units[0]?.length ?? 1);
    takeAll();
    let at = 0;
    for (let i = 0; at < octets.length; i++) {
      const piece = octets.slice(at, at + Math.max(1, cuts[i % cuts.length]!));
      for (let from = 0; from < piece.length;) {
        from = assembly.fill(piece, from);
        takeAll();
      }
      at += piece.length;
      piece.fill(0xee); // the caller has it back
    }
    assert.deepEqual(got, units);
  }));
});

Deno.test("Assembly makes no room for octets that are only announced", () => {
  const assembly = new Assembly();
  assembly.expect(10_000_000);
  let filled = 0;
  for (const octets of [1, 1000, 100_000, 1_000_000]) {
    assembly.fill(new Uint8Array(octets), 0);
    filled += octets;
    assert.ok(assembly.take().buffer.byteLength <= Math.max(16_384, 2 * filled));
    assert.equal(assembly.take().length, filled);
  }
  assert.equal(assembly.complete, false);
});

Deno.test("OutputQueue returns what was pushed, in order, in pieces good for one write", () => {
  const piece = fc.oneof(fc.integer({ min: 0, max: 200 }), fc.integer({ min: 0, max: 100_000 }));
  const steps = fc.array(fc.oneof(fc.constant("take" as const), piece), { maxLength: 60 });
  fc.assert(
    fc.property(steps, (steps) => {
      const queue = new OutputQueue();
      const expected: Uint8Array[] = [];
      const taken: Uint8Array[] = [];
      const take = () => {
        const before = queue.octets;
        const octets = queue.take();
        if (!octets) return false;
        assert.equal(queue.octets, before - octets.length);
        taken.push(octets);
        return true;
      };
      let octet = 0;
      for (const step of steps) {
        if (step === "take") take();
        else {
          const frame = new Uint8Array(step).fill(octet++);
          queue.pushFrame(frame);
          expected.push(Uint8Array.of(0, step >>> 16, step >>> 8, step), frame);
        }
      }
      while (take());
      assert.equal(queue.octets, 0);
      assert.ok(Buffer.concat(taken).equals(Buffer.concat(expected)));
      assert.ok(taken.every((octets) => octets.length > 0 && octets.length <= 100_000));
    }),
    { numRuns: 50 },
  );
});

Deno.test("OutputQueue puts many small frames into few pieces", () => {
  const queue = new OutputQueue();
  for (let i = 0; i < 20_000; i++) queue.pushFrame(Uint8Array.of(0));
  const lengths = [];
  for (let octets = queue.take(); octets; octets = queue.take()) lengths.push(octets.length);
  assert.deepEqual(lengths, [65_535, 34_465]);
});
