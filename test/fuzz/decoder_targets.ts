/** Decoders of octets: no input makes them throw anything but their own errors, take long, or take memory out of proportion. */

import assert from "node:assert/strict";
import { RequestReader } from "../../src/api/http.ts";
import { ProtocolError, WireError } from "../../src/lib/errors.ts";
import type { Random } from "../../src/lib/random.ts";
import { type KeyPair, Session, type SessionCrypto } from "../../src/mesh/session.ts";
import { decodeArp, encodeArp } from "../../src/wire/arp.ts";
import { decodeFlows } from "../../src/wire/conntrack.ts";
import { captureAddress, captureRoute, hasGateway } from "../../src/wire/link_config.ts";
import {
  decodeFeatureMap,
  decodeFeatures,
  decodeHeader,
  decodeMessage,
  encodeFeatures,
  encodeMessage,
  type Features,
  HEADER_OCTETS,
} from "../../src/wire/control.ts";
import {
  BOOL,
  BYTES,
  decodeGob,
  GobReader,
  INT,
  map,
  type Schema,
  slice,
  STRING,
  struct,
  UINT,
  unsigned,
} from "../../src/wire/gob.ts";
import { decodeAcknowledgement, decodeMessages } from "../../src/wire/netlink.ts";
import { decodeAddress, decodeLink, decodeNeighbour, decodeRoute, decodeRule } from "../../src/wire/rtnetlink.ts";
import { decodeTopology, encodeTopology } from "../../src/wire/topology.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import {
  arps,
  featureMaps,
  flowMessages,
  gobs,
  messages,
  netlinkMessages,
  recordedStream,
  topologies,
} from "./corpus.ts";
import { decodes, type ErrorFamily, joined, makeInput, pick, randomOctets } from "./inputs.ts";
import { InputError, type Target } from "./target.ts";

const SCHEMAS: readonly Schema[] = [
  BOOL,
  INT,
  UINT,
  BYTES,
  STRING,
  unsigned(48),
  slice(UINT),
  map(STRING, STRING),
  map(UINT, slice(struct("Range", { Start: UINT, End: unsigned(32) }))),
  struct("peerSummary", { NameByte: BYTES, NickName: STRING, UID: UINT, Version: UINT, HasShortID: BOOL }),
];

export const DECODER_TARGETS: readonly Target[] = [
  decoder("ARP", arps, [], (octets) => {
    const arp = decodeArp(octets);
    if (arp) assert.deepEqual(decodeArp(encodeArp(arp.targetMac, arp)), arp);
  }),
  decoder("netlink", netlinkMessages, [WireError], (octets) => {
    for (const message of decodeMessages(octets)) {
      // The kernel says of what kind a message is; here each is read as every kind.
      for (const read of [decodeLink, decodeAddress, decodeRoute, decodeRule, decodeNeighbour, decodeAcknowledgement]) {
        decodes(message.body, () => read(message), [WireError]);
      }
    }
  }),
  decoder("connection tracking", flowMessages, [WireError], (octets) => {
    let flows = 0;
    decodeFlows(octets, () => flows++);
    assert.ok(flows <= octets.length / 20);
  }),
  decoder("link configuration", netlinkMessages, [WireError], (octets) => {
    for (const message of decodeMessages(octets)) {
      decodes(message.body, () => captureAddress(message, 3), [WireError]);
      const route = decodes(message.body, () => captureRoute(message, 3), [WireError]);
      if (route !== undefined && route !== "multipath") hasGateway(route);
    }
  }),
  decoder("gob", gobs, [WireError], (octets) => {
    for (const schema of SCHEMAS) decodes(octets, () => decodeGob(octets, schema), [WireError]);
    const reader = new GobReader(octets);
    while (reader.next()) reader.skip(reader.valueId, 0);
  }),
  decoder("topology", topologies, [WireError], (octets) => {
    const records = decodeTopology(octets);
    assert.ok(records.length <= octets.length);
    assert.deepEqual(decodeTopology(encodeTopology(records)), records);
  }),
  decoder("control message", messages, [WireError], (octets) => {
    const message = decodeMessage(octets);
    if (message.type === "unknown") return;
    const again = decodeMessage(encodeMessage(message, octets[0]! <= 3 && octets[0]! > 0));
    // What follows the last value is not taken over, nor are two ways to write a number.
    assert.deepEqual({ ...again, raw: undefined }, { ...message, raw: undefined });
  }),
  decoder("features", featureMaps, [WireError, ProtocolError], (octets) => {
    decodes(octets, () => decodeFeatureMap(octets), [WireError]);
    const features = decodeFeatures(octets);
    assert.deepEqual(decodeFeatures(encodeFeatures(features)), features);
  }),
  decoder("protocol header", () => [new TextEncoder().encode("weave\x01\x02")], [ProtocolError], (octets) => {
    if (octets.length >= HEADER_OCTETS) decodeHeader(octets.subarray(0, HEADER_OCTETS));
  }),
  { name: "control connection", weight: 2, prepare: prepareSession },
  { name: "HTTP request", prepare: prepareHttp },
];

function decoder(
  name: string,
  corpus: () => readonly Uint8Array[],
  families: readonly ErrorFamily[],
  decode: (octets: Uint8Array) => void,
): Target {
  const takes = (octets: Uint8Array) => void decodes(octets, () => decode(octets), families);
  return {
    name,
    takes,
    prepare() {
      const known = corpus();
      assert.ok(known.length > 0);
      known.forEach((octets) => takes(octets));
      return (random) => {
        const octets = makeInput(random, known);
        try {
          takes(octets);
        } catch (error) {
          throw new InputError(octets, error);
        }
      };
    },
  };
}

