import assert from "node:assert/strict";
import { suggest } from "./suggest.ts";

const WORDS = ["launch", "status", "stop", "attach", "detach", "--ipalloc-range", "--port", "--password"];

const CASES: readonly [word: string, meant: string | undefined][] = [
  ["lunch", "launch"],
  ["luanch", "launch"],
  ["atach", "attach"],
  ["stat", "status"],
  ["--ipalloc-rang", "--ipalloc-range"],
  ["--ipaloc-rnage", "--ipalloc-range"],
  ["--prot", "--port"],
  ["frobnicate", undefined],
  ["x", undefined],
  ["", undefined],
];

for (const [word, meant] of CASES) {
  Deno.test(`suggest() has ${meant ?? "nothing"} for "${word}"`, () => assert.equal(suggest(word, WORDS), meant));
}
