import assert from "node:assert/strict";
import { ServiceIds } from "./service_ids.ts";

Deno.test("ServiceIds.backend() gives the same number again, also after a restart", () => {
  const ids = new ServiceIds(undefined);
  assert.equal(ids.backend("web", 1, 7), 1);
  assert.equal(ids.backend("web", 2, 7), 2);
  assert.equal(ids.backend("db", 1, 7), 3);
  assert.equal(ids.dirty, true);
  const again = new ServiceIds(ids.stored());
  assert.equal(again.backend("web", 2, 7), 2);
  assert.equal(again.dirty, false);
  assert.equal(again.backend("web", 2, 8), 4);
  assert.deepEqual(again.of("web").map(({ id }) => id), [1, 2, 4]);
});

Deno.test("ServiceIds.backend() uses a number that was given back last of all", () => {
  const ids = new ServiceIds({ backends: [], lastBackend: 65_534, lastNetwork: 3 });
  assert.equal(ids.backend("a", 1, 1), 65_535);
  assert.equal(ids.backend("a", 1, 2), 1);
  ids.retain((id) => id === 1);
  assert.equal(ids.backend("a", 1, 3), 2);
  assert.equal(ids.find(65_535), undefined);
  assert.equal(ids.find(1)?.address, 2);
});

Deno.test("ServiceIds.network() goes round, past those that are taken", () => {
  const ids = new ServiceIds(undefined);
  assert.equal(ids.network(new Set()), 3);
  assert.equal(ids.network(new Set([3])), 4);
  assert.equal(ids.network(new Set([5])), 6);
  const full = new Set(Array.from({ length: 60 }, (_, i) => i + 3));
  assert.equal(ids.network(full), undefined);
  full.delete(4);
  assert.equal(ids.network(full), 4);
});
