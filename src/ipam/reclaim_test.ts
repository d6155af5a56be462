import assert from "node:assert/strict";
import { SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import type { Absence } from "../wire/reclaim.ts";
import { type Elapsed, Reclaim, RECLAIM_TICK_MS, type StoredReclaim } from "./reclaim.ts";

const MINUTE = 60_000;
const AFTER = 20 * MINUTE;
const [A, B, C, D, E] = [1, 2, 3, 4, 5] as unknown as [PeerName, PeerName, PeerName, PeerName, PeerName];

Deno.test("due() names who has been missed for long enough, once all who have the option agree", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.run(AFTER - MINUTE);
  assert.deepEqual(us.taken, []);
  us.run(5 * MINUTE);
  assert.deepEqual(us.taken, [C]);
});

Deno.test("due() names nobody as long as a peer in reach still has it in reach", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.absences = () => [];
  us.run(3 * AFTER);
  assert.deepEqual(us.taken, []);
});

Deno.test("due() waits for a peer that saw it later, unless that peer does not count", () => {
  const missedFor = (absence: Partial<Absence>, majority: boolean) => {
    const us = new Heir(A, [A, B, C]);
    us.run(5 * MINUTE);
    us.lose(C);
    us.absences = () => [{ peer: C, forMs: 1_000, seen: true, ...absence }];
    us.majority = majority;
    us.run(3 * AFTER);
    return us.taken;
  };
  assert.deepEqual(missedFor({}, true), []);
  assert.deepEqual(missedFor({ seen: false }, true), [C]);
  assert.deepEqual(missedFor({}, false), [C]);
  assert.deepEqual(missedFor({ forMs: AFTER }, true), [C]);
});

Deno.test("due() waits for who does not tell any more, until it is taken for one without the option", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.silent.add(B);
  us.run(3 * MINUTE);
  us.run(3 * AFTER);
  assert.deepEqual(us.taken, [C]);

  const late = new Heir(A, [A, B, C]);
  late.run(5 * MINUTE);
  late.lose(C);
  late.run(AFTER - 2 * MINUTE);
  late.silent.add(B);
  late.run(4 * MINUTE);
  assert.deepEqual(late.taken, []);
});

Deno.test("due() leaves it to a lower name, unless that one says that it sees no majority", () => {
  const us = new Heir(B, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.run(2 * AFTER);
  assert.deepEqual(us.taken, []);
  us.majority = false;
  us.run(5 * MINUTE);
  assert.deepEqual(us.taken, [C]);
});

Deno.test("due() waits as long as the one whose time is longer", () => {
  const us = new Heir(A, [A, B, C]);
  us.afterOf.set(C, 3 * AFTER);
  us.run(5 * MINUTE);
  us.lose(C);
  us.run(3 * AFTER - MINUTE);
  assert.deepEqual(us.taken, []);
  us.run(6 * MINUTE);
  assert.deepEqual(us.taken, [C]);
});

Deno.test("time that was slept through is not counted", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.run(MINUTE);
  us.now += 10 * AFTER;
  us.run(6 * MINUTE);
  assert.deepEqual(us.taken, []);
});

Deno.test("newcomers join the electorate while a majority is in reach, and count only as needed before", () => {
  const us = new Heir(A, [A, B, C, D, E]);
  us.run(5 * MINUTE);
  us.lose(C, D, E);
  us.owners = new Set([...us.owners, ...[6, 7, 8, 9].map((n) => n as PeerName)]);
  for (const newcomer of [6, 7, 8, 9]) us.here.add(newcomer as PeerName);
  us.run(3 * AFTER);
  assert.equal(us.reclaim.status(us.owners).majority, false);
  assert.deepEqual(us.taken, []);
  us.find(C, D, E);
  us.run(5 * MINUTE);
  assert.equal(us.reclaim.stored().electorate.length, 9);
  us.lose(C, D, E);
  us.run(2 * AFTER);
  assert.deepEqual(us.taken, [C, D, E]);
});

