import assert from "node:assert/strict";
import fc from "fast-check";
import { importOf, numbered, recordsMessage } from "../../test/service_records.ts";
import type { PeerName } from "../lib/mac.ts";
import {
  decodeService,
  encodeRecord,
  encodeRecords,
  type Numbered,
  type RecordsMessage,
  type Telling,
} from "../wire/service.ts";
import { MAX_RECORDS_OF_OWNER, OwnerRecords, TOMBSTONE_MS } from "./owner_records.ts";

const OWNER = 0x02bb_0000_0002 as PeerName;
const LIFE = 1_000;

// Laws

const change = fc.record({ key: fc.nat(4), gone: fc.boolean(), weight: fc.integer({ min: 1, max: 9 }) });
const history = fc.array(change, { minLength: 1, maxLength: 12 });

/** Where a history is cut into deltas. */
const cuts = fc.array(fc.nat(12), { maxLength: 4 });

Deno.test("deltas that come twice, late and in any order lead to what the owner has", () => {
  fc.assert(fc.property(history, cuts, fc.array(fc.nat(), { maxLength: 30 }), (changes, places, order) => {
    const { owner, deltas } = told(changes, places);
    const copy = newRecords();
    for (const n of order) copy.apply(deltas[n % deltas.length]!, { now: 0, trusted: false });
    // In the end each has come after the one before.
    for (const delta of deltas) copy.apply(delta, { now: 0, trusted: false });
    assert.deepEqual(contentOf(copy), contentOf(owner));
    assert.deepEqual(copy.head, owner.head);
    copy.checkInvariants();
  }));
});

Deno.test("a delta applied again changes nothing", () => {
  fc.assert(fc.property(history, cuts, fc.nat(), (changes, places, upTo) => {
    const { deltas } = told(changes, places);
    const copy = newRecords();
    for (const delta of deltas.slice(0, 1 + upTo % deltas.length)) copy.apply(delta, { now: 0, trusted: false });
    const before = stateOf(copy);
    for (const delta of deltas.slice(0, 1 + upTo % deltas.length)) {
      const outcome = copy.apply(delta, { now: 0, trusted: false });
      assert.ok(outcome === "old" || outcome === "applied");
    }
    assert.deepEqual(stateOf(copy), before);
  }));
});

Deno.test("two deltas that both follow commute", () => {
  fc.assert(fc.property(history, cuts, fc.nat(), fc.nat(), (changes, places, i, j) => {
    const { deltas } = told(changes, places);
    const [a, b] = [deltas[i % deltas.length]!, deltas[j % deltas.length]!].map((delta) => ({
      ...delta,
      // As if each were told to somebody who has nothing: it follows on whatever there is.
      since: 0,
      check: undefined,
    }));
    const [one, other] = [newRecords(), newRecords()];
    for (const delta of [a!, b!]) one.apply(delta, { now: 0, trusted: false });
    for (const delta of [b!, a!]) other.apply(delta, { now: 0, trusted: false });
    assert.deepEqual(stateOf(one), stateOf(other));
  }));
});

Deno.test("what is told of any state leads to the teller's, over the wire, whatever was missed or forgotten", () => {
  const life = fc.integer({ min: 1, max: 3 });
  fc.assert(
    fc.property(history, history, cuts, fc.nat(12), life, life, (changes, others, places, forgotten, mine, theirs) => {
      const { owner } = told(changes, [], theirs);
      // Removals up to some time are forgotten.
      for (let i = 0; i < forgotten % 3; i++) owner.expireTombstones(TOMBSTONE_MS);
      // The copy has heard something of this history, or of another one.
      const copy = newRecords();
      const { deltas } = told(mine === theirs ? changes : others, places, mine);
      for (const delta of deltas.slice(0, forgotten % (deltas.length + 1))) {
        copy.apply(delta, { now: 0, trusted: false });
      }
      for (let round = 0; round < 2; round++) {
        const { life, seq, check } = copy.head;
        for (const message of overWire(owner.told(life, seq, check))) copy.apply(message, { now: 0, trusted: true });
      }
      assert.deepEqual(contentOf(copy), contentOf(owner));
      assert.deepEqual(copy.head, owner.head);
      copy.checkInvariants();
    }),
  );
});

