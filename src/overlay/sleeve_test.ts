import assert from "node:assert/strict";
import type { Endpoint } from "../lib/ip.ts";
import { SeededRandom } from "../lib/random.ts";
import type { Instant } from "../lib/time.ts";
import { Sleeve, type SleeveOptions, type SleeveOutput } from "./sleeve.ts";

const SECOND = 1_000, MINUTE = 60_000;
const UID = 0xcb35_639f_bed3_88c9n;
const A: Endpoint = { address: 0xc613_0701, port: 6783 };
const B: Endpoint = { address: 0xc613_0702, port: 6783 };
const ELSEWHERE: Endpoint = { address: 0xc613_0702, port: 40000 };

for (const encrypted of [false, true]) {
  Deno.test(`two routers establish sleeve with each other, encrypted: ${encrypted}`, () => {
    const pair = new Pair({ encrypted });
    pair.run(SECOND);
    for (const side of [pair.a, pair.b]) {
      assert.deepEqual(side.sleeve.state, {
        confirmed: true,
        established: true,
        remote: side === pair.a ? B : A,
        mtu: encrypted ? 1414 : 1438,
        maxPayload: 1472,
        stackFragments: true,
      });
      assert.deepEqual(side.events, ["established"]);
    }
    assert.deepEqual(pair.a.specials(), ["heartbeat", "frag test", "probe 59986", pair.probe]);
    assert.deepEqual(pair.b.specials(), ["heartbeat", "frag test", "probe 59986", pair.probe]);
    assert.deepEqual(pair.a.controls(), ["1", "2", `3 ${encrypted ? 1414 : 1438}`]);
  });
}

Deno.test("handleConfirmed() has the datapath told before the first heartbeat is sent", () => {
  const sleeve = new Sleeve(OUTBOUND);
  assert.deepEqual(drain(sleeve), []);
  assert.equal(sleeve.pollTimeout(), undefined);
  sleeve.handleConfirmed(0);
  assert.deepEqual(drain(sleeve), [{ type: "changed" }, { type: "special", frameOctets: 22, df: true, uid: UID }]);
  assert.equal(sleeve.state.confirmed, true);
  sleeve.handleConfirmed(1);
  assert.deepEqual(drain(sleeve), []);
});

Deno.test("the accepting side is silent until it has heard where the other is", () => {
  const sleeve = new Sleeve({ ...OUTBOUND, outbound: false });
  sleeve.handleConfirmed(0);
  runFor(sleeve, 0, 3 * SECOND);
  assert.deepEqual(drain(sleeve), [{ type: "changed" }]);
  assert.equal(sleeve.state.remote, undefined);
  sleeve.handleHeartbeat(UID, B, 3 * SECOND);
  assert.deepEqual(drain(sleeve), [
    { type: "changed" },
    { type: "special", frameOctets: 22, df: true, uid: UID },
    { type: "control", subTag: 1, payload: new Uint8Array() },
  ]);
  assert.deepEqual(sleeve.state.remote, B);
});

