import assert from "node:assert/strict";
import fc from "fast-check";
import { anyRecord, exportOf, importOf } from "../../test/service_records.ts";
import { WireError } from "../lib/errors.ts";
import type { PeerName } from "../lib/mac.ts";
import {
  checkOf,
  checkRecord,
  decodeService,
  encodeForget,
  encodeHeads,
  encodeRecord,
  encodeRecords,
  encodeWant,
  type Head,
  isHostName,
  keyOf,
  MAX_HEADS,
  MAX_MESSAGE_OCTETS,
  type Numbered,
  type RecordsMessage,
} from "./service.ts";

const OWNER = 0x02bb_0000_0002 as PeerName;

Deno.test("checkRecord() reads what encodeRecord() writes, over JSON", () => {
  fc.assert(
    fc.property(anyRecord, (record) => {
      const read = checkRecord(JSON.parse(JSON.stringify(encodeRecord(record))));
      assert.deepEqual(read, record);
      assert.equal(keyOf(read), keyOf(record));
    }),
    { numRuns: 500 },
  );
});

Deno.test("encodeRecord() of a record of our own making is small", () => {
  const text = JSON.stringify(encodeRecord(importOf("db")));
  assert.equal(
    text,
    '{"kind":"import","name":"db","network":"host","ports":["5432"],"backends":[["192.168.1.5","host",0,5432]],' +
      '"check":["tcp",1000,800,2,2],"offers":[["10.32.0.0/12","10.32.0.5",1000]],"health":"?"}',
  );
  assert.equal(
    JSON.stringify(encodeRecord(exportOf("db"))),
    '{"kind":"export","name":"db","network":"host","listen":"8080","ready":true}',
  );
});

Deno.test("heads, want and forget are read as they were written", () => {
  const heads: Head[] = Array.from({ length: 2 * MAX_HEADS + 1 }, (_, i) => ({
    owner: i + 1 as PeerName,
    life: 1_800_000_000_000,
    seq: 2 ** 40 + i,
    check: 0xffff_ffff - i,
  }));
  const payloads = encodeHeads(OWNER, heads);
  assert.equal(payloads.length, 3);
  const read = payloads.map((payload) => decodeService(payload));
  assert.deepEqual(read.flatMap((message) => message.type === "heads" ? message.heads : []), heads);
  assert.deepEqual(decodeService(encodeWant(heads[5]!)), {
    type: "want",
    owner: 6,
    life: 1_800_000_000_000,
    since: 2 ** 40 + 5,
    check: 0xffff_fffa,
  });
  assert.deepEqual(decodeService(encodeForget(OWNER, 7)), { type: "forget", owner: OWNER, life: 7 });
});

Deno.test("encodeRecords() cuts what is too much for one message, so that each follows on the one before", () => {
  const payload = "x".repeat(500);
  const records = Array.from({ length: 3_000 }, (_, i): Numbered => {
    const record = importOf(`s${i}`, { spec: { check: { ...importOf("a").spec.check, kind: "udp", payload } } });
    return { seq: 2 * i + 1, key: keyOf(record), record: i % 3 === 0 ? undefined : record, octets: 0 };
  });
  for (const full of [false, true]) {
    const telling = { owner: OWNER, life: 5, since: 0, seq: 7_000, check: 99, full, records };
    const payloads = encodeRecords(telling);
    assert.ok(payloads.length >= 8);
    for (const { length } of payloads) assert.ok(length <= MAX_MESSAGE_OCTETS);
    const messages = payloads.map((payload) => decodeService(payload) as RecordsMessage);
    let since = 0;
    for (const [i, message] of messages.entries()) {
      const isLast = i === messages.length - 1;
      assert.equal(message.since, since);
      assert.equal(message.check, isLast ? 99 : undefined);
      assert.equal(message.last, full && isLast);
      assert.equal(message.full, full);
      since = message.seq;
    }
    assert.equal(since, 7_000);
    assert.deepEqual(
      messages.flatMap((message) => message.records.map(({ seq, key }) => [seq, key])),
      records.map(({ seq, key }) => [seq, key]),
    );
  }
  assert.equal(
    encodeRecords({ owner: OWNER, life: 5, since: 3, seq: 3, check: 1, full: false, records: [] }).length,
    1,
  );
});