// Cases

Deno.test("a delta that does not follow changes nothing, and says so", () => {
  const copy = newRecords();
  apply(copy, { since: 0, records: [numbered(1, importOf("a"))] });
  assert.equal(apply(copy, { since: 2, records: [numbered(3, importOf("c"))] }), "behind");
  assert.deepEqual(names(copy), ["a"]);
  assert.equal(copy.head.seq, 1);
});

Deno.test("a delta of another life is none, whichever is later", () => {
  const copy = newRecords();
  apply(copy, { life: 5, records: [numbered(1, importOf("a"))] });
  assert.equal(apply(copy, { life: 6, records: [numbered(1, importOf("b"))] }), "behind");
  assert.equal(apply(copy, { life: 4, records: [numbered(9, importOf("b"))] }), "old");
  copy.secondHand = true;
  assert.equal(apply(copy, { life: 4, records: [numbered(9, importOf("b"))] }), "behind");
  assert.deepEqual(names(copy), ["a"]);
});

Deno.test("a full list takes nothing away before it has all come, and then what it does not name", () => {
  const copy = newRecords();
  apply(copy, {
    life: 5,
    records: [numbered(1, importOf("a")), numbered(2, importOf("b")), numbered(3, importOf("c"))],
  });
  const part = (since: number, seq: number, last: boolean, records: readonly Numbered[]) =>
    apply(copy, { life: 6, full: true, since, seq, last, records });
  assert.equal(part(0, 4, false, [numbered(4, importOf("d"))]), "partial");
  assert.deepEqual(names(copy), ["a", "b", "c", "d"]);
  assert.equal(copy.head.life, 5, "what is told to others meanwhile is what it was");
  assert.equal(part(5, 9, true, []), "behind", "something is missing between");
  assert.equal(part(4, 9, true, [numbered(9, importOf("b"))]), "applied");
  assert.deepEqual(names(copy), ["b", "d"]);
  assert.equal(copy.head.life, 6);
  assert.equal(copy.floor, 9, "who missed removals is to hear everything");
});

Deno.test("a full list that is older than what is there holds only as the owner's answer", () => {
  const copy = newRecords();
  apply(copy, { life: 5, records: [numbered(7, importOf("a"))] });
  const full = { life: 5, full: true, last: true, seq: 3, records: [numbered(3, importOf("b"))] };
  assert.equal(copy.apply(message({ ...full, life: 4 }), { now: 0, trusted: false }), "old");
  assert.deepEqual(names(copy), ["a"]);
  assert.equal(copy.apply(message(full), { now: 0, trusted: false }), "old");
  assert.ok(names(copy).includes("a"));
  assert.equal(copy.apply(message({ ...full, life: 4 }), { now: 0, trusted: true }), "applied");
  assert.deepEqual(names(copy), ["b"]);
  assert.equal(copy.head.life, 4);
});

Deno.test("a check that differs is noticed", () => {
  const copy = newRecords();
  assert.equal(apply(copy, { records: [numbered(1, importOf("a"))], check: 1 }), "differs");
  assert.equal(apply(copy, { since: 1, seq: 1, records: [], check: copy.head.check }), "applied");
});

Deno.test("of one owner so much is taken and no more, and it is said what was not", () => {
  const refused: string[] = [];
  const copy = newRecords(refused);
  const many = Array.from({ length: MAX_RECORDS_OF_OWNER + 3 }, (_, i) => numbered(i + 1, importOf(`s${i}`)));
  assert.equal(apply(copy, { records: many }), "applied");
  assert.equal(copy.size, MAX_RECORDS_OF_OWNER);
  assert.equal(refused.length, 3);
  assert.match(refused[0]!, /^import s5000: more than 5000 records of one peer$/);
  const large = { ...numbered(1, importOf("large")), octets: 9 << 20 };
  const other = newRecords(refused);
  apply(other, { records: [large] });
  assert.equal(other.size, 0);
  assert.match(refused.at(-1)!, /octets of records of one peer$/);
  // What is there may still be changed and removed.
  const seq = many.length + 1;
  apply(copy, { since: many.length, seq, records: [{ seq, key: "import s7", record: undefined, octets: 9 }] });
  assert.equal(copy.size, MAX_RECORDS_OF_OWNER - 1);
});

