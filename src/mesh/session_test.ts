import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import fc from "fast-check";
import { openControlBoxes } from "../../ffi/control_boxes.ts";
import { mutated } from "../../test/mutated.ts";
import type { PeerName } from "../lib/mac.ts";
import {
  decodeFeatures,
  decodeMessage,
  encodeFeatureMap,
  encodeFeatures,
  encodeHeader,
  encodeMessage,
  type Features,
  MAX_MESSAGE_OCTETS,
  type Message,
} from "../wire/control.ts";
import { Session, type SessionCrypto, type SessionEvent, type SessionOptions } from "./session.ts";

const BOXES = await openControlBoxes();
const PASSWORD = new TextEncoder().encode("s3cret");
const ALPHA: Features = {
  name: 0x02aa00000001 as PeerName,
  nickName: "alpha",
  uid: 1n,
  connectionId: 11n,
  shortId: 5,
  trusted: false,
  overlays: ["sleeve"],
  extensions: ["probe", "digest"],
};
const BETA: Features = { ...ALPHA, name: 0x02bb00000002 as PeerName, nickName: "beta", uid: 2n, connectionId: 12n };

function session(options: Partial<SessionOptions> = {}): Session {
  return new Session({ outbound: true, features: ALPHA, password: undefined, crypto: BOXES, now: 0, ...options });
}

// Two of ours ---------------------------------------------------------------------------------------

const SAID: readonly Message[] = [
  { type: "heartbeat" },
  { type: "gossip", channel: "c", sender: ALPHA.name, payload: new Uint8Array(70_000).fill(3) },
  { type: "overlayControl", overlay: 0, subTag: 3, payload: Uint8Array.of(5, 0x86) },
  { type: "probe", number: 77 },
  { type: "want", names: [BETA.name] },
];

for (const password of [undefined, PASSWORD]) {
  const how = password ? "encrypted" : "in clear";

  Deno.test(`two sessions say everything to each other, cut anywhere (${how})`, () => {
    const cuts = fc.array(fc.oneof(fc.integer({ min: 1, max: 7 }), fc.integer({ min: 1, max: 100_000 })), {
      minLength: 1,
      maxLength: 8,
    });
    fc.assert(
      fc.property(cuts, (cuts) => {
        const pair = introduced({ password, cuts: [...cuts, 5000] });
        for (const message of SAID) {
          pair.a.send(message);
          pair.b.send(message);
        }
        pair.exchange();
        assert.deepEqual(pair.events.a.map(withoutRaw), SAID.map(asEvent));
        assert.deepEqual(pair.events.b.map(withoutRaw), SAID.map(asEvent));
      }),
      { numRuns: 40 },
    );
  });

  Deno.test(`an introduction works with a cut at every octet (${how})`, () => {
    const [toA, toB] = introduction(password);
    for (let cut = 0; cut <= Math.max(toA.length, toB.length); cut++) {
      const pair = introduced({ password, cuts: [cut, 100_000] });
      assert.equal(pair.a.queuedOctets + pair.b.queuedOctets, 0);
    }
    introduced({ password, cuts: [1] });
  });

  Deno.test(`an introduction says who is there, and both have the same key (${how})`, () => {
    const { greetings: [a, b] } = introduced({ password });
    assert.ok(a?.type === "introduced" && b?.type === "introduced");
    assert.deepEqual([a.features, b.features], [BETA, ALPHA]);
    assert.equal(a.sessionKey?.length, password ? 32 : undefined);
    assert.deepEqual(a.sessionKey, b.sessionKey);
  });

  Deno.test(`messages that follow the features at once come after the introduction (${how})`, () => {
    const { a, b } = new Pair({ password });
    let forB = all(a);
    for (;;) {
      a.handleOctets(all(b), 0);
      const more = all(a);
      if (a.pollTimeout() === undefined) { // a knows b, and b does not know a yet
        a.send({ type: "probe", number: 1 });
        b.handleOctets(joined(forB, more, all(a)), 0);
        break;
      }
      b.handleOctets(forB, 0);
      forB = more;
    }
    assert.deepEqual(eventsOf(b).map((event) => event.type), ["introduced", "message"]);
  });

  Deno.test(`messages keep their own octets (${how})`, () => {
    const pair = introduced({ password });
    pair.a.send({ type: "gossip", channel: "c", sender: ALPHA.name, payload: Uint8Array.of(1, 2, 3) });
    const octets = all(pair.a);
    pair.b.handleOctets(octets, 0);
    octets.fill(0);
    const event = pair.b.pollEvent();
    assert.ok(event?.type === "message" && event.message.type === "gossip");
    assert.deepEqual(event.message.payload, Uint8Array.of(1, 2, 3));
  });

  Deno.test(`send() closes a connection for a message that is too long (${how})`, () => {
    const envelope = encodeMessage(gossipOf(MAX_MESSAGE_OCTETS), false).length - MAX_MESSAGE_OCTETS;
    const most = MAX_MESSAGE_OCTETS - envelope - (password ? 16 : 0);
    const pair = introduced({ password });
    pair.a.send(gossipOf(most));
    pair.exchange();
    assert.equal(pair.events.b.length, 1);
    pair.a.send(gossipOf(most + 1));
    assert.deepEqual(pair.a.pollEvent(), {
      type: "failed",
      reason: "outgoing message exceeds maximum size: 10485761 > 10485760",
    });
  });

  Deno.test(`a message too long to be received closes the connection before it came (${how})`, () => {
    const { b } = introduced({ password });
    b.handleOctets(Uint8Array.fromHex("00a00001"), 0);
    assert.deepEqual(b.pollEvent(), {
      type: "failed",
      reason: "incoming message exceeds maximum size: 10485761 > 10485760",
    });
  });
}

