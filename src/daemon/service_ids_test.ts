import assert from "node:assert/strict";
import { ServiceIds } from "./service_ids.ts";

Deno.test("ServiceIds.backend() gives the same number again, also after a restart", () => {
  const ids = new ServiceIds(undefined);
  assert.equal(ids.backend({ service: "web", network: 1, address: 7 }), 1);
  assert.equal(ids.backend({ service: "web", network: 2, address: 7 }), 2);
  assert.equal(ids.backend({ service: "db", network: 1, address: 7 }), 3);
  assert.equal(ids.dirty, true);
  const again = new ServiceIds(ids.stored());
  assert.equal(again.backend({ service: "web", network: 2, address: 7 }), 2);
  assert.equal(again.dirty, false);
  assert.equal(again.backend({ service: "web", network: 2, address: 8 }), 4);
  assert.deepEqual(again.of("web").map(({ id }) => id), [1, 2, 4]);
});

Deno.test("ServiceIds.backend() uses a number that was given back last of all", () => {
  const ids = new ServiceIds({ backends: [], lastBackend: 65_534, lastNetwork: 3 });
  assert.equal(ids.backend({ service: "a", network: 1, address: 1 }), 65_535);
  assert.equal(ids.backend({ service: "a", network: 1, address: 2 }), 1);
  ids.retain((id) => id === 1);
  assert.equal(ids.backend({ service: "a", network: 1, address: 3 }), 2);
  assert.equal(ids.find(65_535), undefined);
  assert.equal(ids.find(1)?.address, 2);
});

Deno.test("ServiceIds.backend() tells ports of an address apart, and adopts what was noted without", () => {
  const place = { service: "web", network: 3, address: 7 };
  const at = (first: number, protocol: "tcp" | "udp" = "tcp") => ({ ...place, port: { protocol, first } });
  const ids = new ServiceIds({ backends: [{ ...place, id: 12 }], lastBackend: 12, lastNetwork: 3 });
  assert.equal(ids.backend(at(90)), 12);
  assert.equal(ids.dirty, true);
  assert.equal(ids.backend(at(81)), 13);
  assert.equal(ids.backend(at(81, "udp")), 14);
  assert.equal(ids.backend(place), 15);
  assert.deepEqual(ids.of("web").map(({ id }) => id), [12, 13, 14, 15]);
  const again = new ServiceIds({ ...ids.stored(), backends: ids.stored().backends.slice(0, 3) });
  assert.deepEqual([again.backend(at(90)), again.backend(at(81))], [12, 13]);
  assert.equal(again.dirty, false);
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
