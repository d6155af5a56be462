import assert from "node:assert/strict";
import { fineWallClock } from "./clock.ts";

Deno.test("fineWallClock() has fractions, and goes where the wall clock is set", () => {
  let wall = 10_000_000;
  let monotonic = 5.25;
  const fine = fineWallClock({ wallMs: () => Math.trunc(wall), monotonicMs: () => monotonic });
  const pass = (ms: number) => {
    wall += ms;
    monotonic += ms;
  };
  pass(0.5);
  assert.equal(fine(), 10_000_000.5);
  pass(10_000);
  assert.equal(fine(), 10_010_000.5);
  wall -= 7_200_000;
  assert.equal(fine(), 2_810_000);
  pass(0.25);
  assert.equal(fine(), 2_810_000.25);
});
