/** The data plane against the vectors and recordings of Weave Net: every packet read, and made again octet for octet. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { PacketRouter, type SentPacket } from "../../test/packet_router.ts";
import { CLASS_DF, CLASS_PLAIN } from "../datapath/packet_builder.ts";
import type { PeerRoutes } from "../datapath/tables.ts";
import type { PeerName } from "../lib/mac.ts";

const ALPHA = 0x02aa_0000_0001 as PeerName;
const BETA = 0x02bb_0000_0002 as PeerName;
const GAMMA = 0x02cc_0000_0003 as PeerName;
const NAMES: Readonly<Record<string, PeerName>> = { 1: ALPHA, 2: BETA, 3: GAMMA };

/** A packet as the vectors have it; a large one by its beginning and hash. */
interface Packet {
  readonly packet?: string;
  readonly packet_len?: number;
  readonly packet_prefix?: string;
  readonly packet_sha256?: string;
  readonly seq?: number;
  readonly note: string;
  readonly frames: readonly {
    readonly src: string;
    readonly dst: string;
    readonly len: number;
    readonly frame: string;
  }[];
}

interface RecordedFrame {
  readonly src: string;
  readonly dst: string;
  readonly len: number;
  readonly kind: string;
  readonly uid?: string;
  readonly mtu?: number;
  readonly frame?: string;
}
interface RecordedPacket {
  readonly t: number;
  readonly what?: string;
  readonly dir?: string;
  readonly df: boolean;
  readonly df_bit?: number;
  readonly seq?: string;
  readonly payload?: string;
  readonly payload_len?: number;
  readonly payload_prefix?: string;
  readonly payload_sha256?: string;
  readonly frames: readonly RecordedFrame[];
}
interface Recording {
  readonly setting: { readonly keys?: { readonly session_key: string } };
  readonly packets: readonly RecordedPacket[];
}

// ── Computed vectors ──────────────────────────────────────────────────────────────────────────────────────────────────────────

Deno.test("packets in clear are those of the vectors, made and read", async () => {
  const { packets } = vector<{ packets: readonly Packet[] }>("sleeve-plain");
  assert.equal(packets.length, 6);
  for (const p of packets) await checkPacket(p, {});
});

for (const webAssembly of [false, true]) {
  Deno.test(`sealed packets of the vectors are opened, WebAssembly: ${webAssembly}`, async () => {
    const { key, streams } = vector<{
      key: string;
      streams: readonly { df: boolean; sender_is_outbound: boolean; packets: readonly Packet[] }[];
    }>("sleeve-encrypted");
    assert.equal(streams.length, 4);
    for (const { df, sender_is_outbound, packets } of streams) {
      for (const p of packets) {
        await checkPacket(p, { key: Uint8Array.fromHex(key), df, outbound: sender_is_outbound, webAssembly });
      }
    }
  });
}

interface Sealing {
  readonly key?: Uint8Array;
  readonly df?: boolean;
  /** Of the sender. */
  readonly outbound?: boolean;
  readonly webAssembly?: boolean;
}