for (const [fast, interval, limit] of [[false, 10, 60], [true, 1, 10]] as const) {
  Deno.test(`heartbeats go twice a second until one was heard, then every ${interval} s`, () => {
    const sleeve = new Sleeve({ ...OUTBOUND, fast });
    sleeve.handleConfirmed(0);
    const times = heartbeatTimes(sleeve, 0, 2_200);
    assert.deepEqual(times, [0, 500, 1000, 1500, 2000]);
    sleeve.handleControl(1, new Uint8Array(), 2_200);
    assert.deepEqual(
      heartbeatTimes(sleeve, 2_200, 9_900),
      fast ? [3_200, 4_200, 5_200, 6_200, 7_200, 8_200, 9_200] : [],
    );
  });

  Deno.test(`an established connection fails ${limit} s after the last heartbeat, fast: ${fast}`, () => {
    const pair = new Pair({ fast });
    pair.run(MINUTE);
    assert.deepEqual(pair.a.events, ["established"]);
    pair.wire = false;
    const cut = pair.now;
    pair.run(2 * limit * SECOND, () => pair.a.events.length > 1 && pair.b.events.length > 1);
    const failed = "failed: timed out waiting for UDP heartbeat";
    assert.deepEqual([pair.a.events, pair.b.events], [["established", failed], ["established", failed]]);
    assert.ok(pair.now - cut <= limit * SECOND && pair.now - cut > (limit - interval) * SECOND - 100);
  });

  Deno.test(`without any heartbeat it fails after a minute, fast: ${fast}`, () => {
    const sleeve = new Sleeve({ ...OUTBOUND, fast });
    sleeve.handleConfirmed(0);
    runFor(sleeve, 0, MINUTE - 1);
    assert.ok(!drain(sleeve).some((o) => o.type === "failed"));
    runFor(sleeve, MINUTE - 1, 1);
    assert.deepEqual(drain(sleeve), [{ type: "failed", reason: "timed out waiting for UDP heartbeat" }]);
    // Nothing follows, whatever comes.
    assert.equal(sleeve.pollTimeout(), undefined);
    sleeve.handleHeartbeat(UID, B, MINUTE);
    sleeve.handleControl(1, new Uint8Array(), MINUTE);
    sleeve.handleProbe(1438, MINUTE);
    sleeve.handleTooBig(1500, MINUTE);
    sleeve.handleTimeout(10 * MINUTE);
    assert.deepEqual(drain(sleeve), []);
    assert.deepEqual([sleeve.state.confirmed, sleeve.state.established], [false, false]);
  });
}

Deno.test("heartbeats with another uid neither count nor move the address", () => {
  const sleeve = new Sleeve({ ...OUTBOUND, outbound: false });
  sleeve.handleConfirmed(0);
  for (let at = 0; at < MINUTE; at += SECOND) sleeve.handleHeartbeat(UID + 1n, ELSEWHERE, at);
  runFor(sleeve, 0, MINUTE);
  assert.deepEqual(drain(sleeve).map((o) => o.type), ["changed", "failed"]);
});

Deno.test("a heartbeat from elsewhere moves the address, and the path is looked at again", () => {
  const pair = new Pair({});
  pair.run(35 * SECOND); // between two heartbeats
  const before = pair.b.specials().length;
  pair.b.sleeve.handleHeartbeat(UID, ELSEWHERE, pair.now);
  const first = pair.b.sleeve.poll();
  assert.deepEqual(first, { type: "changed" });
  assert.deepEqual(pair.b.sleeve.state.remote, ELSEWHERE);
  pair.run(100);
  assert.deepEqual(pair.b.specials().slice(before), ["probe 59986", "probe 1438"]);
  assert.equal(pair.b.sleeve.state.mtu, 1438);
  // An address that goes to and fro does not make it send and send.
  for (let i = 0; i < 100; i++) {
    pair.b.sleeve.handleHeartbeat(UID, i % 2 ? A : ELSEWHERE, pair.now);
    pair.run(10);
  }
  assert.ok(pair.b.specials().length - before <= 4, pair.b.specials().slice(before).join());
});

Deno.test("only the first heartbeat is acknowledged", () => {
  const pair = new Pair({});
  pair.run(5 * MINUTE - 1);
  assert.equal(pair.b.controls().filter((c) => c === "1").length, 1);
});

Deno.test("acknowledging again and again starts nothing anew", () => {
  const pair = new Pair({});
  pair.run(SECOND);
  const before = pair.a.specials().length;
  for (let i = 0; i < 100; i++) pair.a.sleeve.handleControl(1, new Uint8Array(), pair.now);
  pair.run(SECOND);
  assert.equal(pair.a.specials().length, before);
  assert.deepEqual(pair.a.events, ["established"]);
});