Deno.test("a legacy peer hears overlay control in the tags 1 to 3", () => {
  const features = { ...BETA, overlays: undefined };
  const pair = new Pair({ password: undefined, b: features });
  pair.exchange();
  pair.a.send({ type: "overlayControl", overlay: 0, subTag: 3, payload: Uint8Array.of(5, 6) });
  assert.equal(all(pair.a).toHex(), "00000003" + "030506");
  pair.b.send({ type: "overlayControl", overlay: 0, subTag: 3, payload: Uint8Array.of(5, 6) });
  assert.equal(all(pair.b).toHex(), "00000005" + "0700030506");
});

Deno.test("Session offers version 2 alone unless it is told to offer version 1 too", () => {
  assert.equal(session().pollOctets()?.toHex(), "77656176650202");
  assert.equal(session({ minVersion: 1 }).pollOctets()?.toHex(), "77656176650102");
});

// Failures ------------------------------------------------------------------------------------------

const HEADER = encodeHeader({ min: 1, max: 2 });

interface Failure {
  readonly what: string;
  readonly options?: Partial<SessionOptions>;
  readonly octets: Uint8Array;
  readonly reason: string | RegExp;
}

const FAILURES: readonly Failure[] = [
  {
    what: "a greeting in capitals",
    octets: Uint8Array.fromHex("57656176650102"),
    reason: "remote protocol header not recognised: [87 101 97 118 101]",
  },
  {
    what: "a web browser",
    octets: new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n"),
    reason: "remote protocol header not recognised: [71 69 84 32 47]",
  },
  {
    what: "version 1 alone",
    octets: encodeHeader({ min: 1, max: 1 }),
    reason: "remote version range [1,1] is incompatible with ours [2,2]",
  },
  {
    what: "version 1 alone where it was offered",
    options: { minVersion: 1 },
    octets: encodeHeader({ min: 1, max: 1 }),
    reason: "remote version range [1,1] is incompatible with ours [2,2]",
  },
  {
    what: "versions to come",
    octets: encodeHeader({ min: 3, max: 4 }),
    reason: "remote version range [3,4] is incompatible with ours [2,2]",
  },
  { what: "a flag that is neither", octets: joined(HEADER, Uint8Array.of(2)), reason: "Bad encryption flag 2" },
  {
    what: "a peer without a password",
    options: { password: PASSWORD },
    octets: joined(HEADER, Uint8Array.of(0)),
    reason: "password specified, but peer requested an unencrypted connection",
  },
  {
    what: "a peer with a password",
    octets: joined(HEADER, Uint8Array.of(1)),
    reason: "no password specificed, but peer requested an encrypted connection",
  },
  {
    what: "a public key that is no use",
    options: { password: PASSWORD },
    octets: joined(HEADER, Uint8Array.of(1), new Uint8Array(32)),
    reason: /^Cannot agree on a session key/,
  },
  {
    what: "a box that is none",
    options: { password: PASSWORD },
    octets: joined(HEADER, Uint8Array.of(1), BOXES.generateKeyPair().publicKey, Uint8Array.of(0, 0, 0, 3, 1, 2, 3)),
    reason: "Unable to decrypt TCP msg",
  },
  {
    what: "features without a name",
    octets: joined(HEADER, Uint8Array.of(0), framed(encodeFeatureMap([["PeerNameFlavour", "mac"]]))),
    reason: 'Cannot accept features: "Name" is missing',
  },
  {
    what: "features that are none",
    octets: joined(HEADER, Uint8Array.of(0), framed(Uint8Array.of(1, 2, 3))),
    reason: /^Cannot read gob/,
  },
  {
    what: "no features",
    octets: joined(HEADER, Uint8Array.of(0), framed(new Uint8Array())),
    reason: /^Cannot read gob/,
  },
  {
    what: "features longer than any, before they came",
    octets: joined(HEADER, Uint8Array.of(0), Uint8Array.of(0, 1, 0, 1)),
    reason: "incoming message exceeds maximum size: 65537 > 65536",
  },
  {
    what: "a malformed message",
    octets: joined(HEADER, Uint8Array.of(0), framed(encodeFeatures(BETA)), framed(Uint8Array.of(4, 9))),
    reason: /^Cannot read gob/,
  },
];

