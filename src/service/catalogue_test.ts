import assert from "node:assert/strict";
import { exportOf, importOf, numbered } from "../../test/service_records.ts";
import { type Logger, SILENT } from "../lib/log.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import {
  decodeService,
  encodeHeads,
  encodeRecords,
  encodeWant,
  type Head,
  type ServiceMessage,
  type Telling,
} from "../wire/service.ts";
import { Catalogue, type CatalogueOptions, type CatalogueOutput, checkStored, encodeStored } from "./catalogue.ts";
import type { ImportRecord } from "./records.ts";

const [US, THEM, THIRD] = [0x02aa_0000_0001, 0x02bb_0000_0002, 0x02cc_0000_0003] as PeerName[] as [
  PeerName,
  PeerName,
  PeerName,
];
const LIFE = 1_800_000_000_000;

Deno.test("what is set is told, and known here, when it is on disk and not before", () => {
  const us = new Bench();
  assert.equal(us.catalogue.set(importOf("db"), 0), "changed");
  assert.deepEqual(us.kinds(), ["persist"]);
  assert.equal(us.catalogue.imports("db").length, 0);
  assert.equal(us.catalogue.ownImport("db")?.spec.name, "db");
  const { revision, stored } = us.catalogue.snapshot();
  assert.deepEqual(stored.records.map(({ key, seq }) => [key, seq]), [["import db", 0]]);
  us.catalogue.handlePersisted(revision - 1, 0);
  assert.deepEqual(us.kinds(), []);
  us.catalogue.handlePersisted(revision, 0);
  assert.deepEqual(us.kinds(), ["broadcast", "changed"]);
  assert.deepEqual(us.catalogue.imports("db").map(({ owner, reachable }) => [owner, reachable]), [[US, true]]);
});

Deno.test("set() of what is there changes nothing, and changes that come together are told together", () => {
  const us = new Bench();
  us.set("a", "b");
  assert.equal(us.catalogue.set(importOf("a"), 0), "same");
  assert.deepEqual(us.kinds(), []);
  us.catalogue.set(importOf("a", { spec: { weight: 2 } }), 0);
  us.catalogue.set(importOf("a", { spec: { weight: 3 } }), 0);
  us.catalogue.remove("import b");
  assert.equal(us.catalogue.remove("import b"), false);
  us.persist();
  const [told] = us.told();
  assert.ok(told?.type === "records");
  assert.deepEqual(told.records.map(({ key, record }) => [key, (record as ImportRecord | undefined)?.spec.weight]), [
    ["import a", 3],
    ["import b", undefined],
  ]);
});

Deno.test("what is added and removed before it is on disk is never told", () => {
  const us = new Bench();
  us.catalogue.set(importOf("a"), 0);
  us.catalogue.remove("import a");
  us.persist();
  assert.deepEqual(us.told(), []);
});

Deno.test("what cannot be stored is taken back, and nobody hears of it", () => {
  const us = new Bench();
  us.set("a", "b");
  const before = us.catalogue.own();
  us.catalogue.set(importOf("a", { spec: { weight: 2 } }), 0);
  us.catalogue.set(importOf("c"), 0);
  us.catalogue.remove("import b");
  us.catalogue.setStatus("import a", { health: ["up"], holding: [] }, 0);
  assert.deepEqual(us.kinds(), ["persist"]);
  us.catalogue.revert(before, 0);
  assert.deepEqual(us.kinds(), ["persist"]);
  us.persist();
  assert.deepEqual(us.kinds(), []);
  assert.deepEqual(us.catalogue.own(), us.catalogue.names().flatMap((name) => us.catalogue.imports(name)[0]!.record));
  assert.deepEqual(us.catalogue.names(), ["a", "b"]);
  assert.equal(us.catalogue.ownImport("a")?.spec.weight, importOf("a").spec.weight);
  us.catalogue.checkInvariants();

  us.set("c");
  assert.deepEqual(us.catalogue.names(), ["a", "b", "c"]);
});

