import assert from "node:assert/strict";
import fc from "fast-check";
import { type Ipv4, parseIpv4 } from "../lib/ip.ts";
import { SeededRandom } from "../lib/random.ts";
import { decodeDns, type DnsMessage, encodeQuery, parseName, parseRecord } from "../wire/dns.ts";
import { Chain, FORWARD, newCounters, NOTHING } from "./chain.ts";
import { LocalNames } from "./local.ts";
import type { NameAnswer, ReverseAnswer } from "./name_index.ts";
import { ReverseNames } from "./reverse.ts";

type Type = Parameters<typeof encodeQuery>[2];

Deno.test("Chain answers a name's addresses, spelled as they were asked for", () => {
  const message = new World({ "web.weave.local": ["10.0.0.1"] }).ask("Web.WEAVE.local", "A");
  assert.equal(message.rcode, "NOERROR");
  assert.ok(message.flag_aa && message.flag_ra);
  assert.deepEqual(message.answers.map(({ name, ttl, data }) => [name, ttl, data]), [[
    "Web.WEAVE.local",
    1,
    "10.0.0.1",
  ]]);
});

Deno.test("Chain answers in another order each time", () => {
  const world = new World({ "web.weave.local": ["10.0.0.1", "10.0.0.2", "10.0.0.3"] });
  const orders = new Map<string, number>();
  for (let i = 0; i < 600; i++) {
    const order = world.ask("web.weave.local", "A").answers.map(({ data }) => data).join();
    orders.set(order, (orders.get(order) ?? 0) + 1);
  }
  assert.equal(orders.size, 6);
  for (const count of orders.values()) assert.ok(count > 50, "each as often as the others");
});

const CASES: readonly [what: string, name: string, type: Type, outcome: string][] = [
  ["a name of one label", "web", "A", "NOERROR 1 AA"],
  ["an unknown name of one label", "nope", "A", "NXDOMAIN 0"],
  ["a name of one label with a type it has not", "web", "AAAA", "NOERROR 0 AA"],
  ["another type of a known name", "web.weave.local", "TXT", "NOERROR 0 AA"],
  ["any type of a known name", "web.weave.local", "ANY", "NOERROR 0 AA"],
  ["an unknown name of the domain", "nope.weave.local", "A", "NXDOMAIN 0"],
  ["the domain itself", "weave.local", "A", "NXDOMAIN 0"],
  ["a name below a known one", "a.web.weave.local", "A", "NXDOMAIN 0"],
  ["a name that ends like the domain", "xweave.local", "A", "forward"],
  ["a name elsewhere", "www.example.com", "A", "forward"],
  ["the root", ".", "A", "forward"],
  ["the name of a known address", "1.0.0.10.IN-addr.ARPA", "PTR", "NOERROR 1 AA"],
  ["the name of an unknown address", "9.9.9.9.in-addr.arpa", "PTR", "forward"],
  ["another type of an address", "1.0.0.10.in-addr.arpa", "A", "NXDOMAIN 0"],
  ["half an address", "0.10.in-addr.arpa", "PTR", "NXDOMAIN 0"],
  ["no address", "x.0.0.10.in-addr.arpa", "PTR", "NXDOMAIN 0"],
  ["a name whose owners are out of reach", "away.weave.local", "A", "SERVFAIL 0"],
  ["the same by one label", "away", "AAAA", "SERVFAIL 0"],
  ["an address whose owners are out of reach", "2.0.0.10.in-addr.arpa", "PTR", "SERVFAIL 0"],
  ["a record of our own", "text.weave.local", "TXT", "NOERROR 1 AA"],
  ["an IPv6 address", "text.weave.local", "AAAA", "NOERROR 2 AA"],
  ["an address of a name that has other records alone", "text.weave.local", "A", "NOERROR 0 AA"],
];

for (const [what, name, type, outcome] of CASES) {
  Deno.test(`Chain says "${outcome}" to ${what}`, () => {
    const world = new World({ "web.weave.local": ["10.0.0.1"] });
    world.names.set(parseName("away.weave.local")!, { state: "hidden", addresses: [], records: [] });
    const records = ["TXT hello", "AAAA fd00::1", "AAAA fd00::2"].map((text) => parseRecord(text)!);
    world.names.set(parseName("text.weave.local")!, { state: "live", addresses: [], records });
    world.addresses.set(parseIpv4("10.0.0.1")!, { state: "live", hostname: "Web.weave.local." });
    world.addresses.set(parseIpv4("10.0.0.2")!, { state: "hidden" });
    const message = world.tryAsk(encodeQuery(7, name, type));
    assert.equal(message === undefined ? "forward" : said(message), outcome);
    if (type === "PTR" && outcome.includes("AA")) assert.equal(message!.answers[0]!.data, "Web.weave.local");
  });
}

function said({ rcode, answers, flag_aa }: DnsMessage): string {
  return `${rcode} ${answers.length}${flag_aa ? " AA" : ""}`;
}

Deno.test("Chain refuses several questions about its own names, and forwards others", () => {
  const world = new World({ "web.weave.local": ["10.0.0.1"] });
  assert.equal(world.tryAsk(twice("web.weave.local"))?.rcode, "NXDOMAIN");
  assert.equal(world.tryAsk(twice("1.0.0.10.in-addr.arpa"))?.rcode, "NXDOMAIN");
  assert.equal(world.tryAsk(twice("example.com")), undefined);
});