for (const { what, options, octets, reason } of FAILURES) {
  Deno.test(`Session fails at ${what}, once and for good`, () => {
    const s = session(options);
    for (const octet of octets) s.handleOctets(Uint8Array.of(octet), 0);
    const events = eventsOf(s).filter((event) => event.type !== "introduced");
    assert.equal(events.length, 1);
    const failed = events[0]!;
    assert.ok(failed.type === "failed");
    if (typeof reason === "string") assert.equal(failed.reason, reason);
    else assert.match(failed.reason, reason);
    s.handleOctets(joined(octets, octets), 0);
    s.handleTimeout(1e9);
    s.send({ type: "heartbeat" });
    assert.deepEqual(eventsOf(s), []);
    assert.equal(s.pollTimeout(), undefined);
  });
}

Deno.test("sessions with different passwords cannot read each other's features", () => {
  const pair = new Pair({ password: PASSWORD, passwordOfB: Uint8Array.of(1) });
  pair.exchange();
  const failed = { type: "failed", reason: "Unable to decrypt TCP msg" };
  assert.deepEqual([pair.events.a, pair.events.b], [[failed], [failed]]);
});

Deno.test("sessions of which one has a password both say so", () => {
  const pair = new Pair({ password: PASSWORD, passwordOfB: undefined });
  pair.exchange();
  const reasons = [...pair.events.a, ...pair.events.b].map((event) => event.type === "failed" && event.reason);
  assert.deepEqual(reasons, [
    "password specified, but peer requested an unencrypted connection",
    "no password specificed, but peer requested an encrypted connection",
  ]);
});

Deno.test("a sealed frame that is changed, repeated or left out closes the connection", () => {
  const probe: Message = { type: "probe", number: 1 };
  const ways: ((frames: Uint8Array[]) => Uint8Array[])[] = [
    ([first]) => [first!.with(10, first![10]! ^ 1)],
    ([first]) => [first!, first!],
    ([_, second]) => [second!],
  ];
  for (const way of ways) {
    const pair = introduced({ password: PASSWORD });
    const frames = [probe, probe].map((message) => {
      pair.a.send(message);
      return all(pair.a);
    });
    for (const frame of way(frames)) pair.b.handleOctets(frame, 0);
    assert.deepEqual(eventsOf(pair.b).at(-1), { type: "failed", reason: "Unable to decrypt TCP msg" });
  }
});

