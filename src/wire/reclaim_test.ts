import assert from "node:assert/strict";
import fc from "fast-check";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import type { PeerName } from "../lib/mac.ts";
import { decodeReclaim, encodeReclaim, MAX_ABSENT, type ReclaimAnnouncement } from "./reclaim.ts";

const PLAIN = { noNullPrototype: true };
const PEER = fc.integer({ min: 0, max: 0xffff_ffff_ffff }).map((n) => n as PeerName);
const MS = fc.integer({ min: 0, max: Number.MAX_SAFE_INTEGER });
const ANNOUNCEMENT: fc.Arbitrary<ReclaimAnnouncement> = fc.record({
  afterMs: MS,
  majority: fc.boolean(),
  absent: fc.array(fc.record({ peer: PEER, forMs: MS, seen: fc.boolean() }, PLAIN), { maxLength: 5 }),
  intends: fc.array(PEER, { maxLength: 3 }),
}, PLAIN);

Deno.test("decodeReclaim() gives what encodeReclaim() was given", () => {
  fc.assert(fc.property(ANNOUNCEMENT, (a) => assert.deepEqual(decodeReclaim(encodeReclaim(a)), a)));
});

Deno.test("decodeReclaim() throws nothing but WireError for what is nearly right", () => {
  const nearly = ANNOUNCEMENT.chain((a) => mutated(encodeReclaim(a)));
  fc.assert(fc.property(nearly, (octets) => {
    try {
      decodeReclaim(octets);
    } catch (error) {
      if (!(error instanceof WireError)) throw error;
    }
  }));
});

Deno.test("decodeReclaim() refuses more than anybody says", () => {
  const intends = Array.from({ length: MAX_ABSENT + 1 }, (_, i) => i as PeerName);
  assert.throws(() => decodeReclaim(encodeReclaim({ afterMs: 1, majority: true, absent: [], intends })), WireError);
});
