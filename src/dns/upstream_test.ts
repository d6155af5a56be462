import assert from "node:assert/strict";
import { parseEndpoint, parseIpv4 } from "../lib/ip.ts";
import { SeededRandom } from "../lib/random.ts";
import { decodeDns, encodeQuery, Query, withId } from "../wire/dns.ts";
import { newCounters } from "./chain.ts";
import { parseResolvConf } from "./resolv_conf.ts";
import { type AttemptId, type Transport, Upstream, type UpstreamOutput } from "./upstream.ts";

const FIRST = parseEndpoint("192.0.2.1:53")!;
const SECOND = parseEndpoint("192.0.2.2:53")!;

Deno.test("Upstream asks the first server and passes its answer on, with the client's id", () => {
  const world = new World();
  world.query(encodeQuery(77, "www.example.com", "A"), "c1");
  const [ask] = world.asks();
  assert.deepEqual(ask!.server, FIRST);
  assert.equal(ask!.transport, "udp");
  assert.deepEqual(ask!.octets.slice(2), encodeQuery(77, "www.example.com", "A").slice(2), "all but the id as it came");
  const reply = answerTo(ask!.octets);
  world.upstream.handleReply(ask!.attempt, FIRST, reply);
  assert.deepEqual(world.closed(), [ask!.attempt]);
  assert.deepEqual(world.answers(), [["c1", withId(reply, 77)]]);
  assert.equal(world.upstream.pending, 0);
  assert.equal(world.upstream.pollTimeout(), undefined);
});

Deno.test("Upstream believes nobody but the server that was asked, and nothing but the answer to this question", () => {
  const world = new World();
  world.query(encodeQuery(77, "www.example.com", "A"), "c1");
  const [ask] = world.asks();
  const right = answerTo(ask!.octets);
  const id = right[0]! << 8 | right[1]!;
  const wrong: [string, string, Uint8Array][] = [
    ["another address", "192.0.2.9:53", right],
    ["another port", "192.0.2.1:54", right],
    ["another id", "192.0.2.1:53", withId(right, id ^ 1)],
    ["the client's id", "192.0.2.1:53", withId(right, 77)],
    ["another name", "192.0.2.1:53", answerTo(withId(encodeQuery(1, "wxw.example.com", "A"), id))],
    ["another type", "192.0.2.1:53", answerTo(withId(encodeQuery(1, "www.example.com", "TXT"), id))],
    ["a query", "192.0.2.1:53", ask!.octets],
    ["no question", "192.0.2.1:53", right.with(5, 0)],
    ["another opcode", "192.0.2.1:53", right.with(2, right[2]! | 0x28)],
    ["a piece", "192.0.2.1:53", right.slice(0, 20)],
    ["nothing", "192.0.2.1:53", new Uint8Array()],
  ];
  for (const [what, from, octets] of wrong) {
    world.upstream.handleReply(ask!.attempt, parseEndpoint(from)!, octets);
    assert.deepEqual(world.answers(), [], what);
  }
  assert.equal(world.counters.spoofed, wrong.length);
  world.upstream.handleReply(ask!.attempt, FIRST, right);
  assert.equal(world.answers().length, 1);
  world.upstream.handleReply(ask!.attempt, FIRST, right);
  assert.equal(world.answers().length, 0, "it is answered once");
});