Deno.test("messages with letters beyond ASCII stay below the limit too", () => {
  const payload = "漢".repeat(500);
  const check = { ...importOf("a").spec.check, kind: "udp", payload } as const;
  const records = Array.from({ length: 300 }, (_, i): Numbered => {
    const record = importOf(`s${i}`, { spec: { check } });
    return { seq: i + 1, key: keyOf(record), record, octets: 0 };
  });
  const payloads = encodeRecords({ owner: OWNER, life: 5, since: 0, seq: 300, check: 0, full: false, records });
  for (const { length } of payloads) assert.ok(length <= MAX_MESSAGE_OCTETS);
  assert.equal(payloads.flatMap((each) => (decodeService(each) as RecordsMessage).records).length, 300);
});

Deno.test("one record that is not well formed is refused with its reason, and the others are taken", () => {
  const good = encodeRecord(importOf("good"));
  const message = decodeText({
    type: "records",
    owner: "02:bb:00:00:00:02",
    life: 1,
    since: 0,
    seq: 9,
    records: [
      [1, { ...good, name: "UPPER" }],
      [2, { ...good, name: 7 }],
      [3, { ...good, ports: ["-80"] }],
      [4, { ...good, check: ["tcp", 1, 1, 2, 2] }],
      [5, good],
      [6, "drop table"],
      [7, { ...good, padding: "x".repeat(40_000) }],
      [8, { ...good, kind: "detour" }],
      [9, "import gone"],
    ],
  }) as RecordsMessage;
  assert.deepEqual(message.records.map(({ key }) => key), ["import good", "import gone"]);
  assert.deepEqual(message.refused.map(({ what, reason }) => `${what}: ${reason}`), [
    'UPPER: "UPPER" is no name of a service',
    ": name is no text",
    'good: "-80" is no port or range of ports',
    "good: interval is 1: a whole number from 100 to 3600000 is expected",
    ': "drop table" is no record',
    `good: a record of ${message.refused[5]!.reason.match(/\d+/)![0]} octets, at most 32768 may be`,
    'good: "detour" is no kind of record',
  ]);
});

const IMPORT = encodeRecord(importOf("a"));
const EXPORT = encodeRecord(exportOf("a"));

for (
  const [what, change, message] of [
    ["no ports", { ports: [] }, /ports has 0 items/],
    ["too many ports", { ports: Array.from({ length: 33 }, (_, i) => `${i + 1}`) }, /ports has 33 items/],
    ["ports that overlap", { ports: ["80", "70-90"] }, /overlap/],
    ["ports that go down", { ports: ["90-80"] }, /no port/],
    ["a backend of a port that is not there", { backends: [["10.0.0.1", "host", 1, 80]] }, /backend is 1/],
    [
      "a backend whose ports go beyond the last",
      { backends: [["10.0.0.1", "host", 0, 70_000]] },
      /port of a backend is 70000/,
    ],
    ["no backend", { backends: [] }, /backends has 0 items/],
    ["a backend that is no host", { backends: [["224.0.0.1", "host", 0, 80]] }, /no host of a backend/],
    ["a host with a blank", { backends: [["a b", "host", 0, 80]] }, /no host of a backend/],
    ["a host of figures", { backends: [["10.0.1", "host", 0, 80]] }, /no host of a backend/],
    ["a network that is a path", { network: "../x" }, /no name of a network/],
    ["weight 0", { weight: 0 }, /weight is 0/],
    ["a priority that is no number", { priority: "1" }, /priority is "1"/],
    ["an offer outside its subnet", { offers: [["10.32.0.0/24", "10.33.0.1", 1]] }, /10\.33\.0\.1 is no host of/],
    ["an offer of the network itself", { offers: [["10.32.0.0/24", "10.32.0.0", 1]] }, /is no host of/],
    ["an offer of the broadcast address", { offers: [["10.32.0.0/24", "10.32.0.255", 1]] }, /is no host of/],
    [
      "a subnet that is offered twice",
      { offers: [["10.32.0.0/24", "10.32.0.1", 1], ["10.32.0.9/24", "10.32.0.2", 1]] },
      /twice/,
    ],
    ["an offer from before time", { offers: [["10.32.0.0/24", "10.32.0.1", -1]] }, /time of an offer is -1/],
    ["health of other backends", { health: "uu" }, /health of 2 backends, of 1 there are/],
    ["health that nobody has", { health: "x" }, /"x" is no health/],
    ["a state that is not known", { state: "off" }, /state is "off"/],
    ["a payload without end", { check: ["udp", 1000, 800, 2, 2, "x".repeat(513)] }, /payload has 513 characters/],
  ] as const
) {
  Deno.test(`checkRecord() refuses an import with ${what}`, () => {
    assert.throws(() => checkRecord({ ...IMPORT, ...change }), (error: Error) => {
      return error instanceof WireError && message.test(error.message);
    });
  });
}

