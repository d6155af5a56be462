import assert from "node:assert/strict";
import { parseCidr } from "../lib/ip.ts";
import { judgeRange } from "./range_check.ts";

const ROUTES = ["0.0.0.0/0", "192.168.0.0/16", "10.32.4.0/24", "10.0.0.0/7"].map((destination, i) => ({
  route: { destination: parseCidr(destination)! },
  device: `eth${i}`,
}));

function judge(range: string, rangeGiven: boolean, routes = ROUTES): string[] {
  const warnings: string[] = [];
  judgeRange({ range: parseCidr(range)!, rangeGiven }, routes, { warn: (line) => warnings.push(line) });
  return warnings;
}

Deno.test("judgeRange() refuses the default range where a route lies in it, or it in a route, and names route and device", () => {
  assert.throws(
    () => judge("10.32.0.0/12", false),
    /^OperationError: ERROR: Default --ipalloc-range 10\.32\.0\.0\/12 overlaps with existing route 10\.32\.4\.0\/24 \(device eth2\) on host\.\nERROR: You must pick another range/,
  );
  assert.throws(() => judge("10.48.0.0/12", false), /10\.0\.0\.0\/7 \(device eth3\)/);
});

Deno.test("judgeRange() warns of a range that the user chose", () => {
  const [warning, more] = judge("10.32.0.0/12", true);
  assert.match(warning!, /^WARNING: Specified --ipalloc-range .* 10\.32\.4\.0\/24 \(device eth2\)/);
  assert.equal(more, undefined);
});

Deno.test("judgeRange() has nothing to say of the default route, and of routes elsewhere", () => {
  assert.deepEqual(judge("172.16.0.0/16", false), []);
  assert.deepEqual(judge("10.32.0.0/12", false, ROUTES.slice(0, 2)), []);
});