Deno.test("frames sent back to their sender do not open", () => {
  const pair = introduced({ password: PASSWORD });
  pair.a.send({ type: "heartbeat" });
  pair.a.handleOctets(all(pair.a), 0);
  assert.equal(eventsOf(pair.a).at(-1)?.type, "failed");
});

Deno.test("pollTimeout() gives the header 10 s, then the introduction 60 s, then no end", () => {
  const s = session({ now: 100 });
  s.handleTimeout(10_099);
  assert.deepEqual([s.pollTimeout()?.at, s.pollEvent()], [10_100, undefined]);
  s.handleOctets(HEADER, 5_000);
  s.handleTimeout(64_999);
  assert.deepEqual([s.pollTimeout()?.at, s.pollEvent()], [65_000, undefined]);
  s.handleOctets(joined(Uint8Array.of(0), framed(encodeFeatures(BETA))), 64_999);
  assert.equal(s.pollTimeout(), undefined);
  s.handleTimeout(1e9);
  assert.deepEqual(eventsOf(s).map((event) => event.type), ["introduced"]);
});

Deno.test("handleTimeout() fails a session that is late, and says what for", () => {
  const early = session();
  early.handleTimeout(10_000);
  assert.deepEqual(eventsOf(early), [{ type: "failed", reason: "timed out waiting for protocol header" }]);
  const later = session();
  later.handleOctets(HEADER, 1_000);
  later.handleTimeout(61_000);
  assert.deepEqual(eventsOf(later), [{ type: "failed", reason: "timed out waiting for introduction" }]);
});

Deno.test("send() before the introduction is a mistake of the caller's", () => {
  assert.throws(() => session().send({ type: "heartbeat" }), /not introduced/);
});

Deno.test("handleOctets() throws at nothing, whatever it gets", () => {
  const talk = joined(
    HEADER,
    Uint8Array.of(0),
    framed(encodeFeatures(BETA)),
    ...SAID.filter((m) => m.type !== "gossip").map((m) => framed(encodeMessage(m, false))),
    framed(encodeMessage(gossipOf(40), false)),
  );
  const octets = fc.oneof(mutated(talk), fc.uint8Array({ maxLength: 100 }).map((o) => joined(HEADER, o)));
  fc.assert(
    fc.property(octets, fc.option(fc.constant(PASSWORD), { nil: undefined }), (octets, password) => {
      const s = session({ password });
      for (let at = 0; at < octets.length; at += 50) s.handleOctets(octets.slice(at, at + 50), 0);
      const events = eventsOf(s);
      const failed = events.findIndex((event) => event.type === "failed");
      assert.ok(failed === -1 || failed === events.length - 1);
    }),
    { numRuns: 2000 },
  );
});

// What real routers said ----------------------------------------------------------------------------

interface Stream {
  key: string;
  sender_is_outbound: boolean;
  frames: { n: number; nonce: string; plaintext: string; plaintext_len?: number; frame?: string }[];
}

const FRAMES = readJson("tcp-frames.json") as {
  encrypted: Stream[];
  plain: { frame: string; message: string }[];
};