/** Makes a packet as the sender, and reads it as the receiver. */
async function checkPacket(
  p: Packet,
  { key, df = true, outbound = true, webAssembly = false }: Sealing,
): Promise<void> {
  const path = { mtu: 65535, maxPayload: 65507, ...(key ? { key } : {}) };
  const alpha = await PacketRouter.open({
    name: ALPHA,
    webAssembly,
    connections: [{ peer: BETA, outbound, ...path }],
    routes: routesOf(ALPHA),
  });
  let octets: Uint8Array | undefined = p.packet === undefined ? undefined : Uint8Array.fromHex(p.packet);
  if (p.frames.length > 0) { // we never send a packet without
    const packetClass = df ? CLASS_DF : CLASS_PLAIN;
    alpha.sequences[packetClass] = p.seq ?? 0;
    for (const f of p.frames) addFrame(alpha, packetClass, { ...f, frame: frameOf(f) });
    const [sent, ...more] = alpha.takeSent();
    assert.deepEqual(more, []);
    assert.equal(sent!.df, df);
    if (octets) assert.equal(sent!.octets.toHex(), p.packet, p.note);
    else checkLarge(sent!.octets, p.packet_len!, p.packet_prefix!, p.packet_sha256!);
    octets = sent!.octets;
  }
  const beta = await PacketRouter.open({
    name: BETA,
    webAssembly,
    connections: [{ peer: ALPHA, outbound: !outbound, ...path }],
    routes: routesOf(BETA),
  });
  beta.receive(octets!);
  const frames = p.frames.map(frameOf);
  assert.deepEqual(beta.takeInjected(), frames.filter((f) => !isSpecial(f)), p.note);
  assert.deepEqual(beta.specials.map((s) => s.octets), frames.filter(isSpecial), p.note);
  assert.deepEqual(beta.drops(), {}, p.note);
}

Deno.test("frames above the path MTU are cut as in the vectors, and those that fit are not", async () => {
  interface Case {
    readonly frame: string;
    readonly overlay_mtu: number;
    readonly too_big: boolean;
    readonly fragments: readonly string[] | null;
    readonly note: string;
  }
  const { cases } = vector<{ cases: readonly Case[] }>("sleeve-fragment");
  for (const c of cases) {
    const path = { mtu: c.overlay_mtu, maxPayload: c.overlay_mtu + 34, stackFragments: false };
    const alpha = await PacketRouter.open({
      name: ALPHA,
      connections: [{ peer: BETA, ...path }],
      routes: routesOf(ALPHA),
    });
    alpha.capture(Uint8Array.fromHex(c.frame));
    const sent = alpha.takeSent();
    assert.equal(sent.every((s) => s.df && s.octets.length <= path.maxPayload), true, c.note);
    const beta = await PacketRouter.open({ name: BETA, connections: [{ peer: ALPHA }], routes: routesOf(BETA) });
    for (const s of sent) beta.receive(s.octets);
    assert.deepEqual(beta.takeInjected().map((f) => f.toHex()), c.fragments ?? [c.frame], c.note);
    assert.equal(alpha.total("fragmentedFrames"), c.too_big ? 1 : 0);
  }
});

Deno.test("senders of frames above the path MTU are answered as in the vectors, here and over a relay", async () => {
  interface Case {
    readonly offending_frame_first_42: string;
    readonly offending_frame_len: number;
    readonly overlay_mtu: number;
    readonly reply_frame: string;
  }
  const { cases } = vector<{ cases: readonly Case[] }>("sleeve-icmp");
  assert.equal(cases.length, 3);
  for (const c of cases) {
    const frame = new Uint8Array(c.offending_frame_len);
    frame.set(Uint8Array.fromHex(c.offending_frame_first_42));
    const narrow = { mtu: c.overlay_mtu, maxPayload: c.overlay_mtu + 34 };
    const back = new Uint8Array(60);
    back.set([...frame.subarray(6, 12), ...frame.subarray(0, 6), 0x08, 0x06]);
    const beta = await PacketRouter.open({
      name: BETA,
      connections: [{ peer: GAMMA, ...narrow }, { peer: ALPHA }],
      routes: [
        { name: BETA, unicastSlot: -1, broadcastSlots: [0] },
        { name: GAMMA, unicastSlot: 0, broadcastSlots: [] },
        { name: ALPHA, unicastSlot: 1, broadcastSlots: [] },
      ],
    });
    // Captured here, for an address that is known to be at gamma.
    beta.receive(packetOf(GAMMA, GAMMA, BETA, back));
    beta.takeInjected();
    beta.capture(frame);
    assert.deepEqual(beta.takeSent(), []);
    assert.deepEqual(beta.takeInjected().map((f) => f.toHex()), [c.reply_frame]);
    // From alpha, for gamma: the answer goes back as if from gamma.
    beta.receive(packetOf(ALPHA, ALPHA, GAMMA, frame));
    const [answer, ...more] = beta.takeSent();
    assert.deepEqual(more, []);
    assert.equal(answer!.slot, 1);
    assert.deepEqual(answer!.octets, packetOf(BETA, GAMMA, ALPHA, Uint8Array.fromHex(c.reply_frame)));
    assert.equal(beta.total("icmpSent"), 2);
  }
});