Deno.test("mayDonate() is false where those out of reach could be a majority without us", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(MINUTE);
  us.lose(C);
  assert.equal(us.reclaim.mayDonate(us.owners), true);
  us.lose(B);
  assert.equal(us.reclaim.mayDonate(us.owners), false);
  assert.equal(us.reclaim.mayAllocate, true);
  us.run(AFTER);
  assert.equal(us.reclaim.mayAllocate, false);
  us.find(B);
  us.run(RECLAIM_TICK_MS);
  assert.equal(us.reclaim.mayAllocate, false, "gossip may be under way");
  us.run(MINUTE);
  assert.equal(us.reclaim.mayAllocate, true);
});

Deno.test("what was stored is gone on with after a short pause of the same boot only", () => {
  const us = new Heir(A, [A, B, C]);
  us.run(5 * MINUTE);
  us.lose(C);
  us.run(10 * MINUTE);
  const stored = us.reclaim.stored();
  const restarted = (elapsed: Elapsed) => {
    const again = new Heir(A, [A, B, C], { state: stored, elapsed });
    again.lose(C);
    again.absences = () => [{ peer: C, forMs: AFTER, seen: true }];
    again.run(15 * MINUTE);
    return again.taken;
  };
  assert.deepEqual(restarted({ ms: 2 * MINUTE, exact: true }), [C]);
  assert.deepEqual(restarted({ ms: 2 * MINUTE, exact: false }), []);
  assert.deepEqual(restarted({ ms: 11 * MINUTE, exact: true }), []);

  const isolated = (elapsed: Elapsed) =>
    new Reclaim(options(A, { state: stored, elapsed }, () => false), 0).mayAllocate;
  assert.equal(isolated({ ms: MINUTE, exact: false }), true);
  assert.equal(isolated({ ms: AFTER, exact: false }), false);
  assert.equal(isolated({ ms: Infinity, exact: false }), false);
});

/** A router among others that all do as they should, on a clock. */
class Heir {
  readonly reclaim: Reclaim;
  readonly here: Set<PeerName>;
  readonly silent = new Set<PeerName>();
  readonly afterOf = new Map<PeerName, number>();
  readonly taken: PeerName[] = [];
  owners: Set<PeerName>;
  majority = true;
  now = 0;
  readonly #us: PeerName;
  readonly #lostAt = new Map<PeerName, number>();

  constructor(us: PeerName, owners: readonly PeerName[], stored?: { state: StoredReclaim; elapsed: Elapsed }) {
    this.#us = us;
    this.owners = new Set(owners);
    this.here = new Set(owners);
    this.reclaim = new Reclaim(options(us, stored, (name) => this.here.has(name)), 0);
  }

  lose(...peers: PeerName[]): void {
    for (const peer of peers) {
      this.here.delete(peer);
      this.#lostAt.set(peer, this.now);
    }
  }

  find(...peers: PeerName[]): void {
    for (const peer of peers) {
      this.here.add(peer);
      this.#lostAt.delete(peer);
    }
  }

  /** What the others tell. */
  absences = (): Absence[] =>
    [...this.#lostAt].filter(([peer]) => this.owners.has(peer))
      .map(([peer, at]) => ({ peer, forMs: this.now - at, seen: true }));

  run(ms: number): void {
    for (const end = this.now + ms; this.now < end; this.now += RECLAIM_TICK_MS) {
      if (this.now % 30_000 === 0) this.#tellAll();
      this.reclaim.observe(this.owners, this.now);
      const gone = this.reclaim.due(this.owners, this.now);
      if (gone === undefined) continue;
      this.taken.push(gone);
      this.owners.delete(gone);
    }
  }

  #tellAll(): void {
    for (const peer of this.here) {
      if (peer === this.#us || this.silent.has(peer)) continue;
      const afterMs = this.afterOf.get(peer) ?? AFTER;
      const announcement = { afterMs, majority: this.majority, absent: this.absences(), intends: [] };
      this.reclaim.handleAnnouncement(peer, announcement, this.now);
    }
  }
}

function options(
  us: PeerName,
  stored: { state: StoredReclaim; elapsed: Elapsed } | undefined,
  inReach: (name: PeerName) => boolean,
) {
  return { us, afterMs: AFTER, stored, inReach, log: SILENT };
}
