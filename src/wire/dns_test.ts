import assert from "node:assert/strict";
import fc from "fast-check";
import { mutated } from "../../test/mutated.ts";
import { WireError } from "../lib/errors.ts";
import { parseIpv4 } from "../lib/ip.ts";
import {
  Answer,
  decodeDns,
  encodeName,
  encodeQuery,
  FLAG,
  parseName,
  parseRecord,
  Query,
  RCODE,
  reverseAddress,
  reverseName,
  TYPE,
} from "./dns.ts";

/** `www.Example.com A`, recursion desired, as RFC 1035 section 4.1 draws it. */
const PLAIN = Uint8Array.fromHex(
  "1234" + "0100" + "0001000000000000" + "03777777" + "074578616d706c65" + "03636f6d00" + "00010001",
);
const OPT = Uint8Array.fromHex("000029" + "10e8" + "00" + "00" + "8000" + "0000");

Deno.test("Query.read() reads a plain query wherever it lies", () => {
  const slab = new Uint8Array(200).fill(0xee);
  slab.set(PLAIN, 50);
  const query = new Query();
  assert.equal(query.read(slab, 50, PLAIN.length), "query");
  assert.equal(query.id, 0x1234);
  assert.equal(query.key, "\x03www\x07example\x03com");
  assert.equal(query.labels, 3);
  assert.equal(query.type, TYPE.A);
  assert.equal(query.class, 1);
  assert.equal(query.questionEnd, PLAIN.length);
  assert.equal(query.edns, false);
});

Deno.test("Query.read() reads what a client takes by EDNS", () => {
  const query = new Query();
  assert.equal(readInto(query, withRecords(PLAIN, 1, OPT)), "query");
  assert.equal(query.ednsOctets, 0x10e8);
  assert.equal(readInto(query, encodeQuery(7, "a.b.", "TXT")), "query");
  assert.deepEqual([query.id, query.key, query.ednsOctets], [7, "\x01a\x01b", 4096]);
  const option = Uint8Array.fromHex(
    "000029" + "04d0" + "0000" + "0000" + "000c" + "000a" + "0008" + "0102030405060708",
  );
  assert.equal(readInto(query, withRecords(PLAIN, 1, option)), "query");
  assert.equal(query.ednsOctets, 1232);
  assert.equal(readInto(query, withRecords(PLAIN, 1, OPT.with(6, 1))), "badVersion");
});

Deno.test("Query.read() reads odd queries that are well formed", () => {
  const query = new Query();
  const another = Uint8Array.fromHex("c00c" + "001c" + "0001");
  assert.equal(readInto(query, withCount(joined(PLAIN, another), 4, 2)), "query");
  assert.equal(query.questions, 2);
  const a = Uint8Array.fromHex("c00c" + "0001" + "0001" + "00000000" + "0004" + "0a000001");
  assert.equal(readInto(query, withRecords(PLAIN, 2, joined(a, OPT))), "query");
  assert.equal(query.ednsOctets, 0x10e8);
  const root = Uint8Array.fromHex("1234" + "0000" + "0001000000000000" + "00" + "00020001");
  assert.equal(readInto(query, root), "query");
  assert.deepEqual([query.key, query.labels], ["", 0]);
});

const REFUSED: readonly [what: string, kind: string, octets: Uint8Array][] = [
  ["half a header", "ignored", PLAIN.subarray(0, 11)],
  ["an answer", "ignored", PLAIN.with(2, 0x81)],
  ["an update", "notImplemented", PLAIN.with(2, 0x28)],
  ["no question", "malformed", withCount(PLAIN, 4, 0)],
  ["a question less than announced", "malformed", withCount(PLAIN, 4, 2)],
  ["a question that ends early", "malformed", PLAIN.subarray(0, -1)],
  ["octets left over", "malformed", joined(PLAIN, new Uint8Array(1))],
  ["a name that points to itself", "malformed", nameOf("c00c")],
  ["a name that points into the header", "malformed", nameOf("c000")],
  ["a label of a kind that there is not", "malformed", nameOf("41" + "61".repeat(65) + "00")],
  ["a name of 256 octets", "malformed", nameOf(("3f" + "61".repeat(63)).repeat(3) + "3e" + "61".repeat(62) + "00")],
  ["a name without end", "malformed", nameOf("3f" + "61".repeat(40))],
  ["sixteen records of sixty thousand announced", "malformed", withCount(PLAIN, 10, 60_000)],
  ["more records than anybody needs", "malformed", withRecords(PLAIN, 17, joined(...Array(17).fill(OPT)))],
  ["an OPT record that is cut off", "malformed", withRecords(PLAIN, 1, OPT.subarray(0, -1))],
  ["an OPT record that says it is longer", "malformed", withRecords(PLAIN, 1, OPT.with(10, 9))],
];