Deno.test("an acknowledgement of a heartbeat that was never sent is ignored", () => {
  const sleeve = new Sleeve({ ...OUTBOUND, outbound: false });
  sleeve.handleControl(1, new Uint8Array(), 0);
  sleeve.handleConfirmed(0);
  sleeve.handleControl(1, new Uint8Array(), 0);
  assert.equal(sleeve.state.established, false);
});

Deno.test("the stack is trusted with fragments once a test has come back, and as long as one does", () => {
  const pair = new Pair({});
  pair.fragments = false;
  pair.run(20 * SECOND);
  assert.equal(pair.a.sleeve.state.stackFragments, false);
  const tests = () => pair.a.specials().filter((s) => s === "frag test").length;
  assert.equal(tests(), 3, "a test may be lost");
  pair.fragments = true;
  pair.run(5 * MINUTE);
  assert.equal(pair.a.sleeve.state.stackFragments, true);
  assert.equal(tests(), 4);
  // While it is tested again it stays trusted: frames must not change their class for that.
  let changes = 0;
  pair.run(6 * MINUTE, () => {
    if (!pair.a.sleeve.state.stackFragments) changes++;
    return false;
  });
  assert.deepEqual([tests(), changes], [5, 0]);
  pair.fragments = false;
  pair.run(5 * MINUTE);
  assert.equal(pair.a.sleeve.state.stackFragments, false);
});

Deno.test("on a path that becomes narrower the stack is trusted only after another test", () => {
  for (const fragments of [true, false]) {
    const pair = new Pair({});
    pair.run(MINUTE);
    assert.equal(pair.a.sleeve.state.stackFragments, true);
    const trusted: [number, boolean][] = [];
    pair.a.onChanged = () => trusted.push([pair.a.sleeve.state.mtu, pair.a.sleeve.state.stackFragments]);
    pair.passes = 1200;
    pair.fragments = fragments;
    pair.run(2 * MINUTE);
    assert.deepEqual([trusted[0]![1], trusted.at(-1)], [false, [1200, fragments]]);
    assert.ok(trusted[0]![0] <= 1200);
  }
});

Deno.test("tests and probes of the peer are answered once the connection is confirmed", () => {
  const sleeve = new Sleeve(OUTBOUND);
  sleeve.handleFragmentationTest(0);
  sleeve.handleProbe(1438, 0);
  assert.deepEqual(drain(sleeve), []);
  sleeve.handleConfirmed(0);
  drain(sleeve);
  sleeve.handleFragmentationTest(0);
  sleeve.handleProbe(1438, 0);
  sleeve.handleProbe(59986, 0);
  assert.deepEqual(drain(sleeve), [
    { type: "control", subTag: 2, payload: new Uint8Array() },
    { type: "control", subTag: 3, payload: Uint8Array.of(0x05, 0x9e) },
    { type: "control", subTag: 3, payload: Uint8Array.of(0xea, 0x52) },
  ]);
});

Deno.test("the datapath is told of each change of the path MTU, and of nothing else", () => {
  const pair = new Pair({});
  const published: number[] = [];
  pair.a.onChanged = () => published.push(pair.a.sleeve.state.mtu);
  pair.run(MINUTE);
  assert.deepEqual([...new Set(published)], [65535, 1438]);
  const before = published.length;
  pair.run(4 * MINUTE);
  assert.equal(published.length, before);
  pair.kernel = 1300;
  pair.a.sleeve.handleTooBig(1300, pair.now);
  pair.run(SECOND);
  // Once for the path, and once when the stack is trusted again.
  assert.deepEqual(published.slice(before), [1238, 1238]);
});

Deno.test("an established connection is looked after: a wider and a narrower path are found", () => {
  const pair = new Pair({});
  pair.run(MINUTE);
  pair.passes = 1200;
  pair.run(90 * SECOND);
  assert.equal(pair.a.sleeve.state.mtu, 1200);
  pair.passes = Infinity;
  pair.run(6 * MINUTE);
  assert.equal(pair.a.sleeve.state.mtu, 1438);
  assert.equal(pair.a.sleeve.state.maxPayload, 1472);
});

