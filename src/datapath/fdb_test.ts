import assert from "node:assert/strict";
import { SeededRandom } from "../lib/random.ts";
import {
  ELSEWHERE,
  Fdb,
  FDB_AGE_S,
  FDB_LIMIT,
  FDB_OCTETS,
  FDB_PEER_LIMIT,
  FDB_REFRESH_S,
  FULL,
  KNOWN,
  LEARNED,
  listFdb,
  MOVED,
} from "./fdb.ts";

Deno.test("learn() learns, knows, refuses a move and makes one when forced", () => {
  const { fdb } = table();
  assert.equal(fdb.lookup(0x0200, 1), -1);
  assert.equal(fdb.learn(0x0200, 1, 5, 100, false), LEARNED);
  assert.equal(fdb.lookup(0x0200, 1), 5);
  assert.equal(fdb.learn(0x0200, 1, 5, 101, false), KNOWN);
  assert.equal(fdb.learn(0x0200, 1, 6, 101, false), ELSEWHERE);
  assert.equal(fdb.lookup(0x0200, 1), 5);
  assert.equal(fdb.learn(0x0200, 1, 6, 101, true), MOVED);
  assert.equal(fdb.lookup(0x0200, 1), 6);
});

Deno.test("sweep() removes what was not seen for ten minutes; a frame within them refreshes", () => {
  const { fdb, memory } = table();
  fdb.learn(1, 1, 0, 0, true);
  fdb.learn(1, 2, 0, 0, true);
  fdb.learn(1, 2, 0, FDB_REFRESH_S - 1, true); // not noted: below the granularity
  fdb.setClock(FDB_REFRESH_S);
  assert.deepEqual(listFdb(memory).map((e) => e.ageS), [FDB_REFRESH_S, FDB_REFRESH_S]);
  fdb.learn(1, 2, 0, FDB_REFRESH_S, true);
  fdb.sweep(FDB_AGE_S - 1, 65536);
  assert.equal(fdb.size, 2);
  fdb.sweep(FDB_AGE_S, 65536);
  assert.equal(fdb.lookup(1, 1), -1);
  assert.equal(fdb.lookup(1, 2), 0);
  fdb.sweep(FDB_AGE_S + FDB_REFRESH_S, 65536);
  assert.equal(fdb.size, 0);
});

Deno.test("learn() stops at the limit of a peer and at the limit of all", () => {
  const { fdb } = table();
  let low = 0;
  for (let i = 0; i < FDB_PEER_LIMIT; i++) assert.equal(fdb.learn(2, low++, 1, 0, true), LEARNED);
  assert.equal(fdb.learn(2, low, 1, 0, true), FULL);
  assert.equal(fdb.learn(2, 0, 1, 0, true), KNOWN);
  for (let peer = 2; fdb.size < FDB_LIMIT; peer++) {
    for (let i = 0; i < FDB_PEER_LIMIT && fdb.size < FDB_LIMIT; i++) fdb.learn(2, low++, peer, 0, true);
  }
  assert.equal(fdb.learn(2, low, 9, 0, true), FULL);
  fdb.forgetPeer(1);
  assert.equal(fdb.size, FDB_LIMIT - FDB_PEER_LIMIT);
  assert.equal(fdb.learn(2, low, 9, 0, true), LEARNED);
});

Deno.test("the table agrees with a map through random learning, ageing and forgetting", () => {
  const { fdb, memory } = table();
  const model = new Map<number, { peer: number; seen: number }>();
  const random = new SeededRandom(7);
  let now = 0;
  for (let step = 0; step < 60_000; step++) {
    const high = random.below(2), low = random.below(3000), peer = random.below(8), key = high * 2 ** 32 + low;
    now += random.below(3) === 0 ? 1 : 0;
    const known = model.get(key);
    fdb.learn(high, low, peer, now, true);
    if (!known || known.peer !== peer) model.set(key, { peer, seen: now });
    else if (now - known.seen >= FDB_REFRESH_S) known.seen = now;
    if (random.below(5000) === 0) {
      const gone = random.below(8);
      fdb.forgetPeer(gone);
      for (const [k, v] of model) if (v.peer === gone) model.delete(k);
    }
    if (random.below(2000) === 0) {
      fdb.sweep(now, 70_000);
      for (const [k, v] of model) if (now - v.seen >= FDB_AGE_S) model.delete(k);
    }
    const probe = random.below(2) * 2 ** 32 + random.below(3000);
    assert.equal(fdb.lookup(probe >= 2 ** 32 ? 1 : 0, probe % 2 ** 32), model.get(probe)?.peer ?? -1);
  }
  fdb.setClock(now);
  const listed = listFdb(memory);
  assert.equal(fdb.size, model.size);
  assert.deepEqual(
    new Map(listed.map((e) => [e.mac as number, { peer: e.peer, seen: now - e.ageS }])),
    model,
  );
});

function table(): { fdb: Fdb; memory: SharedArrayBuffer } {
  const memory = new SharedArrayBuffer(FDB_OCTETS);
  return { fdb: new Fdb(memory, 16), memory };
}