Deno.test("Upstream asks the next server after an error or a time of silence, and gives up after the last", () => {
  const world = new World();
  const query = encodeQuery(77, "www.example.com", "A");
  world.query(query, "c1");
  const [first] = world.asks();
  world.upstream.handleFailed(first!.attempt, 100);
  const [second] = world.asks();
  assert.deepEqual(second!.server, SECOND);
  assert.notEqual(second!.attempt, first!.attempt);
  world.upstream.handleReply(first!.attempt, FIRST, answerTo(first!.octets));
  assert.deepEqual(world.answers(), [], "the first was given up");
  assert.equal(world.upstream.pollTimeout()?.at, 5_100);
  world.upstream.handleTimeout(5_099);
  assert.equal(world.upstream.pending, 1);
  world.upstream.handleTimeout(5_100);
  const [[ticket, octets]] = world.answers() as [[string, Uint8Array]];
  const message = decodeDns(octets);
  assert.deepEqual([ticket, message.id, message.rcode, message.flag_ra], ["c1", 77, "SERVFAIL", true]);
  assert.equal(message.questions[0]?.name, "www.example.com");
  assert.deepEqual([world.upstream.pending, world.counters.failed], [0, 1]);
});

Deno.test("Upstream without servers says so at once", () => {
  const world = new World();
  world.upstream.setServers([]);
  world.query(encodeQuery(77, "www.example.com", "A"), "c1");
  assert.equal(decodeDns(world.answers()[0]![1]).rcode, "SERVFAIL");
});

Deno.test("Upstream uses the client's transport", () => {
  const world = new World();
  world.query(encodeQuery(77, "www.example.com", "A"), "c1", { transport: "tcp" });
  assert.equal(world.asks()[0]?.transport, "tcp");
  assert.equal(world.upstream.pollTimeout()?.at, 7_000, "a connection comes first");
});

Deno.test("Upstream asks once for what several clients ask", () => {
  const world = new World();
  world.query(encodeQuery(1, "www.example.com", "A"), "c1");
  world.query(encodeQuery(2, "www.example.com", "A"), "c2", { address: "10.0.0.2" });
  world.query(encodeQuery(3, "www.example.com", "TXT"), "c3");
  world.query(encodeQuery(4, "www.example.com", "A"), "c4", { transport: "tcp" });
  const asks = world.asks();
  assert.equal(asks.length, 3);
  world.upstream.handleReply(asks[0]!.attempt, FIRST, answerTo(asks[0]!.octets));
  assert.deepEqual(world.answers().map(([ticket, octets]) => [ticket, octets[1]]), [["c1", 1], ["c2", 2]]);
  assert.equal(world.counters.joined, 1);
});

Deno.test("Upstream bounds questions under way, and those of one client", () => {
  const world = new World();
  const ask = (i: number, address: string) => world.query(encodeQuery(i, `n${i}.example.com`, "A"), i, { address });
  for (let i = 0; i < 70; i++) ask(i, "10.0.0.1");
  assert.equal(world.upstream.pending, 64);
  assert.equal(world.counters.crowded, 6);
  assert.equal(world.answers().length, 6);
  for (let i = 100; i < 500; i++) ask(i, `10.0.1.${i % 250}`);
  assert.equal(world.upstream.pending, 256);
  const asks = world.asks();
  for (const { attempt, octets } of asks) world.upstream.handleReply(attempt, FIRST, answerTo(octets));
  assert.equal(world.upstream.pending, 0);
  ask(1000, "10.0.0.1");
  assert.equal(world.asks().length, 1, "there is room again");
});

Deno.test("Upstream bounds who waits for one answer", () => {
  const world = new World();
  for (let i = 0; i < 1000; i++) {
    world.query(encodeQuery(i, "www.example.com", "A"), i, { address: `10.0.0.${i % 250}` });
  }
  assert.ok(world.counters.joined > 60 && world.upstream.pending < 256 + 1);
  const asks = world.asks();
  for (const { attempt, octets } of asks) world.upstream.handleReply(attempt, FIRST, answerTo(octets));
  assert.equal(world.answers().length, 1000);
});

Deno.test("Upstream ends a loop of servers that ask each other", () => {
  const world = new World();
  world.query(encodeQuery(1, "www.example.com", "A"), "c1");
  const [ask] = world.asks();
  world.query(withId(ask!.octets, 9), "loop", { address: "192.0.2.1" });
  const [[ticket, octets]] = world.answers() as [[string, Uint8Array]];
  assert.deepEqual([ticket, decodeDns(octets).rcode, world.counters.loops], ["loop", "SERVFAIL", 1]);
  // From an address that is not known as a server's the loop closes on what is under way.
  world.query(withId(ask!.octets, 10), "loop", { address: "192.0.2.77" });
  assert.equal(world.asks().length, 0);
});