Deno.test("revert() leaves the status of what is the same otherwise", () => {
  const us = new Bench();
  us.set("a");
  const before = us.catalogue.own();
  us.catalogue.setStatus("import a", { health: ["up"], holding: [] }, 0);
  us.outputs();
  us.catalogue.revert(before, 0);
  assert.deepEqual(us.kinds(), []);
  assert.deepEqual(us.catalogue.ownImport("a")?.status.health, ["up"]);
});

Deno.test("setStatus() tells at once, without a write, and once", () => {
  const us = new Bench();
  us.set("a");
  const up = { health: ["up"], holding: [] } as const;
  assert.equal(us.catalogue.setStatus<ImportRecord>("import a", up, 0), true);
  assert.equal(us.catalogue.setStatus<ImportRecord>("import a", up, 0), false);
  assert.equal(us.catalogue.setStatus<ImportRecord>("import b", up, 0), false);
  assert.deepEqual(us.kinds(), ["broadcast", "changed"]);
  assert.equal(us.catalogue.imports("a")[0]!.record.status.health[0], "up");
  // Some time later it is remembered too.
  us.catalogue.handleTimeout(30_000);
  assert.deepEqual(us.kinds(), ["persist"]);
  assert.equal(us.catalogue.set(importOf("a", { health: ["down"] }), 0), "changed");
  assert.deepEqual(us.kinds(), ["broadcast", "changed"], "a whole record that differs in status alone is no other");
});

Deno.test("the status of what is not on disk yet is told with it", () => {
  const us = new Bench();
  us.catalogue.set(importOf("a"), 0);
  us.catalogue.setStatus<ImportRecord>("import a", { health: ["up"], holding: [] }, 0);
  assert.deepEqual(us.told(), []);
  us.persist();
  assert.equal(us.catalogue.imports("a")[0]!.record.status.health[0], "up");
});

Deno.test("after a start, what was on disk and never told is told, with numbers that nobody has seen", () => {
  const us = new Bench();
  us.set("a");
  us.catalogue.set(importOf("a", { spec: { weight: 9 } }), 0);
  us.catalogue.set(importOf("b"), 0);
  const stored = checkStored(JSON.parse(JSON.stringify(encodeStored([us.catalogue.snapshot().stored]))))[0];
  const again = new Bench({ stored });
  assert.deepEqual(again.catalogue.own().map(({ spec }) => spec.name), ["a", "b"]);
  const answer = again.answerTo(THEM, { owner: US, life: LIFE, seq: 1, check: 0 });
  assert.deepEqual(answer?.records.map(({ key, seq }) => [key, seq > 1_000]), [["import a", true], ["import b", true]]);
  again.catalogue.checkInvariants();
});

Deno.test("a clock that counts fractions of a millisecond makes a life that can be told", () => {
  const us = new Bench({ unixMs: () => LIFE + 0.25 });
  us.set("a");
  assert.equal(us.answerTo(THEM, { owner: US, life: 0, seq: 0, check: 0 })?.life, LIFE);
});

Deno.test("records of another name of ours are taken over, in another life", () => {
  const us = new Bench();
  us.set("a");
  const again = new Bench({ stored: { ...us.catalogue.snapshot().stored, owner: THIRD, life: 5 } });
  assert.equal(again.catalogue.owners()[0]?.owner, US);
  assert.equal(again.answerTo(THEM, { owner: US, life: 5, seq: 1, check: 0 })?.life, LIFE);
});

Deno.test("a broadcast is taken, passed on as it came, and those who look are told the names", () => {
  const us = new Bench();
  const payload = telling({ owner: THEM, records: [numbered(1, importOf("a")), numbered(2, exportOf("b"))] });
  assert.deepEqual(us.catalogue.handleBroadcast(THEM, payload, 0)?.encode(), [payload]);
  assert.deepEqual(us.outputs(), [{ type: "changed", names: ["a", "b"] }]);
  assert.deepEqual(us.catalogue.names(), ["a", "b"]);
  assert.equal(us.catalogue.exports("b")[0]!.owner, THEM);
  assert.equal(us.catalogue.size, 2);
});