for (const [what, kind, octets] of REFUSED) {
  Deno.test(`Query.read() says "${kind}" of ${what}`, () => assert.equal(readInto(new Query(), octets), kind));
}

Deno.test("Query.read() takes the longest name there is", () => {
  const octets = nameOf(("3f" + "61".repeat(63)).repeat(3) + "3d" + "61".repeat(61) + "00");
  assert.equal(readInto(new Query(), octets), "query");
});

Deno.test("Query.isWithin() looks at labels, not at characters", () => {
  const zone = parseName("weave.local.")!;
  const within = (name: string) => {
    const query = new Query();
    readInto(query, encodeQuery(1, name, "A"));
    return query.isWithin(zone);
  };
  assert.ok(within("weave.local") && within("WEB.Weave.LOCAL") && within("a.b.weave.local"));
  assert.ok(!within("weave.localx") && !within("local") && !within("xweave.local"));
  const query = new Query();
  assert.equal(readInto(query, nameOf("0c" + "78057765617665056c6f6361".padEnd(24, "6c") + "00")), "query");
  assert.equal(query.isWithin(zone), false);
});

Deno.test("Answer writes what dns-packet reads", () => {
  const query = new Query();
  assert.equal(readInto(query, withRecords(PLAIN, 1, OPT)), "query");
  const answer = new Answer(new Uint8Array(1000));
  answer.begin(query, 100, 512, FLAG.AA | FLAG.RA);
  answer.addAddress(30, parseIpv4("10.32.0.1")!);
  answer.add(TYPE.PTR, 1, encodeName("Web.weave.local")!);
  const message = decodeDns(answer.octets.subarray(100, 100 + answer.end()));
  assert.equal(message.id, 0x1234);
  assert.deepEqual(message.questions.map(({ name }) => name), ["www.Example.com"]);
  assert.deepEqual(message.answers.map(({ name, type, ttl, data }) => [name, type, ttl, data]), [
    ["www.Example.com", "A", 30, "10.32.0.1"],
    ["www.Example.com", "PTR", 1, "Web.weave.local"],
  ]);
  assert.ok(message.flag_aa && message.flag_ra && !message.flag_tc);
  assert.equal(message.additionals[0]?.type, "OPT");
});

Deno.test("Answer has room for as many records as fit, OPT counted", () => {
  const answer = new Answer(new Uint8Array(600));
  const query = new Query();
  for (const octets of [PLAIN, withRecords(PLAIN, 1, OPT)]) {
    readInto(query, octets);
    answer.begin(query, 0, 512, 0);
    const room = answer.room(4);
    for (let i = 0; i < room; i++) answer.addAddress(1, i);
    assert.equal(answer.room(4), 0);
    answer.truncated();
    const length = answer.end();
    assert.ok(length <= 512 && length > 512 - 16, `${length}`);
    const message = decodeDns(answer.octets.subarray(0, length));
    assert.equal(message.answers.length, room);
    assert.ok(message.flag_tc);
  }
});

Deno.test("Answer says an rcode, with and without a question", () => {
  const answer = new Answer(new Uint8Array(600));
  const query = new Query();
  readInto(query, PLAIN);
  answer.begin(query, 0, 512, FLAG.RA | RCODE.NXDOMAIN);
  assert.equal(decodeDns(answer.octets.subarray(0, answer.end())).rcode, "NXDOMAIN");
  readInto(query, withCount(PLAIN, 4, 0));
  answer.begin(query, 0, 512, RCODE.FORMERR);
  const message = decodeDns(answer.octets.subarray(0, answer.end()));
  assert.deepEqual([message.rcode, message.id, message.questions.length], ["FORMERR", 0x1234, 0]);
});