for (const { key, sender_is_outbound, frames } of FRAMES.encrypted) {
  const [first, ...rest] = frames;
  const sender = sender_is_outbound ? "the connecting side" : "the accepting side";
  const crypto: SessionCrypto = { ...methodsOf(BOXES), sessionKey: () => Uint8Array.fromHex(key) };
  const keys = { password: PASSWORD, crypto };

  Deno.test(`the vectors' frames of ${sender} are made, number after number`, () => {
    const s = session({ outbound: sender_is_outbound, ...keys });
    s.handleOctets(joined(HEADER, Uint8Array.of(1), new Uint8Array(32)), 0);
    const theirNonce = Uint8Array.fromHex(first!.nonce);
    theirNonce[0]! ^= 0x80;
    s.handleOctets(framed(crypto.seal(encodeFeatures(BETA), theirNonce, Uint8Array.fromHex(key))), 0);
    all(s);
    for (const { plaintext, frame } of rest.slice(0, 4)) {
      // An empty message cannot be sent: another takes its number.
      s.send(plaintext === "" ? { type: "heartbeat" } : decodeMessage(Uint8Array.fromHex(plaintext)));
      const made = all(s).toHex();
      if (plaintext !== "") assert.equal(made, frame);
    }
  });

  Deno.test(`the vectors' frames of ${sender} are read, number after number`, () => {
    const s = session({ outbound: !sender_is_outbound, ...keys });
    s.handleOctets(joined(HEADER, Uint8Array.of(1), new Uint8Array(32)), 0);
    const [nonce, k] = [Uint8Array.fromHex(first!.nonce), Uint8Array.fromHex(key)];
    s.handleOctets(framed(crypto.seal(encodeFeatures(BETA), nonce, k)), 0);
    for (const { frame, plaintext_len, nonce } of rest) {
      const made = () => framed(crypto.seal(new Uint8Array(plaintext_len!).fill(0x5a), Uint8Array.fromHex(nonce), k));
      s.handleOctets(frame ? Uint8Array.fromHex(frame) : made(), 0);
    }
    const [introduction, ...messages] = eventsOf(s);
    assert.equal(introduction?.type, "introduced");
    const expected = rest.map(({ plaintext, plaintext_len }) =>
      plaintext_len ? { type: "unknown", tag: 0x5a } : decodeMessage(Uint8Array.fromHex(plaintext))
    );
    assert.deepEqual(messages, expected.map((message) => ({ type: "message", message })));
  });
}

Deno.test("the vectors' frames in clear are read and made", () => {
  const pair = introduced({ password: undefined });
  for (const { frame, message } of FRAMES.plain.slice(1)) { // the first is a feature map, for which it is too late
    pair.b.handleOctets(Uint8Array.fromHex(frame), 0);
    const expected = decodeMessage(Uint8Array.fromHex(message));
    assert.deepEqual(pair.b.pollEvent(), { type: "message", message: expected });
    if (message === "") continue;
    pair.a.send(expected);
    assert.equal(all(pair.a).toHex(), frame);
  }
});

interface Recording {
  setting: {
    passwords?: Record<string, string | null>;
    session_keys?: { side: string; private_key: string }[];
    keys?: {
      password: string;
      session_key: string;
      outbound_side: { private_key: string };
      inbound_side: { private_key: string };
    };
  };
  transcript: {
    conn?: number;
    dir?: string;
    kind: string;
    flags?: string;
    hex?: string;
    frame?: string;
    plaintext?: string;
  }[];
}

for (const file of ["plain", "encrypted", "relay", "nofrag", "dup"]) {
  const recording = readJson(`recorded-tcp-${file}.json`) as Recording;
  for (const conn of new Set(recording.transcript.map((item) => item.conn).filter((conn) => conn !== undefined))) {
    for (const outbound of [true, false]) {
      const side = outbound ? "connecting" : "accepting";
      Deno.test(`connection ${conn} of the recorded session ${file} is played by the ${side} side`, async () => {
        await play(recording, conn, outbound);
      });
    }
  }
}