Deno.test("early and repeated timeouts do nothing", () => {
  const sleeve = new Sleeve(OUTBOUND);
  sleeve.handleTimeout(0);
  sleeve.handleConfirmed(0);
  drain(sleeve);
  for (let i = 0; i < 5; i++) sleeve.handleTimeout(499);
  assert.deepEqual(drain(sleeve), []);
  assert.match(sleeve.pollTimeout()!.why, /^sleeve heartbeat$/);
});

Deno.test("whatever a peer says, nothing throws, and it makes us send no more than we would", () => {
  const random = new SeededRandom(7);
  const pair = new Pair({});
  pair.run(SECOND);
  const before = pair.a.sent.length;
  for (let i = 0; i < 20_000; i++) {
    const payload = Uint8Array.from({ length: random.below(5) }, () => random.below(256));
    pair.a.sleeve.handleControl(random.below(6), payload, pair.now);
    if (i % 100 === 0) pair.run(1);
  }
  pair.run(SECOND);
  assert.ok(pair.a.sent.length - before < 20, `${pair.a.sent.length - before}`);
});

// ── Recorded conversations ────────────────────────────────────────────────────────────────────────────────────────────────────

interface RecordedControl {
  readonly t: number;
  readonly dir?: string;
  readonly conn?: number;
  readonly decoded?: { readonly kind: string; readonly sub_tag?: number; readonly mtu?: number };
}
interface RecordedPacket {
  readonly t: number;
  readonly dir?: string;
  readonly frames?: readonly { readonly kind: string; readonly uid?: string; readonly mtu?: number }[];
}

for (const session of ["plain", "encrypted", "nofrag", "relay"]) {
  const { transcript } = vector<{ transcript: readonly RecordedControl[] }>(`recorded-tcp-${session}`);
  const { packets } = vector<{ packets: readonly RecordedPacket[] }>(`recorded-sleeve-${session}`);
  const ways = new Set(packets.flatMap((p) => p.dir ?? []));
  for (const ours of ways) {
    Deno.test(`the recorded conversation "${session}" ${ours} goes as it went`, () => {
      playRecording({ ours, theirs: ours.split("->").reverse().join("->"), transcript, packets, session });
    });
  }
}

