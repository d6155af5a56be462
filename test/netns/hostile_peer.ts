/**
 * A router that is real in everything but what it says of services: for each line of a file it says what that attack says, to all and to
 * the victim alone; then it takes the file away. For tests of services.
 *
 *     deno run … hostile_peer.ts FILE VICTIM OTHER launch --foreground …      peers: whom it attacks, in whose name it speaks
 */

import { run } from "../../src/cli/run.ts";
import { parseIpv4 } from "../../src/lib/ip.ts";
import { parsePeerName, type PeerName } from "../../src/lib/mac.ts";
import { Catalogue, type CatalogueOutput } from "../../src/service/catalogue.ts";
import { Payloads } from "../../src/service/service_gossip.ts";
import { decodeService, encodeRecord, type ServiceRecord } from "../../src/wire/service.ts";
import { exportOf, importOf } from "../service_records.ts";

type Json = Record<string, unknown>;

const [orders, victim, other, ...args] = Deno.args as [string, string, string, ...string[]];
const US = args[args.indexOf("--name") + 1]!;
/** Names. They stand for millions: what more there is goes the way of most of these. */
const MANY = 60_000;
const CROWD = 4_500;
const ENCODER = new TextEncoder();

/** What is yet to be said. */
const pending: { readonly text: string; readonly to: PeerName }[] = [];
const said: CatalogueOutput[] = [];
const honest = { poll: Catalogue.prototype.poll, handleTimeout: Catalogue.prototype.handleTimeout };
let clock = 0;
/** Greater than any that it had before. */
let life = Date.now() + 3_600_000;
/** Messages for who asks for our records. */
let answers: readonly string[] = [];

Catalogue.prototype.poll = function () {
  for (;;) {
    const lie = said.shift();
    if (lie !== undefined) return lie;
    const output = honest.poll.call(this);
    if (output === undefined || output.type === "persist" || output.type === "persistOthers") return output;
  }
};

/** Comes often, as `pollTimeout()` asks for it. */
Catalogue.prototype.handleTimeout = function (now) {
  clock = now;
  for (const { text, to } of pending.splice(0, 8)) {
    const payload = ENCODER.encode(text);
    // As a broadcast and to one alone these are not even looked at.
    if (text.includes('"heads"')) said.push({ type: "gossip", data: new Payloads([payload]) });
    said.push({ type: "unicast", to, payload });
    if (payload.length < 50_000) said.push({ type: "broadcast", data: new Payloads([payload]) });
  }
  honest.handleTimeout.call(this, now);
};

Catalogue.prototype.pollTimeout = () => ({ at: clock + 50, why: "the next attack" });

Catalogue.prototype.handleUnicast = (source, payload) => {
  const message = decodeService(payload);
  if (message.type === "want" && message.owner === parsePeerName(US)) {
    pending.push(...answers.map((text) => ({ text, to: source })));
  }
};

function say(...texts: string[]): void {
  pending.push(...texts.map((text) => ({ text, to: parsePeerName(victim)! })));
}

/** Says that we have records, and tells them to who asks. */
function have(list: readonly unknown[]): void {
  answers = [records(US, list)];
  say(JSON.stringify({ type: "heads", by: US, heads: [[US, life, list.length, 1]] }));
}

/** All records of an owner, as they are said to be from now on. */
function records(owner: string, list: readonly unknown[], more: Json = {}): string {
  const numbered = list.map((record, i) => [i + 1, record]);
  const head = { type: "records", owner, life: ++life, since: 0, seq: list.length, full: true, last: true };
  return JSON.stringify({ ...head, ...more, records: numbered });
}

function imported(name: string, change: (json: Json & { spec: Json }) => void = () => {}): unknown {
  return changed(importOf(name), change);
}

function changed(record: ServiceRecord, change: (json: Json & { spec: Json }) => void): unknown {
  const json = JSON.parse(JSON.stringify(encodeRecord(record)));
  change(json);
  return json;
}