/** Takes the place of one side: reads what the other said, and says what that side said, octet for octet. */
async function play({ setting, transcript }: Recording, conn: number, outbound: boolean): Promise<void> {
  const items = transcript.filter((item) => item.conn === conn && item.dir);
  const dialled = items.find((item) => item.flags === "SYN")!.dir;
  const ofOurs = (item: { dir?: string }) => (item.dir === dialled) === outbound;
  const talk = items.filter((item) => item.kind !== "tcp");
  const ours = talk.filter(ofOurs);
  const theirs = talk.filter((item) => !ofOurs(item));
  const { keys } = setting;
  const privateKeys = keys && [Uint8Array.fromHex((outbound ? keys.outbound_side : keys.inbound_side).private_key)];
  const s = new Session({
    outbound,
    features: decodeFeatures(messageOf(ours[2]!)),
    password: keys && new TextEncoder().encode(keys.password),
    crypto: await openControlBoxes({ privateKeys: privateKeys ?? [] }),
    minVersion: 1,
    now: 0,
  });
  assert.equal(all(s).toHex(), ours[0]!.hex);
  s.handleOctets(octetsOf(theirs[0]!), 0);
  s.handleOctets(octetsOf(theirs[1]!), 0);
  const flag = octetsOf(ours[1]!);
  const said = all(s);
  assert.equal(said.subarray(0, flag.length).toHex(), flag.toHex());
  if (!theirs[2]) return; // the other side had closed the connection by then
  s.handleOctets(octetsOf(theirs[2]), 0);
  const introduction = s.pollEvent();
  assert.ok(introduction?.type === "introduced");
  assert.deepEqual(introduction.features, decodeFeatures(messageOf(theirs[2])));
  assert.equal(introduction.sessionKey?.toHex(), keys?.session_key);
  for (const item of theirs.slice(3)) s.handleOctets(octetsOf(item), 0);
  const heard = eventsOf(s);
  assert.deepEqual(
    heard,
    theirs.slice(3).map((item) => ({ type: "message", message: decodeMessage(messageOf(item)) })),
  );
  for (const item of ours.slice(3)) {
    s.send(decodeMessage(messageOf(item)));
    assert.equal(all(s).toHex(), item.frame);
  }
}

const BAD_PASSWORD = readJson("recorded-tcp-badpw.json") as Recording;

for (const [i, { side, private_key }] of BAD_PASSWORD.setting.session_keys!.entries()) {
  Deno.test(`the recorded wrong password, key ${i}, is noticed by the side that is ${side}`, async () => {
    const outbound = side.startsWith("outbound");
    const crypto = await openControlBoxes({ privateKeys: [Uint8Array.fromHex(private_key)] });
    const { transcript, setting } = BAD_PASSWORD;
    const password = new TextEncoder().encode(setting.passwords![outbound ? "2" : "1"]!);
    const s = session({ outbound, crypto, password });
    s.handleOctets(HEADER, 0);
    const flag = all(s).subarray(HEADER.length).toHex();
    const sent = transcript.find((item) => item.hex !== undefined && item.hex === flag);
    assert.ok(sent, "our public key is the recorded one");
    const theirs = transcript.filter((item) => item.conn === sent.conn && item.dir && item.dir !== sent.dir);
    for (const item of theirs.filter((item) => item.kind !== "tcp").slice(1)) s.handleOctets(octetsOf(item), 0);
    const heardFeatures = theirs.some((item) => item.frame);
    assert.deepEqual(eventsOf(s), heardFeatures ? [{ type: "failed", reason: "Unable to decrypt TCP msg" }] : []);
  });
}

const NO_PASSWORD = readJson("recorded-tcp-nopw.json") as Recording;

for (
  const [router, reason] of [
    ["1", "password specified, but peer requested an unencrypted connection"],
    ["2", "no password specificed, but peer requested an encrypted connection"],
  ] as const
) {
  Deno.test(`the recorded password on one side only is noticed by router ${router}`, () => {
    let noticed = 0;
    for (const conn of [0, 1, 2]) {
      const password = router === "1" ? PASSWORD : undefined;
      const s = session({ outbound: router === "2", password });
      const theirs = NO_PASSWORD.transcript.filter((item) =>
        item.conn === conn && item.kind !== "tcp" && !item.dir!.startsWith(router)
      );
      for (const item of theirs) s.handleOctets(octetsOf(item), 0);
      const events = eventsOf(s);
      if (theirs.length < 2) assert.deepEqual(events, []);
      else {
        assert.deepEqual(events, [{ type: "failed", reason }]);
        noticed++;
      }
    }
    assert.ok(noticed >= 2);
  });
}

// Helpers -------------------------------------------------------------------------------------------

interface PairOptions {
  readonly password: Uint8Array | undefined;
  readonly passwordOfB?: Uint8Array | undefined;
  readonly b?: Features;
  /** Sizes of the pieces in which octets are handed over, in turn. */
  readonly cuts?: readonly number[];
}

/** Two sessions and what they have made of each other. */
class Pair {
  readonly a: Session;
  readonly b: Session;
  readonly events: { a: SessionEvent[]; b: SessionEvent[] } = { a: [], b: [] };
  readonly #cuts: readonly number[];

