import assert from "node:assert/strict";
import { ReplayWindows } from "./replay.ts";

Deno.test("isNew() takes and refuses as in the vectors, in each class by itself", () => {
  const path = new URL("../../test/fixtures/vectors/sleeve-replay-window.json", import.meta.url);
  const { steps } = JSON.parse(Deno.readTextFileSync(path)) as { steps: { seq: string; accepted: boolean }[] };
  const windows = new ReplayWindows(4);
  for (const classBit of [0n, 1n << 63n]) {
    for (const { seq, accepted } of steps) {
      const number = BigInt(seq) | classBit;
      assert.equal(windows.isNew(3, Number(number >> 32n), Number(number & 0xffff_ffffn)), accepted, seq);
    }
  }
});

Deno.test("isNew() agrees with a set of numbers over a random walk", () => {
  const windows = new ReplayWindows(1);
  const seen = new Set<number>();
  const size = 2 ** 20;
  let highest = 0;
  for (let step = 0, at = 0; step < 20_000; step++) {
    at = Math.max(0, at + Math.floor((step * 7919 % 1000 - 480) * 700));
    const current = Math.floor(highest / size), window = Math.floor(at / size);
    const expected = window >= current - 1 && !seen.has(at);
    assert.equal(windows.isNew(0, Math.floor(at / 2 ** 32), at >>> 0), expected);
    if (expected) seen.add(at);
    highest = Math.max(highest, at);
  }
});

Deno.test("reset() begins anew", () => {
  const windows = new ReplayWindows(1);
  assert.equal(windows.isNew(0, 5, 5), true);
  assert.equal(windows.isNew(0, 0, 5), false);
  windows.reset(0);
  assert.equal(windows.isNew(0, 0, 5), true);
  assert.equal(windows.isNew(0, 0, 5), false);
});
