import assert from "node:assert/strict";
import { type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { decodeDns, encodeQuery, parseName } from "../wire/dns.ts";
import { Chain, newCounters } from "./chain.ts";
import { SiteNames } from "./site.ts";

const NAMES = new Map<string, readonly Ipv4[]>([
  [parseName("db")!, [parseIpv4("192.168.1.1")!, parseIpv4("192.168.1.9")!]],
  [parseName("many")!, Array.from({ length: 400 }, (_, i) => 0x0a00_0000 + i)],
]);

function ask(name: string, type: "A" | "AAAA" | "PTR" | "ANY") {
  const room = new Uint8Array(4096);
  const counters = newCounters();
  const names = new SiteNames({ lookup: (key) => NAMES.get(key), ttlSeconds: 7, counters });
  const query = encodeQuery(99, name, type);
  const length = new Chain([names], counters, room).handle(query, 0, query.length, 0, "udp");
  return { ...decodeDns(room.slice(0, length)), counters, length };
}

Deno.test("SiteNames answers its names, whatever their case, and has no other types of them", () => {
  const { rcode, answers, counters } = ask("Db", "A");
  assert.equal(rcode, "NOERROR");
  assert.deepEqual(answers.map(({ data }) => data), ["192.168.1.1", "192.168.1.9"]);
  assert.deepEqual([counters.local, counters.unknown], [1, 0]);
  assert.equal(ask("db", "ANY").answers.length, 2);
  assert.deepEqual([ask("db", "AAAA").rcode, ask("db", "AAAA").answers], ["NOERROR", []]);
});

Deno.test("SiteNames refuses every other name, and forwards none", () => {
  for (const name of ["other", "db.example.com", "weave.local", "1.1.168.192.in-addr.arpa"]) {
    for (const type of ["A", "PTR"] as const) {
      const { rcode, answers, counters } = ask(name, type);
      assert.deepEqual([rcode, answers, counters.unknown], ["REFUSED", [], 1], name);
    }
  }
});

Deno.test("SiteNames leaves out addresses for which there is no room, and says so", () => {
  const { answers, length, counters } = ask("many", "A");
  assert.ok(answers.length > 200 && answers.length < 400 && length <= 4096, `${answers.length} in ${length}`);
  assert.equal(counters.truncated, 1);
});