// ── Recorded sessions ─────────────────────────────────────────────────────────────────────────────────────────────────────────

for (const session of ["plain", "encrypted", "nofrag", "relay"]) {
  const recording = vector<Recording>(`recorded-sleeve-${session}`);
  const packets = recording.packets.filter((p) => p.dir !== undefined);
  const key = recording.setting.keys && Uint8Array.fromHex(recording.setting.keys.session_key);

  Deno.test(`every packet of the recorded session "${session}" is made again`, async () => {
    for (const [dir, list] of byDirection(packets)) {
      const [from, to] = dir.split("->").map((n) => NAMES[n]!);
      const sender = await openSender(from!, to!, key);
      for (const p of list) checkRecorded(remake(sender, p), p);
    }
  });

  Deno.test(`every packet of the recorded session "${session}" is read, in its order`, async () => {
    for (const [dir, list] of byDirection(packets)) {
      const [from, to] = dir.split("->").map((n) => NAMES[n]!);
      const router = await PacketRouter.open({
        name: to!,
        // Frames for others go on by another connection than the one they came by.
        connections: [
          { peer: from!, outbound: to === BETA, ...(key ? { key } : {}) },
          { peer: [ALPHA, BETA, GAMMA].find((n) => n !== from && n !== to)! },
        ],
        routes: [
          { name: to!, unicastSlot: -1, broadcastSlots: [0, 1] },
          { name: from!, unicastSlot: 0, broadcastSlots: [] },
          { name: [ALPHA, BETA, GAMMA].find((n) => n !== from && n !== to)!, unicastSlot: 1, broadcastSlots: [] },
        ],
      });
      // Large ones are recorded by their beginning and hash alone.
      const sender = await openSender(from!, to!, key);
      const whole = list.map((p) => p.payload ? Uint8Array.fromHex(p.payload) : remake(sender, p));
      for (const [i, p] of list.entries()) {
        router.receive(whole[i]!);
        for (const f of p.frames) {
          const octets = recordedFrame(p, f);
          const isForUs = nameOf(f.dst) === to;
          if (f.kind !== "ethernet") assert.deepEqual(router.specials.shift()?.octets, octets);
          else if (isForUs) assert.deepEqual(router.takeInjected(), [octets]);
          else assert.equal(router.takeSent().length, 1);
        }
        assert.deepEqual([router.specials, router.takeInjected(), router.takeSent()], [[], [], []]);
      }
      assert.deepEqual(router.drops(), {});
      if (!key) continue;
      for (const packet of whole) router.receive(packet);
      assert.deepEqual(router.drops(), { replayed: list.length });
      assert.deepEqual([router.specials, router.takeInjected()], [[], []]);
    }
  });
}

