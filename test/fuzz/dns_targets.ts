/** Names and DNS: what peers gossip, what containers ask, what other servers answer. */

import assert from "node:assert/strict";
import { Chain, FORWARD, newCounters, NOTHING } from "../../src/dns/chain.ts";
import { Names } from "../../src/dns/entries.ts";
import { LocalNames } from "../../src/dns/local.ts";
import { ReverseNames } from "../../src/dns/reverse.ts";
import { type AttemptId, Upstream } from "../../src/dns/upstream.ts";
import { ProtocolError, WireError } from "../../src/lib/errors.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import type { Random } from "../../src/lib/random.ts";
import { decodeDns, encodeQuery, MAX_UDP_OCTETS, parseRecord } from "../../src/wire/dns.ts";
import { decodeNames, encodeNames, identityOf } from "../../src/wire/nameserver.ts";
import { vector } from "./corpus.ts";
import { decodes, makeInput, pick } from "./inputs.ts";
import { InputError, type Target } from "./target.ts";

const OURS = 0x02aa_0000_0001 as PeerName;
const NOW = 1_795_280_443;

export const DNS_TARGETS: readonly Target[] = [
  decoder("names", payloads, (octets) => {
    for (const kind of ["addresses", "records"] as const) {
      const decoded = decodes(octets, () => decodeNames(kind, octets), [WireError]);
      if (decoded === undefined) continue;
      assert.equal(new Set(decoded.entries.map(identityOf)).size, decoded.entries.length);
      assert.deepEqual(decodeNames(kind, encodeNames(kind, decoded)), { ...decoded, refused: 0 });
    }
  }),
  decoder("DNS message", messages, (octets) => void decodes(octets, () => decodeDns(octets), [WireError])),
  decoder("record in words", words, (octets) => {
    const record = parseRecord(new TextDecoder().decode(octets));
    if (record) assert.deepEqual(parseRecord(record.text), record);
  }),
  { name: "gossip of names", prepare: prepareGossip },
  { name: "DNS server", weight: 2, prepare: prepareServer },
];

function decoder(name: string, corpus: () => readonly Uint8Array[], takes: (octets: Uint8Array) => void): Target {
  return {
    name,
    takes,
    prepare() {
      const known = corpus();
      known.forEach(takes);
      return (random) => tried(makeInput(random, known), takes);
    },
  };
}

function tried(octets: Uint8Array, takes: (octets: Uint8Array) => void): void {
  try {
    takes(octets);
  } catch (error) {
    throw new InputError(octets, error);
  }
}

function payloads(): Uint8Array[] {
  const { cases } = vector<{ cases: readonly { hex: string }[] }>("nameserver-gossip");
  const merges = vector<{ cases: readonly { incoming_hex: string }[] }>("nameserver-merge");
  const ours = encodeNames("records", {
    timestamp: NOW,
    entries: [{ hostname: "a.", origin: OURS, containerId: "c", data: "TXT x", version: 1, tombstone: 2 }],
    leaving: 7n,
    removed: 8 as PeerName,
  });
  return [
    ...cases.map(({ hex }) => Uint8Array.fromHex(hex)),
    ...merges.cases.map(({ incoming_hex }) => Uint8Array.fromHex(incoming_hex)),
    ours,
  ];
}

function messages(): Uint8Array[] {
  const query = encodeQuery(7, "www.example.com", "A");
  const question = query.subarray(0, -11);
  const records = "c00c00010001000000000004c0000201" + "c00c001000010000000000040361626300".slice(0, 32);
  const answer = Uint8Array.from([
    ...question.with(2, 0x81).with(3, 0x80).with(7, 2).with(11, 0),
    ...Uint8Array.fromHex(records),
  ]);
  const pointers = Uint8Array.fromHex("000701000001000000000000" + "03777777c00c00010001");
  return [query, question.with(11, 0), answer, pointers, encodeQuery(9, "web.weave.local", "SRV")];
}

function words(): Uint8Array[] {
  return ["AAAA fd00::1", "SRV 0 5 80 web.weave.local.", "TXT hello there"].map((text) =>
    new TextEncoder().encode(text)
  );
}