for (
  const [what, change, message] of [
    ["a name with two dots", { name: "a..b" }, /no name of a service or container/],
    ["a name that is an address", { name: "10.0.0.1" }, /no name of a service or container/],
    ["no ports to listen on", { listen: "10.0.0.1" }, /no address and ports to listen on/],
    ["a listen address that no host has", { listen: "0.0.0.0:80" }, /no address and ports to listen on/],
    ["port 0", { port: 0 }, /port is 0/],
    ["an audience of nonsense", { allow: ["all"] }, /no subnet/],
    ["too large an audience", { allow: Array.from({ length: 257 }, () => "10.0.0.0/8") }, /allow has 257 items/],
    ["dns that is a text", { dns: "yes" }, /dns is neither/],
  ] as const
) {
  Deno.test(`checkRecord() refuses an export with ${what}`, () => {
    assert.throws(() => checkRecord({ ...EXPORT, ...change }), (error: Error) => {
      return error instanceof WireError && message.test(error.message);
    });
  });
}

for (
  const [what, message] of [
    ["no JSON", "{"],
    ["no object", "[]"],
    ["nothing", "null"],
    ["an unknown type", { type: "gossip" }],
    ["heads by nobody", { type: "heads", heads: [] }],
    ["too many heads", {
      type: "heads",
      by: "02:bb:00:00:00:02",
      heads: Array.from({ length: MAX_HEADS + 1 }, () => []),
    }],
    ["a head of nobody", { type: "heads", by: "02:bb:00:00:00:02", heads: [["00:00:00:00:00:00", 1, 1, 1]] }],
    ["a head with a fraction", { type: "heads", by: "02:bb:00:00:00:02", heads: [["02:bb:00:00:00:02", 1, 1.5, 1]] }],
    ["a number beyond what can be counted", {
      type: "want",
      owner: "02:bb:00:00:00:02",
      life: 1,
      since: 2 ** 53,
      check: 0,
    }],
    ["changes that go back", { type: "records", owner: "02:bb:00:00:00:02", life: 1, since: 2, seq: 1, records: [] }],
    ["records that are not in order", {
      type: "records",
      owner: "02:bb:00:00:00:02",
      life: 1,
      since: 0,
      seq: 9,
      records: [[5, "import a"], [4, "import b"]],
    }],
    ["a record after the last change", {
      type: "records",
      owner: "02:bb:00:00:00:02",
      life: 1,
      since: 0,
      seq: 1,
      records: [[5, "import a"]],
    }],
  ] as const
) {
  Deno.test(`decodeService() refuses ${what}`, () => {
    assert.throws(() => decodeText(message), WireError);
  });
}

Deno.test("decodeService() refuses what is too long before it looks at it, and what is no UTF-8", () => {
  assert.throws(() => decodeService(new Uint8Array(MAX_MESSAGE_OCTETS + 1)), /at most 262144 may be/);
  assert.throws(() => decodeService(Uint8Array.of(0x22, 0xff, 0x22)), WireError);
});

Deno.test("checkOf() differs for what differs a little", () => {
  const seen = new Set<number>();
  for (let i = 0; i < 100; i++) {
    for (let seq = 1; seq <= 100; seq++) seen.add(checkOf(`import s${i}`, seq));
  }
  assert.ok(seen.size >= 9_995, `${seen.size}`);
});

Deno.test("isHostName() takes names of DNS and no addresses", () => {
  for (const good of ["a", "db.example.com", "_x.y", "a-b.c1", "x1.2y"]) assert.ok(isHostName(good), good);
  for (
    const bad of ["", "A", "a.", ".a", "a..b", "1.2.3.4", "-a", "a-", "a/b", "a".repeat(64), `a.${"b".repeat(63)}.`]
  ) {
    assert.ok(!isHostName(bad), bad);
  }
});

function decodeText(message: unknown) {
  return decodeService(new TextEncoder().encode(typeof message === "string" ? message : JSON.stringify(message)));
}