Deno.test("the recorded frames that a container sends leave in the class and the packets they left in then", async () => {
  for (const session of ["plain", "encrypted", "nofrag"]) {
    const recording = vector<Recording>(`recorded-sleeve-${session}`);
    const key = recording.setting.keys && Uint8Array.fromHex(recording.setting.keys.session_key);
    const router = await PacketRouter.open({
      name: ALPHA,
      connections: [{ peer: BETA, outbound: false, stackFragments: session !== "nofrag", ...(key ? { key } : {}) }],
      routes: routesOf(ALPHA),
    });
    const list = recording.packets.filter((p) => p.dir === "1->2" && p.frames[0]!.kind === "ethernet");
    assert.ok(list.length >= 3);
    const sent: SentPacket[] = [];
    let captured: Uint8Array | undefined;
    for (const p of list) {
      const frame = recordedFrame(p, p.frames[0]!);
      router.sequences.set(sequencesBefore(recording, p));
      // What the router cut is put together again, as it must have come from the container.
      captured = session === "nofrag" && frame.length > 60 ? joinFragments(captured, frame) : frame;
      if (session === "nofrag" && isMoreToCome(frame)) continue;
      router.capture(captured);
      sent.push(...router.takeSent());
      captured = undefined;
    }
    assert.deepEqual(sent.map((s) => s.octets.toHex()), list.map((p) => p.payload), session);
    assert.deepEqual(sent.map((s) => s.df), list.map((p) => p.df), session);
  }
});

Deno.test("a router in the middle passes on what the recorded one did", async () => {
  const { packets } = vector<Recording>("recorded-sleeve-relay");
  const beta = await PacketRouter.open({
    name: BETA,
    connections: [{ peer: ALPHA, outbound: false }, { peer: GAMMA, outbound: false }],
    routes: [
      { name: ALPHA, unicastSlot: 0, broadcastSlots: [1] },
      { name: BETA, unicastSlot: -1, broadcastSlots: [0, 1] },
      { name: GAMMA, unicastSlot: 1, broadcastSlots: [0] },
    ],
  });
  const slotOf: Readonly<Record<string, number>> = { "2->1": 0, "2->3": 1 };
  const ethernet = packets.filter((p) => p.dir !== undefined && p.frames[0]!.kind === "ethernet");
  const expected = ethernet.filter((p) => p.dir! in slotOf);
  const sent: SentPacket[] = [];
  for (const p of ethernet.filter((p) => !(p.dir! in slotOf))) {
    beta.receive(Uint8Array.fromHex(p.payload!));
    sent.push(...beta.takeSent());
  }
  assert.equal(expected.length, 6);
  assert.deepEqual(
    sent.map((s) => [s.slot, s.df, s.octets.toHex()]),
    expected.map((p) => [slotOf[p.dir!], p.df, p.payload]),
  );
  // The broadcast reached its own containers too, the others did not.
  assert.equal(beta.takeInjected().length, 1);
});

// ── Helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

