import assert from "node:assert/strict";
import { clocksOf } from "./report.ts";

const NOON = Date.UTC(2026, 10, 24, 12);

Deno.test("clocksOf() names both clocks where they are a minute apart or more, whichever is ahead", () => {
  assert.deepEqual(clocksOf(NOON, 60_000), { Ours: "2026-11-24T12:00:00Z", Theirs: "2026-11-24T12:01:00Z" });
  assert.deepEqual(clocksOf(NOON, -3_600_000), { Ours: "2026-11-24T12:00:00Z", Theirs: "2026-11-24T11:00:00Z" });
  assert.equal(clocksOf(NOON, 59_999), null);
  assert.equal(clocksOf(NOON, undefined), null);
});
