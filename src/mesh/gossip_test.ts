import assert from "node:assert/strict";
import type { PeerName } from "../lib/mac.ts";
import { readVector } from "../../test/sim/records.ts";
import { GossipSlots } from "./gossip.ts";
import { fnv64a, MAX_REMEMBERED_OCTETS, PassedOn, Surrogates } from "./surrogate.ts";

interface EnvelopeVectors {
  readonly relay_dedup_fnv64: readonly { readonly payload: string; readonly fnv1a_64: string }[];
}

Deno.test("fnv64a() gives the values of the vectors", () => {
  for (const { payload, fnv1a_64 } of readVector<EnvelopeVectors>("gossip-envelopes").relay_dedup_fnv64) {
    assert.equal(fnv64a(Uint8Array.fromHex(payload)).toString(16), fnv1a_64);
  }
  const long = new Uint8Array(3000).map((_, i) => i * 7);
  let slow = 0xcbf29ce484222325n;
  for (const octet of long) slow = BigInt.asUintN(64, (slow ^ BigInt(octet)) * 0x100000001b3n);
  assert.equal(fnv64a(long), slow);
});

Deno.test("Surrogates passes gossip on once in half a minute, on each channel", () => {
  const surrogates = new Surrogates();
  assert.ok(surrogates.handleGossip("a", octets(1), 0));
  assert.equal(surrogates.handleGossip("a", octets(1), 20_000), undefined);
  assert.ok(surrogates.handleGossip("a", octets(2), 20_000));
  assert.equal(surrogates.handleGossip("a", octets(1), 29_999), undefined);
  // What is old is dropped when more is stored.
  assert.ok(surrogates.handleGossip("a", octets(3), 30_000));
  assert.ok(surrogates.handleGossip("a", octets(1), 30_001));
  assert.ok(surrogates.handleGossip("b", octets(3), 30_002));
});

Deno.test("Surrogates remembers no more than it has room for", () => {
  const surrogates = new Surrogates();
  for (let i = 0; i < 40; i++) {
    assert.ok(surrogates.handleGossip("a", new Uint8Array(1 << 20).fill(i), i));
    assert.ok(surrogates.rememberedOctets <= MAX_REMEMBERED_OCTETS);
  }
  assert.equal(surrogates.handleGossip("a", new Uint8Array(1 << 20).fill(39), 40), undefined);
  assert.ok(surrogates.handleGossip("a", new Uint8Array(1 << 20).fill(0), 41), "the oldest made room");
  for (let i = 0; i < 10_000; i++) surrogates.handleGossip("a", octets(i >> 8, i), 42);
  assert.ok(surrogates.rememberedOctets < 10_000);
});

Deno.test("GossipSlots merges what waits, and gives gossip out first", () => {
  const slots = new GossipSlots();
  slots.put("a", 7 as PeerName, passed(1));
  slots.put("a", undefined, passed(2));
  slots.put("a", undefined, passed(3));
  slots.put("b", undefined, passed(4));
  slots.put("a", 8 as PeerName, passed(5));
  slots.put("a", 7 as PeerName, passed(6));
  assert.equal(slots.heldOctets, 6 * passed(1).heldOctets);
  const taken = [];
  for (let w = slots.take(); w; w = slots.take()) taken.push([w.channel, w.source, w.data.encode().map((p) => [...p])]);
  assert.deepEqual(taken, [
    ["a", undefined, [[2], [3]]],
    ["b", undefined, [[4]]],
    ["a", 7, [[1], [6]]],
    ["a", 8, [[5]]],
  ]);
  assert.equal(slots.heldOctets, 0);
});

function octets(...values: number[]): Uint8Array {
  return Uint8Array.from(values);
}

function passed(value: number): PassedOn {
  return new PassedOn([octets(value)]);
}