Deno.test("when something was missed the owner is asked, once, and again if it says nothing", () => {
  const us = new Bench();
  us.hear(THEM, { owner: THEM, records: [numbered(1, importOf("a"))] });
  us.hear(THEM, { owner: THEM, since: 2, records: [numbered(3, importOf("c"))] });
  us.hear(THEM, { owner: THEM, since: 3, records: [numbered(4, importOf("d"))] });
  assert.deepEqual(us.asked(), [`${formatMac(THEM)} of ${formatMac(THEM)} since 1`]);
  assert.deepEqual(us.asked(), []);
  us.advance(2_000);
  assert.deepEqual(us.asked(), []);
  us.advance(300);
  assert.equal(us.asked().length, 1, "it asks again");
  us.answer(THEM, { owner: THEM, since: 1, records: [2, 3, 4].map((n) => numbered(n, importOf(`s${n}`))) });
  assert.equal(us.catalogue.size, 4);
  us.advance(60_000);
  assert.deepEqual(us.asked(), []);
});

Deno.test("an owner out of reach is asked of who knows more, is marked, and replaced by its own word", () => {
  const us = new Bench({ others: [] }, [THEM]);
  us.gossip(THEM, [{ owner: THIRD, life: LIFE, seq: 1, check: 1 }]);
  assert.deepEqual(us.asked(), [`${formatMac(THIRD)} of ${formatMac(THEM)} since 0`]);
  us.answer(THEM, { owner: THIRD, full: true, records: [numbered(1, importOf("forged"))] });
  const [second] = us.catalogue.imports("forged");
  assert.ok(second?.secondHand && !second.reachable);
  assert.deepEqual(us.catalogue.rejections(), []);
  us.reachable.add(THIRD);
  us.catalogue.handleTopology(0);
  assert.deepEqual(us.asked(), [], "not so soon after the last question");
  us.advance(1_000);
  assert.deepEqual(us.asked(), [`${formatMac(THIRD)} of ${formatMac(THIRD)} since 0`]);
  us.answer(THIRD, { owner: THIRD, life: 7, full: true, records: [numbered(1, importOf("true"))] });
  assert.deepEqual(us.catalogue.names(), ["true"]);
  assert.equal(us.catalogue.imports("true")[0]!.secondHand, false);
});

for (
  const [what, act, reason] of [
    [
      "a broadcast of another's records",
      (us) => us.hear(THEM, { owner: THIRD, records: [numbered(1, importOf("a"))] }),
      `it belongs to ${formatMac(THIRD)}, who did not say so`,
    ],
    [
      "a broadcast of our records",
      (us) => us.hear(THEM, { owner: US, records: [numbered(1, importOf("a"))] }),
      `it belongs to ${formatMac(US)}, who did not say so`,
    ],
    [
      "an answer about an owner within reach",
      (us) => us.answer(THEM, { owner: THIRD, full: true, records: [numbered(1, importOf("a"))] }),
      `it belongs to ${formatMac(THIRD)}, who is within reach`,
    ],
    [
      "an answer about ourselves",
      (us) => us.answer(THEM, { owner: US, full: true, records: [numbered(1, importOf("a"))] }),
      "it is ours, and not as we say",
    ],
    [
      "a full list as a broadcast",
      (us) => us.hear(THEM, { owner: THEM, full: true, records: [numbered(1, importOf("a"))] }),
      "a full list that nobody asked for",
    ],
    [
      "an export whose name lies outside the domain",
      (us) => us.hear(THEM, { owner: THEM, records: [numbered(1, exportOf("www.example.com"))] }),
      "its name lies outside the DNS domain",
    ],
    [
      "that a peer within reach is to be forgotten",
      (us) => us.catalogue.handleBroadcast(THEM, text({ type: "forget", owner: formatMac(THIRD), life: 9 }), 0),
      `records of ${formatMac(THIRD)}, who is within reach, were to be forgotten`,
    ],
    [
      "a question as a broadcast",
      (us) => us.catalogue.handleBroadcast(THEM, encodeWant({ owner: US, life: 0, seq: 0, check: 0 }), 0),
      "a message of type want came as a broadcast",
    ],
    [
      "records as gossip",
      (us) => us.catalogue.handleGossip(telling({ owner: THEM, records: [] }), 0, THEM),
      "a message of type records came as gossip",
    ],
    ["what is no JSON", (us) => us.catalogue.handleUnicast(THEM, text("{"), 0), "Cannot read services: not JSON"],
    [
      "negative ports",
      (us) => {
        const [message] = [
          JSON.parse(new TextDecoder().decode(telling({ owner: THEM, records: [numbered(1, importOf("a"))] }))),
        ];
        message.records[0][1].ports = ["-5432"];
        us.catalogue.handleBroadcast(THEM, text(message), 0);
      },
      '"-5432" is no port or range of ports',
    ],
  ] as readonly (readonly [string, (us: Bench) => void, string])[]
) {
  Deno.test(`a peer that tells ${what} is not believed, and the reason is shown`, () => {
    const warned: string[] = [];
    const log: Logger = {
      ...SILENT,
      warn: (event, fields) => warned.push(`${event} ${fields?.peer} ${fields?.reason}`),
    };
    const us = new Bench({ log });
    us.set("ours");
    act(us);
    act(us);
    assert.deepEqual(us.catalogue.names(), ["ours"]);
    assert.deepEqual(us.catalogue.rejections().map(({ peer, reason, count }) => [peer, reason, count]), [[
      THEM,
      reason,
      2,
    ]]);
    assert.deepEqual(warned, [`a record of a peer was not taken ${formatMac(THEM)} ${reason}`], "it is logged once");
    us.catalogue.checkInvariants();
  });
}

