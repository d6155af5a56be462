import assert from "node:assert/strict";
import { hashName } from "./name_hash.ts";

const PLACES = 32_768, NAMES = 4096;

const SETS: Readonly<Record<string, (i: number) => [number, number]>> = {
  "that follow each other": (i) => [0x0200, i],
  "that differ above": (i) => [i, 1],
  "in steps of a power of two": (i) => [0x0242, i * 0x1_0000 >>> 0],
  "that cancel their halves": (i) => [i, Math.imul(i, 0x9e3779b1) >>> 0],
  "that cancel their halves after the first step": (i) => [i, Math.imul(i, 0xa5cb9243) >>> 0],
};

for (const [which, nameOf] of Object.entries(SETS)) {
  Deno.test(`hashName() spreads names ${which}`, () => {
    const taken = new Set<number>();
    for (let i = 0; i < NAMES; i++) taken.add(hashName(...nameOf(i)) & (PLACES - 1));
    // By chance it would be 3849 of 4096, give or take 15.
    assert.ok(taken.size > 3500, `${taken.size} places`);
  });
}