Deno.test("Upstream cuts an answer that is larger than the client takes", () => {
  const world = new World();
  const plain = encodeQuery(77, "www.example.com", "A").subarray(0, -11).with(11, 0);
  world.query(plain, "c1");
  const [ask] = world.asks();
  const reply = answerTo(ask!.octets);
  const large = new Uint8Array(900);
  large.set(reply);
  world.upstream.handleReply(ask!.attempt, FIRST, large);
  const message = decodeDns(world.answers()[0]![1]);
  assert.deepEqual([message.flag_tc, message.answers.length, message.questions.length, message.id], [true, 0, 1, 77]);
});

Deno.test("Upstream takes ids at random", () => {
  const world = new World();
  for (let i = 0; i < 60; i++) world.query(encodeQuery(7, `n${i}.example.com`, "A"), i);
  const ids = new Set(world.asks().map(({ octets }) => octets[0]! << 8 | octets[1]!));
  assert.ok(ids.size > 55);
  assert.ok(Math.max(...ids) - Math.min(...ids) > 0x8000);
});

Deno.test("parseResolvConf() reads servers in their order, and passes over all else", () => {
  const text =
    "# nameserver 1.1.1.1\n;x\nsearch example.com\n  nameserver\t192.0.2.1 \nnameserver 192.0.2.1\nnameserver ::1\n" +
    "nameserver 192.0.2.2 # the other\noptions ndots:5\nnameserver 1.2.3\nnameserver";
  assert.deepEqual(parseResolvConf(text), [parseIpv4("192.0.2.1"), parseIpv4("192.0.2.2")]);
  const many = Array.from({ length: 100 }, (_, i) => `nameserver 10.0.0.${i}`).join("\n");
  assert.equal(parseResolvConf(many).length, 8);
});

type Ticket = string | number;

class World {
  readonly counters = newCounters();
  readonly upstream = new Upstream<Ticket>({
    timeoutMs: 5_000,
    random: new SeededRandom(3),
    counters: this.counters,
  });
  #outputs: UpstreamOutput<Ticket>[] = [];

  constructor() {
    this.upstream.setServers([FIRST, SECOND]);
  }

  query(octets: Uint8Array, ticket: Ticket, options: { address?: string; transport?: Transport } = {}): void {
    const { address = "10.0.0.1", transport = "udp" } = options;
    const query = new Query();
    assert.equal(query.read(octets, 0, octets.length), "query");
    this.upstream.handleQuery(query, { transport, address: parseIpv4(address)!, ticket }, 0);
  }

  asks(): Extract<UpstreamOutput<Ticket>, { type: "ask" }>[] {
    return this.#take("ask");
  }

  closed(): AttemptId[] {
    return this.#take("close").map(({ attempt }) => attempt);
  }

  answers(): [Ticket, Uint8Array][] {
    return this.#take("answer").map(({ ticket, octets }) => [ticket, octets]);
  }

  #take<T extends UpstreamOutput<Ticket>["type"]>(type: T): Extract<UpstreamOutput<Ticket>, { type: T }>[] {
    for (let o = this.upstream.poll(); o; o = this.upstream.poll()) this.#outputs.push(o);
    const taken = this.#outputs.filter((o): o is Extract<UpstreamOutput<Ticket>, { type: T }> => o.type === type);
    this.#outputs = this.#outputs.filter((o) => o.type !== type);
    return taken;
  }
}

/** The query's octets, said to be an answer. */
function answerTo(query: Uint8Array): Uint8Array {
  return query.with(2, query[2]! | 0x80).with(3, 0x80);
}