function vector<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../../test/fixtures/vectors/${name}.json`, import.meta.url)));
}

/** Everybody else is behind the one connection. */
function routesOf(us: PeerName): PeerRoutes[] {
  return [ALPHA, BETA, GAMMA].map((name) => ({
    name,
    unicastSlot: name === us ? -1 : 0,
    broadcastSlots: name === us ? [0] : [],
  }));
}

function nameOf(text: string): PeerName {
  return parseInt(text.replaceAll(":", ""), 16) as PeerName;
}

/** A packet in clear with one frame. */
function packetOf(sender: PeerName, source: PeerName, destination: PeerName, frame: Uint8Array): Uint8Array {
  const text = [sender, source, destination].map((name) => name.toString(16).padStart(12, "0")).join("") +
    frame.length.toString(16).padStart(4, "0") + frame.toHex();
  return Uint8Array.fromHex(text);
}

function frameOf(f: Packet["frames"][number]): Uint8Array {
  return f.frame.endsWith("zero bytes") ? new Uint8Array(f.len) : Uint8Array.fromHex(f.frame);
}

function isSpecial(frame: Uint8Array): boolean {
  return frame.subarray(0, 14).every((octet) => octet === 0);
}

function addFrame(
  router: PacketRouter,
  packetClass: number,
  f: { readonly src: string; readonly dst: string; readonly frame: Uint8Array },
): void {
  if (isSpecial(f.frame)) {
    const view = new DataView(f.frame.buffer, f.frame.byteOffset);
    const [high, low] = f.frame.length === 22 ? [view.getUint32(14), view.getUint32(18)] : [0, 0];
    return router.builder.addSpecial(0, packetClass, f.frame.length, high, low);
  }
  const at = router.memory.take(f.frame.length + 64) + 32;
  router.memory.frames.u8.set(f.frame, at);
  router.builder.add(0, packetClass, router.peer(nameOf(f.src)), router.peer(nameOf(f.dst)), at, f.frame.length);
}

function checkLarge(octets: Uint8Array, length: number, prefix: string, hash: string): void {
  assert.equal(octets.length, length);
  assert.equal(octets.subarray(0, prefix.length / 2).toHex(), prefix);
  assert.equal(createHash("sha256").update(octets).digest("hex"), hash);
}

function checkRecorded(octets: Uint8Array, p: RecordedPacket): void {
  if (p.payload) assert.equal(octets.toHex(), p.payload, `at ${p.t} s`);
  else checkLarge(octets, p.payload_len!, p.payload_prefix!, p.payload_sha256!);
}

function byDirection(packets: readonly RecordedPacket[]): Map<string, RecordedPacket[]> {
  return Map.groupBy(packets, (p) => p.dir!);
}

/** The octets of a frame: given where the packet is sealed, and read off the packet where it is not; one frame a packet there. */
function recordedFrame(p: RecordedPacket, f: RecordedFrame): Uint8Array {
  if (f.frame) return Uint8Array.fromHex(f.frame);
  const frame = new Uint8Array(f.len);
  if (f.uid) new DataView(frame.buffer).setBigUint64(14, BigInt(f.uid));
  if (f.kind !== "ethernet") return frame;
  assert.equal(p.frames.length, 1);
  return Uint8Array.fromHex(p.payload!.slice(40));
}

/** The sender of a recorded direction, on a path where everything fits. */
function openSender(from: PeerName, to: PeerName, key: Uint8Array | undefined): Promise<PacketRouter> {
  return PacketRouter.open({
    name: from,
    connections: [{ peer: to, outbound: from === BETA, mtu: 65535, maxPayload: 65507, ...(key ? { key } : {}) }],
    routes: routesOf(from),
  });
}

/** Makes a recorded packet anew. */
function remake(sender: PacketRouter, p: RecordedPacket): Uint8Array {
  const packetClass = p.df ? CLASS_DF : CLASS_PLAIN;
  sender.sequences[packetClass] = Number(p.seq ?? 0);
  for (const f of p.frames) addFrame(sender, packetClass, { ...f, frame: recordedFrame(p, f) });
  const [sent, ...more] = sender.takeSent();
  assert.deepEqual(more, []);
  return sent!.octets;
}

/** Sequence numbers of connection 0 when a recorded packet was about to leave. */
function sequencesBefore(recording: Recording, p: RecordedPacket): number[] {
  if (p.seq === undefined) return [0, 0];
  const last = (df: boolean) =>
    recording.packets.findLast((other) => other.dir === p.dir && other.df === df && other.t < p.t)?.seq ?? "-1";
  return [Number(last(false)) + 1, Number(last(true)) + 1].map((n, i) => i === (p.df ? 1 : 0) ? Number(p.seq) : n);
}

/** IPv4: whether fragments follow. */
function isMoreToCome(frame: Uint8Array): boolean {
  return frame[12] === 8 && frame[13] === 0 && (frame[20]! & 0x20) !== 0;
}

function joinFragments(before: Uint8Array | undefined, frame: Uint8Array): Uint8Array {
  if (before === undefined) return frame;
  const whole = new Uint8Array([...before, ...frame.subarray(34)]);
  const view = new DataView(whole.buffer);
  view.setUint16(16, whole.length - 14);
  view.setUint16(20, 0);
  view.setUint16(24, 0);
  let sum = 0;
  for (let at = 14; at < 34; at += 2) sum += view.getUint16(at);
  sum = (sum & 0xffff) + (sum >>> 16);
  view.setUint16(24, ~((sum & 0xffff) + (sum >>> 16)));
  return whole;
}
