import assert from "node:assert/strict";
import type { PeerName } from "../lib/mac.ts";
import { endpoint } from "../../test/sim/records.ts";
import { Connection, type ConnectionId, DIAL_MS, type Due, type Introduction, INTRODUCTION_MS } from "./connection.ts";

Deno.test("Connection gives up dialling after 10 s, and waiting for an introduction after the session would", () => {
  const dialled = connection({ outbound: true });
  assert.equal(dialled.nextAt(), DIAL_MS);
  assert.equal(dialled.takeDue(DIAL_MS - 1), undefined);
  assert.deepEqual(dialled.takeDue(DIAL_MS), { type: "end", reason: "timed out dialling" });

  const connected = connection({ outbound: true });
  connected.handleConnected(5_000);
  assert.equal(connected.nextAt(), 5_000 + INTRODUCTION_MS);
  assert.equal(connection({ outbound: false }).nextAt(), INTRODUCTION_MS);
});

Deno.test("Connection sends heartbeats every 30 s to an old peer, and ends after 60 s of silence", () => {
  const c = connection();
  c.confirm(introduction([]), 0);
  assert.deepEqual(run(c, 0, 100_000), [
    [30_000, { type: "heartbeat" }],
    [60_000, { type: "end", reason: "timed out waiting for TCP heartbeat" }],
  ]);
  const alive = connection();
  alive.confirm(introduction([]), 0);
  const due = [];
  for (let now = 0; now < 200_000; now += 59_000) {
    alive.handleHeard(now);
    due.push(...run(alive, now, now + 58_999));
  }
  assert.deepEqual(due.map(([at]) => at), [30_000, 60_000, 90_000, 120_000, 150_000, 180_000, 210_000]);
});

Deno.test("Connection probes a peer like us every 500 ms, and ends 2 s after its last sign of life", () => {
  const c = connection();
  c.confirm(introduction(["probe"]), 0);
  c.handleHeard(700);
  assert.deepEqual(run(c, 0, 10_000), [
    [0, { type: "probe", number: 1 }],
    [500, { type: "probe", number: 2 }],
    [1000, { type: "probe", number: 3 }],
    [1500, { type: "probe", number: 4 }],
    [2000, { type: "probe", number: 5 }],
    [2500, { type: "probe", number: 6 }],
    [2700, { type: "end", reason: "no answer to probes for 2 s" }],
  ]);
});

Deno.test("Connection does not count time in which we were not run", () => {
  const c = connection();
  c.confirm(introduction(["probe"]), 0);
  c.handleHeard(1000);
  c.forgive(5000, 6500);
  assert.equal(run(c, 6500, 20_000).at(-1)![0], 8000);
  const d = connection();
  d.confirm(introduction(["probe"]), 0);
  d.forgive(1e9, 3000);
  assert.equal(run(d, 3000, 20_000).at(-1)![0], 5000, "never later than just heard");
  const dialled = connection({ outbound: true });
  dialled.forgive(7000, 7000);
  assert.equal(dialled.nextAt(), DIAL_MS + 7000);
});

Deno.test("Connection ends when its socket takes nothing for a minute", () => {
  const c = connection();
  c.confirm(introduction([]), 0);
  c.handleWritable(false, 1000);
  c.handleWritable(false, 30_000);
  c.handleHeard(50_000);
  assert.deepEqual(run(c, 50_000, 61_000).at(-1), [
    61_000,
    { type: "end", reason: "cannot keep up: takes nothing for 60 s" },
  ]);
  const d = connection();
  d.confirm(introduction([]), 0);
  d.handleWritable(false, 1000);
  d.handleWritable(true, 50_000);
  d.handleHeard(50_000);
  assert.ok(run(d, 50_000, 90_000).every(([, due]) => due.type === "heartbeat"));
});

function connection({ outbound = true } = {}): Connection {
  const id = 1 as ConnectionId;
  return new Connection({ id, remote: endpoint("10.0.0.2:6783"), outbound, anyPeer: true, halfUid: 1n }, 0);
}

function introduction(extensions: readonly string[]): Introduction {
  return {
    peer: 2 as PeerName,
    nickName: "two",
    uid: 3n,
    overlays: ["sleeve"],
    extensions,
    legacyOverlay: false,
    encrypted: false,
  };
}

/** Everything that becomes due from one time to another, until the end. */
function run(c: Connection, from: number, to: number): [number, Due][] {
  const done: [number, Due][] = [];
  for (let now = Math.max(from, c.nextAt()); now <= to; now = c.nextAt()) {
    const due = c.takeDue(now)!;
    done.push([now, due]);
    if (due.type === "end") c.end();
  }
  return done;
}