/** Feeds one router's side what the other sent, when it did, and compares what it says with what it said then. */
function playRecording(
  r: {
    ours: string;
    theirs: string;
    session: string;
    transcript: readonly RecordedControl[];
    packets: readonly RecordedPacket[];
  },
): void {
  interface Item {
    readonly at: Instant;
    readonly text: string;
    readonly uid?: string;
  }
  const itemsOf = (dir: string): Item[] => {
    const controls = r.transcript.filter((i) => i.dir === dir && i.decoded?.kind === "overlay control").map((i) => ({
      at: i.t * 1000,
      text: i.decoded!.sub_tag === 3 ? `control 3 ${i.decoded!.mtu}` : `control ${i.decoded!.sub_tag}`,
    }));
    const specials = r.packets.filter((p) => p.dir === dir && p.frames![0]!.kind !== "ethernet").map((p) => {
      const { kind, uid, mtu } = p.frames![0]!;
      return { at: p.t * 1000, text: kind === "PMTU probe" ? `probe ${mtu}` : kind, ...uid ? { uid } : {} };
    });
    return [...controls, ...specials].sort((a, b) => a.at - b.at);
  };
  const expected = itemsOf(r.ours), incoming = itemsOf(r.theirs);
  const uid = BigInt(expected.find((i) => i.uid)!.uid!);
  // Who made the TCP connection is who said something over UDP first.
  const outbound = expected.find((i) => i.uid)!.at < incoming.find((i) => i.uid)!.at;
  const sleeve = new Sleeve({ ...OUTBOUND, uid, outbound, encrypted: r.session === "encrypted" });
  const said: { at: Instant; text: string }[] = [];
  const take = (now: Instant) => {
    for (const o of drain(sleeve)) {
      if (o.type === "special" && o.frameOctets === 60000) sleeve.handleTooBig(1500, now);
      else if (o.type === "special" || o.type === "control") said.push({ at: now, text: textOf(o) });
      if (o.type === "special" && o.frameOctets === 22) assert.equal(o.uid, uid);
    }
  };
  const runTo = (end: Instant) => {
    for (let due = sleeve.pollTimeout(); due && due.at <= end; due = sleeve.pollTimeout()) {
      sleeve.handleTimeout(due.at);
      take(due.at);
    }
  };
  sleeve.handleConfirmed(outbound ? expected.find((i) => i.uid)!.at : incoming.find((i) => i.uid)!.at);
  take(0);
  for (const { at, text } of incoming) {
    runTo(at);
    const [kind, , value] = text.split(" ");
    if (text === "heartbeat") sleeve.handleHeartbeat(uid, B, at);
    else if (text === "frag test") {
      // It was seen on its way; in this session fragments were lost after that.
      if (r.session !== "nofrag") sleeve.handleFragmentationTest(at);
    } else if (kind === "probe") sleeve.handleProbe(Number(text.slice(6)), at);
    else if (text.startsWith("control 3")) {
      sleeve.handleControl(3, Uint8Array.of(Number(value) >>> 8, Number(value)), at);
    } else sleeve.handleControl(Number(text.slice(8)), new Uint8Array(), at);
    take(at);
  }
  // How often a probe, heartbeat or test is repeated depends on when things arrived.
  const distinct = (list: readonly { text: string }[]) => [...new Set(list.map((i) => i.text))].sort();
  assert.deepEqual(distinct(said), distinct(expected));
  const slow = (list: readonly { at: Instant; text: string }[]) =>
    list.filter((i) => i.text === "heartbeat").map((i) => i.at).filter((at, i, all) =>
      i > 0 && at - all[i - 1]! > 9_000
    );
  assert.ok(Math.abs(slow(said).length - slow(expected).length) <= 1);
  for (const control of ["control 1", "control 2"]) {
    const times = (list: readonly { at: Instant; text: string }[]) => list.filter((i) => i.text === control).length;
    assert.equal(times(said), times(expected), control);
  }
  assert.equal(sleeve.state.mtu, r.session === "encrypted" ? 1414 : 1438);
  assert.equal(sleeve.state.stackFragments, r.session !== "nofrag");
}