Deno.test("peers with millions of names fill what there is for others, and nothing of ours", () => {
  const hostile = Array.from({ length: 14 }, (_, i) => 0x02dd_0000_0000 + i as PeerName);
  const us = new Bench({}, hostile);
  us.set("ours");
  for (const owner of hostile) {
    for (let part = 0; part < 6; part++) {
      const records = Array.from({ length: 1_000 }, (_, i) => {
        const n = 1_000 * part + i;
        return numbered(n + 1, importOf(`x${owner % 100}-${n}`));
      });
      for (const payload of encodeRecords(withDefaults({ owner, since: 1_000 * part, records }))) {
        us.catalogue.handleBroadcast(owner, payload, 0);
      }
    }
  }
  assert.equal(us.catalogue.size, 50_001);
  assert.ok(us.catalogue.rejections().length <= 64);
  assert.ok(us.catalogue.rejections().some(({ reason }) => reason === "there is no room for more records"));
  assert.ok(us.catalogue.rejections().some(({ reason }) => reason === "more than 5000 records of one peer"));
  us.set("another");
  assert.equal(us.catalogue.imports("another").length, 1);
  us.catalogue.checkInvariants();
});

Deno.test("a peer that says something else each time does not fill the log", () => {
  let lines = 0;
  const us = new Bench({ log: { ...SILENT, warn: () => lines++ } });
  for (let i = 0; i < 1_000; i++) us.catalogue.handleUnicast(THEM, text({ type: `x${i}` }), 0);
  assert.equal(lines, 8);
  assert.equal(us.catalogue.rejections().length, 8);
  us.now += 60_000;
  us.catalogue.handleUnicast(THEM, text({ type: "y" }), us.now);
  assert.equal(lines, 9);
});

Deno.test("what waited for so long that removals are forgotten is not told, but asked for", () => {
  const us = new Bench();
  us.set("a", "b");
  us.catalogue.setStatus<ImportRecord>("import a", { health: ["up"], holding: [] }, 0);
  const [waiting] = us.outputs().flatMap((output) => output.type === "broadcast" ? [output.data] : []);
  us.catalogue.remove("import a");
  us.persist();
  us.advance(2 * 3_600_000);
  assert.deepEqual(waiting?.encode(), []);
  const [head] = us.catalogue.completeState()!.encode().map((payload) => decodeService(payload as Uint8Array));
  assert.ok(head?.type === "heads" && head.heads.length === 1);
  assert.deepEqual(us.answerTo(THEM, { ...head.heads[0]!, seq: 2 })?.records.map(({ key }) => key), ["import b"]);
});