Deno.test("parseName() makes one key of a name however it is written, and none of what is no name", () => {
  assert.equal(parseName("Web.Weave.local."), parseName("web.weave.LOCAL"));
  assert.equal(parseName("."), "");
  assert.equal(parseName("grün"), "\x05gr\xc3\xbcn");
  for (const wrong of ["a..b", ".a", "a".repeat(64), "abcdefg.".repeat(32) + "x", ".."]) {
    assert.equal(parseName(wrong), undefined, wrong);
  }
});

Deno.test("reverseAddress() reads what reverseName() writes, and nothing else", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 2 ** 32 - 1 }), (address) => {
    assert.equal(reverseAddress(parseName(reverseName(address).toUpperCase())!), address);
  }));
  for (
    const wrong of ["1.2.3.in-addr.arpa", "1.2.3.4.5.in-addr.arpa", "256.0.0.1.in-addr.arpa", "01.0.0.1.in-addr.arpa"]
  ) {
    assert.equal(reverseAddress(parseName(wrong)!), undefined, wrong);
  }
  for (const wrong of ["in-addr.arpa", "x.0.0.1.in-addr.arpa", "1.0.0.1.in-addr.arp", "1.0.0.1.xin-addr.arpa"]) {
    assert.equal(reverseAddress(parseName(wrong)!), undefined, wrong);
  }
});

Deno.test("parseRecord() reads records in words, and writes them in one way", () => {
  const read = (text: string) => {
    const record = parseRecord(text);
    return record && [record.type, record.text, record.data.toHex()];
  };
  assert.deepEqual(read("aaaa FD00:0::1"), [28, "AAAA fd00::1", "fd00" + "00".repeat(13) + "01"]);
  assert.deepEqual(read("SRV 0 5 80 web.x"), [
    33,
    "SRV 0 5 80 web.x.",
    "0000" + "0005" + "0050" + "0377656201" + "7800",
  ]);
  assert.deepEqual(read("TXT a b"), [16, "TXT a b", "03612062"]);
  assert.equal(parseRecord(`TXT ${"x".repeat(300)}`)?.data.length, 302);
  const wrong = [
    "A 1.2.3.4",
    "AAAA 1.2.3.4",
    "AAAA g::",
    "AAAA ::1::",
    "SRV 0 5 70000 x",
    "SRV 0 5 x",
    "SRV 0 0 1 a..b",
  ];
  for (const text of [...wrong, `TXT ${"x".repeat(1025)}`, "TXT", ""]) assert.equal(parseRecord(text), undefined, text);
});

Deno.test("decodeDns() and Query.read() survive any octets", () => {
  const records = Uint8Array.fromHex("c00c" + "0021" + "0001" + "00000000" + "0008" + "0000000000000000");
  const known = [PLAIN, withRecords(PLAIN, 1, OPT), withRecords(PLAIN, 2, joined(records, OPT))];
  const query = new Query();
  const answer = new Answer(new Uint8Array(70_000));
  fc.assert(
    fc.property(fc.oneof(fc.constantFrom(...known).chain(mutated), fc.uint8Array({ maxLength: 80 })), (octets) => {
      try {
        decodeDns(octets);
      } catch (error) {
        if (!(error instanceof WireError)) throw error;
      }
      if (readInto(query, octets) === "ignored") return;
      answer.begin(query, 0, 512, 0);
      decodeDns(answer.octets.subarray(0, answer.end()));
    }),
    { numRuns: 5000 },
  );
});

function readInto(query: Query, octets: Uint8Array): string {
  return query.read(octets, 0, octets.length);
}

/** The plain query with another name. */
function nameOf(hex: string): Uint8Array {
  return joined(PLAIN.subarray(0, 12), Uint8Array.fromHex(hex), Uint8Array.fromHex("00010001"));
}

/** @param at of a count in the header */
function withCount(octets: Uint8Array, at: number, count: number): Uint8Array {
  return octets.with(at, count >>> 8).with(at + 1, count);
}

function withRecords(octets: Uint8Array, count: number, records: Uint8Array): Uint8Array {
  return withCount(joined(octets, records), 10, count);
}

function joined(...parts: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(parts.flatMap((part) => [...part]));
}