// ── A control connection ──────────────────────────────────────────────────────────────────────────────────────────────────────

/** Seals by adding 16 octets: what is inside is what matters here. */
const OPEN_CRYPTO: SessionCrypto = {
  generateKeyPair: (): KeyPair => ({ publicKey: new Uint8Array(32).fill(1), privateKey: new Uint8Array(32) }),
  sessionKey: (theirs) => theirs[0] === 0xff ? undefined : new Uint8Array(32),
  seal: (message) => joined(new Uint8Array(16), message),
  open: (box) => box.length < 16 || box[0] === 0xff ? undefined : box.slice(16),
};

const OUR_FEATURES: Features = {
  name: 0x02bb_0000_0002 as PeerName,
  nickName: "beta",
  uid: 1n,
  connectionId: 2n,
  shortId: 3,
  trusted: false,
  overlays: ["sleeve"],
  extensions: [],
};

function prepareSession() {
  const streams = ["plain", "nofrag", "relay"].flatMap((session) => ["1", "2"].map((n) => recordedStream(session, n)));
  const known = messages();
  const introduction = featureMaps();
  return (random: Random) => {
    const sealed = random.below(2) === 0;
    const session = new Session({
      outbound: random.below(2) === 0,
      features: OUR_FEATURES,
      password: sealed ? new Uint8Array(3) : undefined,
      crypto: OPEN_CRYPTO,
      now: 0,
    });
    const stream = sealed || random.below(2)
      ? madeUpStream(random, sealed, introduction, known)
      : pick(random, streams);
    const parts = stream.map((part) => random.below(4) === 0 ? makeInput(random, [part]) : part);
    const octets = joined(...parts);
    try {
      checkSession(session, octets, random);
    } catch (error) {
      throw new InputError(octets, error);
    }
  };
}

/** A conversation as a router of ours would have it: header, flag, features, messages. */
function madeUpStream(
  random: Random,
  sealed: boolean,
  introduction: readonly Uint8Array[],
  known: readonly Uint8Array[],
): Uint8Array[] {
  const frame = (message: Uint8Array) => {
    const octets = sealed ? joined(new Uint8Array(16), message) : message;
    const length = new Uint8Array(4);
    new DataView(length.buffer).setUint32(0, octets.length);
    return joined(length, octets);
  };
  return [
    new TextEncoder().encode("weave\x01\x02"),
    sealed ? joined(Uint8Array.of(1), new Uint8Array(32)) : Uint8Array.of(0),
    frame(pick(random, introduction)),
    ...Array.from({ length: random.below(12) }, () => frame(makeInput(random, known))),
  ];
}

/** Feeds the octets in random pieces. */
function checkSession(session: Session, octets: Uint8Array, random: Random): void {
  let failed = false, introduced = 0, messagesSeen = 0;
  for (let at = 0; at < octets.length;) {
    const end = Math.min(octets.length, at + 1 + random.below(random.below(4) === 0 ? 4 : 3000));
    const piece = octets.slice(at, end);
    decodes(piece, () => session.handleOctets(piece, 0), []);
    piece.fill(0xee); // it must not be kept
    at = end;
    for (let event = session.pollEvent(); event; event = session.pollEvent()) {
      assert.ok(!failed, "nothing comes after the failure");
      if (event.type === "failed") failed = true;
      else if (event.type === "introduced") introduced++;
      else messagesSeen++;
      if (event.type === "failed") assert.ok(event.reason.length < 1000);
      if (event.type === "message") assert.equal(introduced, 1);
    }
    assert.ok(session.queuedOctets < 2000);
  }
  assert.ok(introduced <= 1 && messagesSeen <= octets.length / 4);
  if (introduced === 1 && !failed) {
    session.send({ type: "heartbeat" });
    while (session.pollOctets());
  }
  session.handleTimeout(100_000);
}

// ── HTTP ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

const REQUESTS = [
  "GET /status HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n",
  "POST /connect HTTP/1.1\r\nHost: 127.0.0.1:6784\r\nContent-Type: application/x-www-form-urlencoded\r\n" +
  "Content-Length: 23\r\n\r\npeer=192.0.2.1&replace=",
  "PUT /name/a/b HTTP/1.1\nHost: x\nTransfer-Encoding: chunked\n\n5\r\nhello\r\n3;x=y\r\nabc\r\n0\r\nA: b\r\n\r\n",
  "GET /report?format=%7b%7b.Router.Name%7d%7d HTTP/1.0\r\nExpect: 100-continue\r\n\r\n",
].map((text) => new TextEncoder().encode(text));

function prepareHttp() {
  return (random: Random) => {
    const octets = random.below(10) === 0
      ? joined(REQUESTS[0]!.subarray(0, 40), randomOctets(random, random.below(70_000)))
      : makeInput(random, REQUESTS);
    try {
      const reader = new RequestReader();
      for (let at = 0; at < octets.length;) {
        const end = Math.min(octets.length, at + 1 + random.below(random.below(2) ? 3 : 40_000));
        const piece = octets.subarray(at, end);
        const progress = decodes(piece, () => reader.handleOctets(piece), [])!;
        if (progress.is === "refused") assert.ok(progress.response.status >= 400 && progress.response.status < 600);
        if (progress.is === "request") assert.ok(progress.request.target.startsWith("/"));
        if (progress.is !== "incomplete") return;
        at = end;
      }
    } catch (error) {
      throw new InputError(octets, error);
    }
  };
}