Deno.test("an answer that nobody waits for changes nothing", () => {
  const us = new Bench();
  us.answer(THEM, { owner: THEM, full: true, records: [numbered(1, importOf("a"))] });
  us.answer(THEM, { owner: THEM, records: [numbered(1, importOf("a"))] });
  assert.equal(us.catalogue.size, 0);
});

Deno.test("heads of owners that nobody has ever seen cost some questions, and no memory", () => {
  const us = new Bench();
  for (let round = 0; round < 20; round++) {
    us.gossip(
      THEM,
      Array.from({ length: 1_000 }, (_, i) => ({
        owner: 0x02ee_0000_0000 + 1_000 * round + i as PeerName,
        life: LIFE,
        seq: 5,
        check: 1,
      })),
    );
    us.outputs();
  }
  assert.equal(us.catalogue.owners().length, 1);
  us.reachable.delete(THEM);
  us.catalogue.handleTopology(0);
  us.advance(1_000);
  us.reachable.add(THEM);
  // An owner that is there is asked all the same.
  us.gossip(THEM, [{ owner: THIRD, life: LIFE, seq: 1, check: 1 }]);
  assert.ok(us.asked().includes(`${formatMac(THIRD)} of ${formatMac(THIRD)} since 0`));
});

Deno.test("what others claim of an owner within reach makes us ask it, but not all the time", () => {
  const us = new Bench();
  us.hear(THIRD, { owner: THIRD, records: [numbered(1, importOf("a"))] });
  let questions = 0;
  for (let second = 0; second < 60; second++) {
    us.gossip(THEM, [{ owner: THIRD, life: LIFE + second, seq: 99, check: 1 }]);
    for (const question of us.asked()) {
      questions++;
      assert.equal(question, `${formatMac(THIRD)} of ${formatMac(THIRD)} since 1`);
      us.answer(THIRD, { owner: THIRD, since: 1, seq: 1, records: [] });
    }
    us.advance(1_000);
  }
  assert.ok(questions >= 2 && questions <= 13, `${questions}`);
  assert.deepEqual(us.catalogue.names(), ["a"]);
});

Deno.test("an answer that is not what its owner has now makes us ask for everything", () => {
  const us = new Bench();
  us.hear(THEM, { owner: THEM, records: [numbered(1, importOf("a"))] });
  us.hear(THEM, { owner: THEM, since: 2, records: [numbered(3, importOf("c"))] });
  assert.deepEqual(us.asked(), [`${formatMac(THEM)} of ${formatMac(THEM)} since 1`]);
  us.answer(THEM, { owner: THEM, since: 1, records: [numbered(3, importOf("c"))], check: 1 });
  us.advance(1_000);
  assert.deepEqual(us.asked(), [`${formatMac(THEM)} of ${formatMac(THEM)} since 0`]);
});

Deno.test("who hears of records that it never had says what it has", () => {
  const us = new Bench();
  assert.equal(us.catalogue.completeState(), undefined);
  us.gossip(THEM, [{ owner: US, life: LIFE - 5, seq: 7, check: 1 }]);
  us.advance(0);
  const heads = us.outputs().flatMap((output) => output.type === "gossip" ? output.data.encode() : []);
  assert.deepEqual(heads.map((payload) => decodeService(payload as Uint8Array)), [
    { type: "heads", by: US, heads: [{ owner: US, life: LIFE, seq: 0, check: 0 }] },
  ]);
  assert.equal(us.answerTo(THEM, { owner: US, life: LIFE - 5, seq: 7, check: 1 })?.full, true);
  us.gossip(THEM, [{ owner: US, life: LIFE - 5, seq: 7, check: 1 }]);
  us.advance(4_000);
  assert.deepEqual(us.kinds(), [], "not all the time");
});

Deno.test("nobody is answered about an owner that is there to be asked", () => {
  const us = new Bench();
  us.hear(THEM, { owner: THEM, records: [numbered(1, importOf("a"))] });
  assert.equal(us.answerTo(THIRD, { owner: THEM, life: 0, seq: 0, check: 0 }), undefined);
  us.reachable.delete(THEM);
  us.catalogue.handleTopology(0);
  us.advance(1_000);
  assert.equal(us.answerTo(THIRD, { owner: THEM, life: 0, seq: 0, check: 0 })?.records.length, 1);
});