  constructor(options: PairOptions) {
    this.a = session({ password: options.password });
    const password = "passwordOfB" in options ? options.passwordOfB : options.password;
    this.b = session({ outbound: false, features: options.b ?? BETA, password });
    this.#cuts = options.cuts ?? [100_000];
  }

  /** Until nobody has anything more to say. @param overhear what goes to b, what goes to a */
  exchange(overhear = (_toB: Uint8Array, _toA: Uint8Array) => {}): void {
    for (;;) {
      const toB = all(this.a);
      const toA = all(this.b);
      if (toA.length + toB.length === 0) return;
      overhear(toB, toA);
      this.#hand(toA, this.a, this.events.a);
      this.#hand(toB, this.b, this.events.b);
    }
  }

  #hand(octets: Uint8Array, to: Session, events: SessionEvent[]): void {
    let at = 0;
    for (let i = 0; at < octets.length; i++) {
      const piece = octets.slice(at, at + this.#cuts[i % this.#cuts.length]!);
      to.handleOctets(piece, 0);
      events.push(...eventsOf(to));
      at += piece.length;
      piece.fill(0xee); // the socket reads into it again
    }
  }
}

/** A pair that knows each other; the events of that are taken out. */
function introduced(options: PairOptions) {
  const pair = new Pair(options);
  pair.exchange();
  const greetings = [pair.events.a.shift(), pair.events.b.shift()];
  assert.deepEqual(greetings.map((event) => event?.type), ["introduced", "introduced"]);
  assert.deepEqual(pair.events, { a: [], b: [] });
  return Object.assign(pair, { greetings });
}

/** What each of two sides hears in an introduction. */
function introduction(password: Uint8Array | undefined): [Uint8Array, Uint8Array] {
  let [heardByA, heardByB] = [new Uint8Array(), new Uint8Array()];
  new Pair({ password }).exchange((toB, toA) => {
    heardByA = joined(heardByA, toA);
    heardByB = joined(heardByB, toB);
  });
  return [heardByA, heardByB];
}

function eventsOf(s: Session): SessionEvent[] {
  const events = [];
  for (let event = s.pollEvent(); event; event = s.pollEvent()) events.push(event);
  return events;
}

/** Everything that waits for the socket. */
function all(s: Session): Uint8Array {
  const pieces = [];
  for (let octets = s.pollOctets(); octets; octets = s.pollOctets()) pieces.push(octets);
  assert.equal(s.queuedOctets, 0);
  return joined(...pieces);
}

function asEvent(message: Message): SessionEvent {
  return { type: "message", message };
}

function withoutRaw(event: SessionEvent): SessionEvent {
  if (event.type !== "message" || !("raw" in event.message)) return event;
  const { raw: _, ...message } = event.message;
  return { type: "message", message };
}

function gossipOf(octets: number): Message {
  return { type: "gossip", channel: "c", sender: ALPHA.name, payload: new Uint8Array(octets) };
}

function framed(message: Uint8Array): Uint8Array {
  const length = new Uint8Array(4);
  new DataView(length.buffer).setUint32(0, message.length);
  return joined(length, message);
}

function joined(...pieces: Uint8Array[]): Uint8Array<ArrayBuffer> {
  return new Uint8Array(Buffer.concat(pieces));
}

function methodsOf(boxes: SessionCrypto): SessionCrypto {
  return {
    generateKeyPair: () => boxes.generateKeyPair(),
    sessionKey: (theirs, ours, password) => boxes.sessionKey(theirs, ours, password),
    seal: (message, nonce, key) => boxes.seal(message, nonce, key),
    open: (box, nonce, key) => boxes.open(box, nonce, key),
  };
}

function octetsOf(item: { hex?: string; frame?: string }): Uint8Array {
  return Uint8Array.fromHex(item.hex ?? item.frame!);
}

function messageOf(item: { plaintext?: string; frame?: string }): Uint8Array {
  return Uint8Array.fromHex(item.plaintext ?? item.frame!.slice(8));
}

function readJson(file: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${file}`));
}
