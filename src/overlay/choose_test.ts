import assert from "node:assert/strict";
import { commonOverlays } from "./choose.ts";

Deno.test("commonOverlays() is what the vectors say", () => {
  interface Case {
    readonly ours: readonly string[];
    readonly their_feature?: string;
    readonly their_feature_absent?: boolean;
    readonly result_as_computed?: readonly string[];
    readonly error?: string;
  }
  const path = new URL("../../test/fixtures/vectors/overlay-switch.json", import.meta.url);
  const { cases }: { cases: readonly Case[] } = JSON.parse(Deno.readTextFileSync(path));
  assert.ok(cases.length >= 8);
  for (const c of cases) {
    const theirs = c.their_feature?.split(" ");
    assert.equal(theirs === undefined, c.their_feature_absent ?? false);
    if (c.error) assert.throws(() => commonOverlays(c.ours, theirs), { name: "ProtocolError", message: c.error });
    else assert.deepEqual(commonOverlays(c.ours, theirs), c.result_as_computed ?? ["sleeve"]);
  }
});