Deno.test("what did not fit beside what a full list replaces is asked for again", () => {
  const copy = newRecords();
  const some = (life: string) => Array.from({ length: 3_000 }, (_, i) => numbered(i + 1, importOf(`${life}${i}`)));
  apply(copy, { life: 1, records: some("a") });
  const full = { life: 2, full: true, last: true, records: some("b") };
  assert.equal(apply(copy, full), "differs");
  assert.equal(apply(copy, full), "applied");
  assert.equal(copy.size, 3_000);
  copy.checkInvariants();
});

Deno.test("removals are forgotten after an hour, and who has less is told everything", () => {
  const owner = newRecords();
  owner.change("import a", importOf("a"), 0);
  owner.change("import b", importOf("b"), 0);
  owner.change("import a", undefined, 1_000);
  assert.equal(owner.changedSince(1).full, false);
  owner.expireTombstones(TOMBSTONE_MS + 999);
  assert.equal(owner.changedSince(1).full, false);
  owner.expireTombstones(TOMBSTONE_MS + 1_000);
  assert.equal(owner.changedSince(1).full, true);
  assert.deepEqual(owner.changedSince(1).records.map(({ key }) => key), ["import b"]);
  assert.equal(owner.changedSince(3).full, false);
});

Deno.test("a record that says the same again is the same object, and nobody is told of a change", () => {
  const replaced: string[] = [];
  const copy = new OwnerRecords(OWNER, 0, { ...SILENT, replaced: (key) => replaced.push(key) });
  apply(copy, { records: [numbered(1, importOf("a"))] });
  const before = copy.get("import a");
  apply(copy, { life: 2, full: true, last: true, records: [numbered(8, importOf("a"))] });
  assert.equal(copy.get("import a"), before);
  assert.deepEqual(replaced, ["import a"]);
});

const SILENT = { replaced() {}, grown() {}, hasRoom: () => true, refuse() {} };

function newRecords(refused: string[] = []): OwnerRecords {
  return new OwnerRecords(OWNER, 0, { ...SILENT, refuse: (what, reason) => refused.push(`${what}: ${reason}`) });
}

/** An owner with a history, and the deltas that tell it, cut at some places. */
function told(
  changes: readonly { readonly key: number; readonly gone: boolean; readonly weight: number }[],
  places: readonly number[],
  life = LIFE,
): { owner: OwnerRecords; deltas: readonly RecordsMessage[] } {
  const owner = new OwnerRecords(OWNER, life, SILENT);
  const deltas: RecordsMessage[] = [];
  let since = 0;
  for (const [i, { key, gone, weight }] of changes.entries()) {
    const record = importOf(`s${key}`, { spec: { weight } });
    owner.change(`import s${key}`, gone ? undefined : record, 0);
    if (places.includes(i) || i === changes.length - 1) {
      deltas.push(...overWire(owner.told(life, since, owner.head.check)));
      since = owner.head.seq;
    }
  }
  return { owner, deltas };
}

function overWire(telling: Telling): readonly RecordsMessage[] {
  return encodeRecords(telling).map((payload) => decodeService(payload) as RecordsMessage);
}

function message(o: Partial<RecordsMessage> & Pick<RecordsMessage, "records">): RecordsMessage {
  return recordsMessage({ owner: OWNER, ...o });
}

function apply(records: OwnerRecords, o: Partial<RecordsMessage> & Pick<RecordsMessage, "records">) {
  return records.apply(message(o), { now: 0, trusted: false });
}

function names(records: OwnerRecords): readonly string[] {
  return [...records.live()].map(([, { spec }]) => spec.name).sort();
}

function contentOf(records: OwnerRecords): readonly string[] {
  return [...records.live()].map(([, record]) => JSON.stringify(encodeRecord(record))).sort();
}

function stateOf(records: OwnerRecords): unknown {
  const entries = [...records.numbered()].map(({ seq, key, record }) => [key, seq, record && encodeRecord(record)]);
  return { head: records.head, entries: entries.map((entry) => JSON.stringify(entry)).sort() };
}