function vector<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../../test/fixtures/vectors/${name}.json`, import.meta.url)));
}

// ── Two routers and a wire ────────────────────────────────────────────────────────────────────────────────────────────────────

const OUTBOUND: SleeveOptions = { uid: UID, outbound: true, remote: B, encrypted: false, fast: false };
const LATENCY_MS = 1;

class Side {
  readonly sleeve: Sleeve;
  readonly sent: string[] = [];
  readonly events: string[] = [];
  onChanged = () => {};

  constructor(readonly address: Endpoint, options: SleeveOptions) {
    this.sleeve = new Sleeve(options);
  }

  specials(): string[] {
    return this.sent.filter((s) => !s.startsWith("control"));
  }

  controls(): string[] {
    return this.sent.filter((s) => s.startsWith("control")).map((s) => s.slice(8));
  }
}

class Pair {
  now = 0;
  /** Whether packets arrive, and fragmented ones. */
  wire = true;
  fragments = true;
  /** What the kernels take the path MTU to be, and the overlay MTU that passes. */
  kernel = 1500;
  passes = Infinity;
  readonly a: Side;
  readonly b: Side;
  readonly probe: string;
  readonly #overhead: number;
  readonly #arrivals: { at: Instant; deliver: () => void }[] = [];

  constructor(o: { encrypted?: boolean; fast?: boolean }) {
    const common = { uid: UID, encrypted: o.encrypted ?? false, fast: o.fast ?? false };
    this.a = new Side(A, { ...common, outbound: true, remote: B });
    this.b = new Side(B, { ...common, outbound: false, remote: { ...A, port: 55555 } });
    this.#overhead = o.encrypted ? 86 : 62;
    this.probe = `probe ${1500 - this.#overhead}`;
    this.a.sleeve.handleConfirmed(0);
    this.b.sleeve.handleConfirmed(0);
  }

  run(ms: number, until?: () => boolean): void {
    const end = this.now + ms;
    for (;;) {
      this.#drain(this.a, this.b);
      this.#drain(this.b, this.a);
      if (until?.()) return;
      const at = Math.min(
        ...[this.a, this.b].map((side) => side.sleeve.pollTimeout()?.at ?? Infinity),
        this.#arrivals[0]?.at ?? Infinity,
      );
      if (at > end) break;
      this.now = Math.max(this.now, at);
      while (this.#arrivals[0] && this.#arrivals[0].at <= this.now) this.#arrivals.shift()!.deliver();
      this.a.sleeve.handleTimeout(this.now);
      this.b.sleeve.handleTimeout(this.now);
    }
    this.now = end;
  }

  #drain(from: Side, to: Side): void {
    // What is carried out may make it say more.
    for (let o = from.sleeve.poll(); o !== undefined; o = from.sleeve.poll()) {
      if (o.type === "established") from.events.push("established");
      else if (o.type === "failed") from.events.push(`failed: ${o.reason}`);
      else if (o.type === "changed") from.onChanged();
      else {
        from.sent.push(textOf(o));
        this.#carry(o, from, to);
      }
    }
  }

  #carry(o: SleeveOutput, from: Side, to: Side): void {
    const arrive = (deliver: () => void) => this.#arrivals.push({ at: this.now + LATENCY_MS, deliver });
    if (o.type === "control") return void arrive(() => to.sleeve.handleControl(o.subTag, o.payload, this.now));
    if (o.type !== "special" || !from.sleeve.state.remote) return;
    const packet = o.frameOctets - 14 + this.#overhead;
    if (o.df && packet > this.kernel) return from.sleeve.handleTooBig(this.kernel, this.now);
    if (!this.wire || (o.df ? o.frameOctets - 14 > this.passes : !this.fragments)) return;
    arrive(() => {
      if (o.uid !== undefined) to.sleeve.handleHeartbeat(o.uid, from.address, this.now);
      else if (o.frameOctets === 60001) to.sleeve.handleFragmentationTest(this.now);
      else to.sleeve.handleProbe(o.frameOctets - 14, this.now);
    });
  }
}

function textOf(o: SleeveOutput): string {
  if (o.type === "control") {
    return o.subTag === 3 ? `control 3 ${o.payload[0]! << 8 | o.payload[1]!}` : `control ${o.subTag}`;
  }
  if (o.type !== "special") return o.type;
  if (o.uid !== undefined) return "heartbeat";
  return o.frameOctets === 60001 ? "frag test" : `probe ${o.frameOctets - 14}`;
}

function drain(sleeve: Sleeve): SleeveOutput[] {
  const outputs: SleeveOutput[] = [];
  for (let o = sleeve.poll(); o !== undefined; o = sleeve.poll()) outputs.push(o);
  return outputs;
}

function runFor(sleeve: Sleeve, now: Instant, ms: number): void {
  for (let due = sleeve.pollTimeout(); due && due.at <= now + ms; due = sleeve.pollTimeout()) {
    sleeve.handleTimeout(due.at);
  }
}

function heartbeatTimes(sleeve: Sleeve, now: Instant, end: Instant): Instant[] {
  const times: Instant[] = [];
  const take = (at: Instant) => times.push(...drain(sleeve).filter((o) => "uid" in o).map(() => at));
  take(now);
  for (let due = sleeve.pollTimeout(); due && due.at <= end; due = sleeve.pollTimeout()) {
    sleeve.handleTimeout(due.at);
    take(due.at);
  }
  return times;
}