Deno.test("questions of one peer are answered now and then, and the last one surely", () => {
  const us = new Bench();
  us.set("a");
  let answers = 0;
  for (let i = 0; i < 100; i++) {
    us.catalogue.handleUnicast(THEM, encodeWant({ owner: US, life: 0, seq: i, check: 0 }), us.now);
    answers += us.kinds().filter((kind) => kind === "unicast").length;
  }
  assert.equal(answers, 1);
  us.advance(500);
  assert.equal(us.kinds().filter((kind) => kind === "unicast").length, 1);
  us.advance(10_000);
  assert.deepEqual(us.kinds(), []);
});

Deno.test("who is up to date is answered with next to nothing", () => {
  const us = new Bench();
  us.set(...Array.from({ length: 100 }, (_, i) => `s${i}`));
  const [head] = (decodeService(us.catalogue.completeState()!.encode()[0] as Uint8Array) as Extract<
    ServiceMessage,
    { type: "heads" }
  >).heads;
  assert.deepEqual(us.answerTo(THEM, head!)?.records, []);
  assert.equal(us.answerTo(THIRD, { ...head!, check: 0 })?.records.length, 100, "the same number of something else");
});

Deno.test("records of a peer that goes out of reach stay, marked, until it is removed", () => {
  const us = new Bench();
  us.hear(THEM, { owner: THEM, records: [numbered(1, importOf("a"))] });
  us.outputs();
  assert.equal(us.catalogue.removePeer(THEM, 0), false);
  us.reachable.delete(THEM);
  us.catalogue.handlePeerGone(THEM, 0);
  assert.deepEqual(us.outputs(), [{ type: "changed", names: ["a"] }]);
  assert.equal(us.catalogue.imports("a")[0]!.reachable, false);
  assert.equal(us.catalogue.removePeer(THIRD, 0), false);
  assert.equal(us.catalogue.removePeer(THEM, 0), true);
  assert.deepEqual(us.kinds(), ["changed", "broadcast"]);
  assert.equal(us.catalogue.size, 0);
  us.catalogue.checkInvariants();
});

Deno.test("what others said is stored now and then, and is there after a start before anybody says it again", () => {
  const us = new Bench();
  us.hear(THEM, { owner: THEM, records: [numbered(1, importOf("a")), numbered(2, importOf("b"))] });
  us.hear(THEM, {
    owner: THEM,
    since: 2,
    seq: 3,
    records: [{ seq: 3, key: "import b", record: undefined, octets: 8 }],
  });
  us.outputs();
  us.advance(30_000);
  assert.deepEqual(us.kinds(), ["persistOthers"]);
  us.advance(60_000);
  assert.deepEqual(us.kinds(), []);
  const others = checkStored(JSON.parse(JSON.stringify(encodeStored(us.catalogue.others()))));
  const again = new Bench({ others }, []);
  assert.deepEqual(again.catalogue.names(), ["a"]);
  assert.equal(again.catalogue.imports("a")[0]!.reachable, false);
  // A removal is remembered too: an older delta does not undo it.
  again.reachable.add(THEM);
  again.hear(THEM, { owner: THEM, since: 1, records: [numbered(2, importOf("b"))] });
  assert.deepEqual(again.catalogue.names(), ["a"]);
  again.catalogue.checkInvariants();
});

Deno.test("checkStored() says what is wrong with a file", () => {
  for (
    const [data, message] of [
      [{}, /a list of owners is missing/],
      [[{ owner: "x" }], /"x" is no peer/],
      [[{ owner: formatMac(US), records: {} }], /records of .* are no list/],
      [[{ owner: formatMac(US), records: [], life: -1 }], /"-1" is no number/],
      [[{ owner: formatMac(US), records: [[1, { kind: "import" }]], life: 1, floor: 0, seq: 1 }], /ports is no list/],
    ] as const
  ) assert.throws(() => checkStored(data), message);
});