function newNames(): Names {
  const names = new Names({
    ourName: OURS,
    ourUid: 1n,
    domain: "weave.local.",
    graceMs: 60_000,
    peerUid: (name) => name % 3 === 0 ? undefined : BigInt(name % 5),
    unixSeconds: () => NOW,
    log: SILENT,
  }, 0);
  names.addAll([
    { hostname: "web.weave.local", containerId: "c0ffee", data: 0x0a20_0001 },
    { hostname: "web.weave.local", containerId: "c1", data: "TXT hello" },
  ]);
  return names;
}

/** Payloads as they come to a router; afterwards what it tells others must be well formed. */
function prepareGossip() {
  const known = payloads();
  return (random: Random) => {
    const names = newNames();
    const channels = names.channels();
    for (let n = 1 + random.below(6); n > 0; n--) {
      const octets = makeInput(random, known);
      tried(octets, () => {
        const channel = pick(random, channels);
        const source = pick(random, [0x02bb_0000_0002, 0x02cc_0000_0003, OURS]) as PeerName;
        const told = decodes(octets, () => {
          return random.below(2) ? channel.handleGossip(octets, 0, source) : channel.handleBroadcast(source, octets, 0);
        }, [WireError, ProtocolError]);
        const state = channel.completeState(0);
        const kind = channel === channels[0] ? "addresses" : "records";
        for (const data of [told, state]) {
          for (const payload of data?.encode() ?? []) decodeNames(kind, payload as Uint8Array);
        }
      });
    }
    if (random.below(2)) names.handlePeerGone(pick(random, [0x02bb_0000_0002, 0x02cc_0000_0003]) as PeerName, 0);
    names.handleTimeout(60_000);
    names.handleTopology();
    for (let output = names.poll(); output; output = names.poll()) {
      if (output.type !== "ownChanged") output.data.encode();
    }
    assert.ok(names.lookup("\x03web\x05weave\x05local").state === "live", "what is ours nobody takes away");
  };
}

/** Queries of a hostile client, answers of hostile servers. */
function prepareServer() {
  const known = messages();
  const room = new Uint8Array(70_000);
  return (random: Random) => {
    const names = newNames();
    const counters = newCounters();
    const chain = new Chain(
      [
        new LocalNames({
          domainKey: names.domainKey,
          lookup: (key) => names.lookup(key),
          ttlSeconds: 1,
          random,
          counters,
        }),
        new ReverseNames({ lookupAddress: (address) => names.lookupAddress(address), ttlSeconds: 1, counters }),
      ],
      counters,
      room,
    );
    const upstream = new Upstream<number>({ timeoutMs: 5_000, random, counters });
    const server = { address: 0xc000_0201, port: 53 };
    upstream.setServers([server]);
    const asked: AttemptId[] = [];
    let forwarded = 0;
    let answered = 0;
    for (let n = 1 + random.below(8); n > 0; n--) {
      const octets = makeInput(random, known);
      tried(octets, () => {
        const transport = random.below(2) ? "tcp" : "udp";
        const length = chain.handle(octets, 0, octets.length, 64, transport);
        if (length === FORWARD) {
          forwarded++;
          upstream.handleQuery(chain.query, { transport, address: 0x0a00_0001, ticket: n }, 0);
        } else if (length !== NOTHING) {
          assert.ok(transport === "tcp" || length <= MAX_UDP_OCTETS);
          assert.equal(decodeDns(room.subarray(64, 64 + length)).id, octets[0]! << 8 | octets[1]!);
        }
        if (asked.length > 0) upstream.handleReply(pick(random, asked), server, octets.slice());
        for (let output = upstream.poll(); output; output = upstream.poll()) {
          if (output.type === "ask") asked.push(output.attempt);
          if (output.type === "answer") answered++;
        }
      });
    }
    upstream.handleTimeout(1e9);
    for (let output = upstream.poll(); output; output = upstream.poll()) if (output.type === "answer") answered++;
    assert.equal(answered, forwarded, "whoever is forwarded is answered, once");
    assert.equal(upstream.pending, 0);
  };
}