Deno.test("Chain gives 50 addresses as far as they fit", () => {
  const addresses = Array.from({ length: 50 }, (_, i) => `10.0.1.${i}`);
  const world = new World({ "many.weave.local": addresses });
  const plain = encodeQuery(7, "many.weave.local", "A").subarray(0, -11).with(11, 0);
  const small = world.tryAsk(plain)!;
  assert.ok(small.flag_tc);
  assert.equal(small.answers.length, 29);
  assert.ok(world.lastLength <= 512);
  const edns = world.tryAsk(encodeQuery(7, "many.weave.local", "A"))!;
  assert.ok(!edns.flag_tc);
  assert.deepEqual(edns.answers.map(({ data }) => data).sort(), [...addresses].sort());
  const sized = (octets: number) => withSize(encodeQuery(7, "many.weave.local", "A"), octets);
  const medium = world.tryAsk(sized(700))!;
  assert.ok(medium.flag_tc && world.lastLength <= 700 && world.lastLength > 680);
  assert.ok(world.tryAsk(sized(10))!.answers.length > 20, "512 octets everybody takes");
  const tcp = world.tryAsk(plain, "tcp")!;
  assert.deepEqual([tcp.flag_tc, tcp.answers.length], [false, 50]);
});

Deno.test("Chain never sends more over UDP than 4096 octets, nor more over TCP than a message may have", () => {
  const world = new World({ "many.weave.local": Array.from({ length: 5000 }, (_, i) => `10.1.${i >> 8}.${i & 255}`) });
  const huge = world.tryAsk(withSize(encodeQuery(7, "many.weave.local", "A"), 65_535))!;
  assert.ok(huge.flag_tc && world.lastLength <= 4096 && world.lastLength > 4070);
  const tcp = world.tryAsk(encodeQuery(7, "many.weave.local", "A"), "tcp")!;
  assert.ok(tcp.flag_tc && tcp.answers.length > 4000);
  assert.ok(world.lastLength <= 65_535);
});

Deno.test("Chain never cuts an answer of one record", () => {
  const name = `${"a".repeat(60)}.`.repeat(4);
  const world = new World({});
  world.addresses.set(1, { state: "live", hostname: `${name}weave.` });
  const plain = encodeQuery(7, "1.0.0.0.in-addr.arpa", "PTR").subarray(0, -11).with(11, 0);
  assert.equal(world.tryAsk(plain)?.answers.length, 1);
});

Deno.test("Chain counts what is no query, and answers what has an answer", () => {
  const world = new World({});
  const query = encodeQuery(0x1234, "web.weave.local", "A");
  assert.equal(world.chain.handle(query, 0, 11, 0, "udp"), NOTHING);
  assert.equal(world.chain.handle(query.with(2, 0x80), 0, query.length, 0, "udp"), NOTHING);
  assert.equal(world.counters.ignored, 2);
  const malformed = world.tryAsk(query.subarray(0, -1))!;
  assert.deepEqual([malformed.rcode, malformed.id, world.counters.malformed], ["FORMERR", 0x1234, 1]);
  assert.equal(world.tryAsk(query.with(2, 0x10))!.rcode, "NOTIMP");
  const bad = world.tryAsk(query.with(query.length - 5, 1))!;
  assert.equal((bad.additionals[0] as unknown as { extendedRcode: number }).extendedRcode, 1);
  assert.equal(world.counters.unsupported, 2);
});

Deno.test("Chain survives any octets, and answers to nobody but who asked", () => {
  const world = new World({ "web.weave.local": ["10.0.0.1"] });
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 600 }), fc.boolean(), (octets, asQuery) => {
      if (asQuery && octets.length > 5) octets.set([0, 0, 0, 1], 2);
      const message = world.tryAsk(octets);
      if (message) assert.equal(message.id, octets[0]! << 8 | octets[1]!);
    }),
    { numRuns: 3000 },
  );
});

class World {
  readonly names = new Map<string, NameAnswer>();
  readonly addresses = new Map<Ipv4, ReverseAnswer>();
  readonly counters = newCounters();
  readonly chain: Chain;
  readonly #room = new Uint8Array(70_000);
  lastLength = 0;

  constructor(names: Record<string, string[]>) {
    for (const [name, addresses] of Object.entries(names)) {
      const known = { state: "live", addresses: addresses.map((a) => parseIpv4(a)!), records: [] } as const;
      this.names.set(parseName(name)!, known);
    }
    const none = { state: "none", addresses: [], records: [] } as const;
    const { counters } = this;
    this.chain = new Chain(
      [
        new LocalNames({
          domainKey: parseName("weave.local")!,
          lookup: (key) => this.names.get(key) ?? { ...none, addresses: [] },
          ttlSeconds: 1,
          random: new SeededRandom(7),
          counters,
        }),
        new ReverseNames({
          lookupAddress: (address) => this.addresses.get(address) ?? { state: "none" },
          ttlSeconds: 1,
          counters,
        }),
      ],
      counters,
      this.#room,
    );
  }

  ask(name: string, type: Type): DnsMessage {
    return this.tryAsk(encodeQuery(7, name, type))!;
  }

  /** undefined: it is forwarded, or there is no answer. */
  tryAsk(octets: Uint8Array, transport: "udp" | "tcp" = "udp"): DnsMessage | undefined {
    const length = this.chain.handle(octets, 0, octets.length, 100, transport);
    if (length === FORWARD || length === NOTHING) return undefined;
    this.lastLength = length;
    return decodeDns(this.#room.subarray(100, 100 + length));
  }
}

/** A query with its question twice. */
function twice(name: string): Uint8Array {
  const query = encodeQuery(7, name, "PTR").subarray(0, -11);
  return Uint8Array.from([...query.with(5, 2).with(11, 0), ...query.subarray(12)]);
}

function withSize(query: Uint8Array, octets: number): Uint8Array {
  return query.with(query.length - 8, octets >>> 8).with(query.length - 7, octets);
}
