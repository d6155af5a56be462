import assert from "node:assert/strict";
import fc from "fast-check";
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import { NameMap } from "./name_map.ts";

Deno.test("NameMap keeps, replaces and forgets like a Map", () => {
  // Few names that differ little and much, so that they meet in one slot.
  const name = fc.oneof(fc.integer({ min: 1, max: 40 }), fc.integer({ min: 1, max: 40 }).map((n) => n * 2 ** 40 + 1));
  const step = fc.record({ name, action: fc.constantFrom("set", "delete"), value: fc.nat() });
  fc.assert(fc.property(fc.array(step, { maxLength: 300 }), (steps) => {
    const ours = new NameMap<number>();
    const plain = new Map<number, number>();
    for (const { name, action, value } of steps) {
      if (action === "set") {
        ours.set(name as PeerName, value);
        plain.set(name, value);
      } else {
        ours.delete(name as PeerName);
        plain.delete(name);
      }
      assert.equal(ours.size, plain.size);
      for (const [key, value] of plain) assert.equal(ours.get(key as PeerName), value);
      assert.equal(ours.get(name as PeerName), plain.get(name));
    }
  }));
});

Deno.test("NameMap knows nobody", () => {
  const map = new NameMap<number>();
  assert.equal(map.get(NO_PEER), undefined);
  map.delete(NO_PEER);
  assert.throws(() => map.set(NO_PEER, 1), RangeError);
  assert.equal(map.size, 0);
});