Deno.test("there is room for so many records of ours and no more", () => {
  const us = new Bench();
  for (let i = 0; i < 5_000; i++) assert.equal(us.catalogue.set(importOf(`s${i}`), 0), "changed");
  assert.equal(us.catalogue.set(importOf("more"), 0), "full");
  us.persist();
  assert.equal(us.catalogue.size, 5_000);
  assert.equal(us.catalogue.ownExports("s1").length, 0);
});

/** A catalogue, and what it asks for. */
class Bench {
  readonly catalogue: Catalogue;
  readonly reachable: Set<PeerName>;
  now: Instant = 0;

  constructor(o: Partial<CatalogueOptions> = {}, reachable: readonly PeerName[] = [THEM, THIRD]) {
    this.reachable = new Set(reachable);
    this.catalogue = new Catalogue({
      ourName: US,
      domain: "weave.local.",
      isReachable: (peer) => this.reachable.has(peer),
      unixMs: () => LIFE + this.now,
      random: new SeededRandom(1),
      log: SILENT,
      stored: undefined,
      others: [],
      ...o,
    }, 0);
  }

  outputs(): CatalogueOutput[] {
    const outputs: CatalogueOutput[] = [];
    for (let output = this.catalogue.poll(); output; output = this.catalogue.poll()) outputs.push(output);
    return outputs;
  }

  kinds(): string[] {
    return this.outputs().map(({ type }) => type);
  }

  persist(): void {
    this.catalogue.handlePersisted(this.catalogue.snapshot().revision, this.now);
  }

  /** Sets plain records, stores them, and takes what it asks for. */
  set(...names: readonly string[]): void {
    for (const name of names) this.catalogue.set(importOf(name), this.now);
    this.persist();
    this.outputs();
  }

  /** What it broadcasts. */
  told(): ServiceMessage[] {
    return this.outputs().flatMap((output) =>
      output.type === "broadcast" ? output.data.encode().map((payload) => decodeService(payload as Uint8Array)) : []
    );
  }

  /** Whom it asks about whom. */
  asked(): string[] {
    return this.outputs().flatMap((output) => {
      if (output.type !== "unicast") return [];
      const message = decodeService(output.payload);
      if (message.type !== "want") return [];
      return [`${formatMac(message.owner)} of ${formatMac(output.to)} since ${message.since}`];
    });
  }

  hear(source: PeerName, o: Saying): void {
    this.catalogue.handleBroadcast(source, telling(o), this.now);
  }

  answer(source: PeerName, o: Saying): void {
    this.catalogue.handleUnicast(source, telling(o), this.now);
  }

  gossip(from: PeerName, heads: readonly Head[]): void {
    for (const payload of encodeHeads(from, heads)) this.catalogue.handleGossip(payload, this.now, from);
  }

  /** What it says to who asks. */
  answerTo(from: PeerName, head: Parameters<typeof encodeWant>[0]) {
    this.outputs();
    this.catalogue.handleUnicast(from, encodeWant(head), this.now);
    for (const output of this.outputs()) {
      if (output.type !== "unicast") continue;
      const message = decodeService(output.payload);
      if (message.type === "records") return message;
    }
    return undefined;
  }

  advance(ms: number): void {
    const end = this.now + ms;
    for (let at = this.catalogue.pollTimeout()?.at ?? Infinity; at <= end;) {
      this.now = Math.max(this.now, at);
      this.catalogue.handleTimeout(this.now);
      at = this.catalogue.pollTimeout()?.at ?? Infinity;
    }
    this.now = end;
  }
}

type Saying = Partial<Telling> & Pick<Telling, "owner" | "records">;

function withDefaults(o: Saying): Telling {
  return { life: LIFE, since: 0, seq: o.records.at(-1)?.seq ?? 0, check: undefined, full: false, ...o };
}

function telling(o: Saying): Uint8Array {
  return encodeRecords(withDefaults(o))[0]!;
}

function text(message: unknown): Uint8Array {
  return new TextEncoder().encode(typeof message === "string" ? message : JSON.stringify(message));
}