/** Replaces a word wherever it stands in the JSON of a record. */
function withWord(record: ServiceRecord, from: string, to: unknown): unknown {
  return JSON.parse(JSON.stringify(encodeRecord(record)).replaceAll(JSON.stringify(from), JSON.stringify(to)));
}

/** In messages each of which follows on the one before. */
function haveMany(count: number, record: (number: number) => unknown): void {
  life++;
  const texts: string[] = [];
  for (let first = 1; first <= count; first += 300) {
    const list = Array.from({ length: 300 }, (_, i) => [first + i, record(first + i)]);
    const range = { since: first - 1, seq: first + 299 };
    const full = { full: true, last: first + 300 > count };
    texts.push(JSON.stringify({ type: "records", owner: US, life, ...range, ...full, records: list }));
  }
  answers = texts;
  say(JSON.stringify({ type: "heads", by: US, heads: [[US, life, count, 1]] }));
}

const BAD_PORTS = ["-5", "0", "70000", "20-10", "1e3", ""];
const BAD_NAMES = [
  "evil.example.com",
  "a".repeat(64),
  "UPPER",
  "a b",
  "x\ny",
  "<script>",
  "../../etc",
  "\u202egnp",
  "",
];

const ATTACKS: Readonly<Record<string, () => void>> = {
  unasked: () => say(records(US, [imported("unasked")])),
  hugeMessage: () => have([imported("huge-message", (json) => json["padding"] = "x".repeat(1_000_000))]),
  hugeRecord: () => have([imported("huge-record", (json) => json["padding"] = "x".repeat(40_000))]),
  ports: () => have(BAD_PORTS.map((ports) => withWord(importOf("bad-ports"), "5432", ports))),
  names: () => have(BAD_NAMES.map((name) => withWord(importOf("good"), "good", name))),
  outside: () => have([encodeRecord(exportOf("www.example.com"))]),
  foreign: () => {
    const heads = [victim, other].map((owner) => [owner, life + 1, 1, 1]);
    say(JSON.stringify({ type: "heads", by: US, heads }));
    say(records(other, [imported("stolen")]), records(victim, [imported("stolen")]));
    const delta = { type: "records", life: 1, since: 0, seq: 2 ** 40, records: [[5, imported("stolen")]] };
    for (const owner of [other, victim]) say(JSON.stringify({ ...delta, owner }));
  },
  forget: () => say(...[other, victim].map((owner) => JSON.stringify({ type: "forget", owner, life: life + 1 }))),
  malformed: () => {
    say("", "null", "{", "[]", '{"type":"heads"}', "[".repeat(200_000), '{"a":'.repeat(40_000), "\u0000".repeat(1_000));
    say(records(US, [null, 5, "x", [], {}, { kind: "import" }, { kind: "other" }]));
    say(JSON.stringify({ type: "records", owner: US, life: -1, since: 1e300, seq: "x", records: {} }));
  },
  many: () => haveMany(MANY, (i) => imported(`n${i}`)),
  /** No attack at all, but as much as a large gateway has. */
  crowd: () =>
    haveMany(CROWD, (i) => {
      const address = parseIpv4("10.46.0.0")! + (Number.parseInt(US.slice(-2), 16) << 13) + i;
      return encodeRecord(importOf(`n${US.slice(-2)}-${i}`, { offers: [{ address }] }));
    }),
  owners: () => {
    // Heads of owners that nobody has ever seen.
    for (let first = 0; first < 200_000; first += 2_000) {
      const heads = Array.from({ length: 2_000 }, (_, i) => {
        const hex = (first + i + 1).toString(16).padStart(6, "0");
        return [`02:ee:ee:${hex.slice(0, 2)}:${hex.slice(2, 4)}:${hex.slice(4)}`, 7, 7, 7];
      });
      say(JSON.stringify({ type: "heads", by: US, heads }));
    }
  },
};

setInterval(() => {
  let text: string;
  try {
    text = Deno.readTextFileSync(orders);
  } catch {
    return;
  }
  Deno.removeSync(orders);
  for (const line of text.trim().split("\n")) ATTACKS[line]!();
}, 100);

Deno.exit(await run(args));
