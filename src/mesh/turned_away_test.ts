import assert from "node:assert/strict";
import { TurnedAwayList } from "./turned_away.ts";

Deno.test("TurnedAwayList has the last reason of an address, for ten minutes or until it is let in", () => {
  const list = new TurnedAwayList();
  list.add(1, "a", 1000);
  list.add(2, "b", 2000);
  list.add(1, "c", 3000);
  assert.deepEqual(list.list(3000), [{ address: 1, reason: "c", at: 3000 }, { address: 2, reason: "b", at: 2000 }]);
  assert.deepEqual(list.list(602_000).map(({ address }) => address), [1]);
  list.forget(1);
  assert.deepEqual(list.list(3000).map(({ address }) => address), [2]);
});

Deno.test("TurnedAwayList remembers the last sixteen addresses", () => {
  const list = new TurnedAwayList();
  for (let address = 0; address < 1000; address++) list.add(address, "no", address);
  assert.deepEqual(list.list(1000).map(({ address }) => address), Array.from({ length: 16 }, (_, i) => 999 - i));
});
