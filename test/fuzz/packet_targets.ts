/** The data plane: whatever a container or a peer sends, nothing breaks, and what leaves is well formed. */

import assert from "node:assert/strict";
import type { PeerRoutes } from "../../src/datapath/tables.ts";
import type { DropReason } from "../../src/datapath/counters.ts";
import { FrameMemory } from "../../src/lib/frame_memory.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import type { Random } from "../../src/lib/random.ts";
import { HEADER_LIMIT, SuperFrame } from "../../src/overlay/segment.ts";
import {
  type CapturedFrame,
  expectedSegments,
  randomTransport,
  type TransportFrame,
  transportFrame,
} from "../frames.ts";
import { type Neighbour, PacketRouter } from "../packet_router.ts";
import { joined, makeInput, pick, randomOctets } from "./inputs.ts";
import type { Target } from "./target.ts";

export const PACKET_TARGETS: readonly Target[] = [
  { name: "data plane", weight: 3, prepare: prepareDataPlane },
  { name: "segments on their way", weight: 3, prepare: prepareSegments },
];

const ALPHA = 0x02aa_0000_0001 as PeerName;
const BETA = 0x02bb_0000_0002 as PeerName;
const GAMMA = 0x02cc_0000_0003 as PeerName;
const DELTA = 0x02dd_0000_0004 as PeerName;
const STRANGER = 0x02ee_0000_0009 as PeerName;
const WIDE = { mtu: 65_535, maxPayload: 65_507 };
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i);

const EVERYBODY = "ffffffffffff", GROUP = "01005e000001", SPANNING_TREE = "0180c2000000", NOBODY = "000000000000";
const TCP_FIN = 0x01, TCP_PSH = 0x08;
const MACS = ["06000000000a", "06000000000b", "06000000000c", "06000000000d"];

// ── Everything at once ────────────────────────────────────────────────────────────────────────────────────────────────────────

/** What a peer must never have to say of a packet of ours. */
const OUR_FAULT: readonly DropReason[] = [
  "shortPacket",
  "unknownSender",
  "undecryptable",
  "replayed",
  "malformedPacket",
  "malformedFrame",
  "unknownSourcePeer",
  "unknownDestinationPeer",
];

/** Router beta, with alpha, who means ill, and gamma as neighbours; delta is behind gamma. */
async function prepareDataPlane() {
  const [alpha, beta, gamma] = await openThree();
  const kernel = new Kernel();
  return (random: Random) => {
    const sealed = random.below(2) === 0, wide = random.below(2) === 0;
    const neighbour = (peer: PeerName): Neighbour => ({ peer, ...(sealed ? { key: KEY } : {}), ...(wide ? WIDE : {}) });
    const accepted = (peer: PeerName): Neighbour => ({ ...neighbour(peer), outbound: false });
    alpha.restart({ name: ALPHA, connections: [neighbour(BETA)], routes: routesBy(ALPHA, () => 0) });
    gamma.restart({ name: GAMMA, connections: [neighbour(BETA)], routes: routesBy(GAMMA, () => 0) });
    beta.restart({
      name: BETA,
      connections: [accepted(ALPHA), accepted(GAMMA)],
      routes: routesBy(BETA, (name) => name === ALPHA ? 0 : 1),
    });
    const world = { alpha, beta, gamma, accepted, sealed, wide, kernel, earlier: [] };
    for (let n = 20 + random.below(100); n > 0; n--) step(random, world);
    beta.queueIsFull = false;
    deliver(world);
    for (const peer of [alpha, gamma]) {
      const drops = peer.drops();
      for (const reason of OUR_FAULT) assert.equal(drops[reason] ?? 0, 0, `beta's packets: ${reason}`);
    }
  };
}

interface World {
  readonly alpha: PacketRouter;
  readonly beta: PacketRouter;
  readonly gamma: PacketRouter;
  /** Beta's connection with a neighbour. */
  readonly accepted: (peer: PeerName) => Neighbour;
  readonly sealed: boolean;
  /** Everything fits all the time. */
  readonly wide: boolean;
  readonly kernel: Kernel;
  /** Packets that were sent before. */
  readonly earlier: Uint8Array[];
}

function step(random: Random, world: World): void {
  const { beta, accepted, wide } = world;
  switch (random.below(10)) {
    case 0: // the path is another, or for a moment the neighbour
      beta.connect(random.below(2), accepted(pick(random, [ALPHA, GAMMA])));
      beta.connect(0, accepted(ALPHA));
      beta.connect(1, { ...accepted(GAMMA), ...(wide ? {} : pathOf(random)) });
      return;
    case 1: {
      const odd = random.below(3) === 0;
      const slotOf = (name: PeerName) => odd ? random.below(3) - 1 : name === ALPHA ? 0 : 1;
      return beta.route(routesBy(BETA, slotOf, odd ? random : undefined));
    }
    case 2:
      beta.queueIsFull = random.below(2) === 0;
      return;
    case 3:
    case 4:
    case 5: {
      const { frame, virtio } = anyFrame(random);
      beta.capture(frame, virtio);
      beta.written.splice(0).forEach(checkWritten);
      return deliver(world);
    }
    default: {
      deliver(world);
      const packets = Array.from({ length: 1 + random.below(8) }, () => anyPacket(random, world));
      beta.receive(...packets);
      const written = beta.written.splice(0);
      written.forEach(checkWritten);
      if (!world.sealed) checkReceived(world, packets, written);
      return deliver(world);
    }
  }
}

/** Packets in clear: what is for beta's containers reaches them, all of it and unchanged, and what goes on is nothing else. */
function checkReceived(world: World, packets: readonly Uint8Array[], written: readonly Uint8Array[]): void {
  const frames = packets.flatMap(readPacket);
  const isKnown = (f: ReadFrame) => f.frame.length >= 14 && !f.isSpecial && [ALPHA, GAMMA, DELTA].includes(f.source);
  const expected = frames.filter((f) => isKnown(f) && f.destination === BETA).map((f) => essence(f.frame));
  assert.deepEqual(written.flatMap((frame) => world.kernel.cut(frame)).map(essence).sort(), expected.sort());
  if (!world.wide || world.beta.queueIsFull) return;
  const seen = new Set(frames.map((f) => hexOf(f.frame)));
  for (const { octets } of world.beta.peekSent()) {
    for (const { frame } of readPacket(octets)) assert.ok(seen.has(hexOf(frame)), `beta sends ${hexOf(frame)}`);
  }
}

interface ReadFrame {
  readonly source: PeerName;
  readonly destination: PeerName;
  readonly frame: Uint8Array;
  readonly isSpecial: boolean;
}

/** Reads a packet in clear as the protocol has it; one that is not beta's or its neighbours' has nothing. */
function readPacket(packet: Uint8Array): ReadFrame[] {
  const frames: ReadFrame[] = [];
  const nameAt = (at: number) => parseInt(packet.subarray(at, at + 6).toHex(), 16) as PeerName;
  if (packet.length < 6 || ![ALPHA, BETA, GAMMA].includes(nameAt(0))) return [];
  for (let at = 6; at + 14 <= packet.length;) {
    const length = packet[at + 12]! << 8 | packet[at + 13]!;
    const frame = packet.subarray(at + 14, at + 14 + length);
    if (frame.length < length) break;
    const isSpecial = frame.subarray(0, 14).every((octet) => octet === 0);
    frames.push({ source: nameAt(at), destination: nameAt(at + 6), frame, isSpecial });
    at += 14 + length;
  }
  return frames;
}

function pathOf(random: Random): Partial<Neighbour> {
  const mtu = pick(random, [68, 552, 1280, 1414, 1438, 8914, 65535]);
  return { mtu, maxPayload: mtu === 65535 ? 65507 : mtu + 58, stackFragments: random.below(2) === 0 };
}

/** Gives beta's packets to those they are for. */
function deliver({ beta, alpha, gamma }: World): void {
  beta.specials.length = 0;
  if (beta.queueIsFull) return;
  for (const { slot, octets } of beta.takeSent()) {
    const peer = [alpha, gamma][slot]!;
    peer.receive(octets);
    peer.takeInjected();
    peer.takeSent();
    peer.specials.length = 0;
  }
}

/** A frame of a container, and what the kernel says of it; often wrong. */
function anyFrame(random: Random): CapturedFrame {
  const to = pick(random, [...MACS, EVERYBODY, GROUP, SPANNING_TREE, NOBODY]);
  const from = pick(random, [...MACS, NOBODY, EVERYBODY]);
  const made = transportFrame(randomTransport(random, to, from));
  const kind = random.below(8);
  if (kind < 4) return made;
  if (kind === 4) return { virtio: new Uint8Array(12), frame: randomOctets(random, random.below(200)) };
  if (kind === 5) return { virtio: made.virtio, frame: joined(makeInput(random, [made.frame])) };
  const virtio = makeInput(random, [made.virtio]).slice(0, 12);
  return { virtio: joined(virtio, new Uint8Array(12 - virtio.length)), frame: made.frame };
}

/** A packet of alpha's: frames that may lie about whose they are and how long, sealed rightly, mostly. */
function anyPacket(random: Random, { alpha, earlier }: World): Uint8Array {
  if (earlier.length > 0 && random.below(10) === 0) return pick(random, earlier);
  const frames = random.below(3) === 0 ? streamOf(random) : Array.from({ length: random.below(5) }, () => {
    const frame = random.below(4) === 0 ? new Uint8Array(random.below(80)) : anyFrame(random).frame.subarray(0, 60_000);
    const length = random.below(12) === 0 ? random.below(0x10000) : frame.length;
    const header = nameOf(pick(random, [ALPHA, ALPHA, BETA, GAMMA, DELTA, STRANGER, 0 as PeerName])) +
      nameOf(pick(random, [BETA, BETA, BETA, ALPHA, GAMMA, DELTA, STRANGER])) + length.toString(16).padStart(4, "0");
    return joined(Uint8Array.fromHex(header), frame);
  });
  const text = joined(...frames).subarray(0, 65_507 - 30);
  let packet = alpha.packetOf(0, random.below(2) === 0, text);
  if (random.below(8) === 0) packet = makeInput(random, [packet]).slice(0, 65_507);
  if (earlier.length < 50) earlier.push(packet);
  return packet;
}

/** Segments of a stream one after the other, now and then with something between them, as frames with their headers. */
function streamOf(random: Random): Uint8Array[] {
  const to = pick(random, [...MACS, EVERYBODY]);
  const stream = {
    ...randomTransport(random, to, MACS[0]!),
    payload: random.below(20_000),
    segment: 500 + random.below(2000),
  };
  const names = (source: PeerName, destination: PeerName) => Uint8Array.fromHex(nameOf(source) + nameOf(destination));
  const destination = pick(random, [BETA, BETA, GAMMA, DELTA]);
  return expectedSegments(stream).flatMap((segment) => {
    const length = Uint8Array.of(segment.length >>> 8, segment.length);
    const frame = joined(names(ALPHA, destination), length, segment);
    if (random.below(5) > 0) return [frame];
    const other = new Uint8Array(60).fill(1 + random.below(255));
    return [
      frame,
      joined(names(pick(random, [ALPHA, DELTA, STRANGER]), pick(random, [BETA, GAMMA])), Uint8Array.of(0, 60), other),
    ];
  });
}

/** What goes to the TAP is a frame the kernel can take, with a virtio header that is true. */
function checkWritten(written: Uint8Array): void {
  const view = new DataView(written.buffer, written.byteOffset, written.length);
  const length = written.length - 12;
  assert.ok(length >= 14 && length <= 65_535, `a frame of ${length} octets for the TAP`);
  const type = written[1]! & 0x7f;
  if (type === 0) return assert.ok(written.subarray(0, 12).every((octet) => octet === 0));
  const header = view.getUint16(2, true), segment = view.getUint16(4, true);
  const start = view.getUint16(6, true), field = start + view.getUint16(8, true);
  assert.equal(written[0], 1);
  assert.ok([1, 4, 5].includes(type));
  assert.ok(segment > 0 && header < length && length - header > segment && field + 2 <= header && start < field);
}

// ── Segments ──────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/**
 * Super-frames are cut and flooded to two neighbours, some of what comes of them is lost, doubled, late or damaged on the way, and the
 * rest is glued: cut again by the kernel's rules, it is the frames that came, and nothing else.
 */
async function prepareSegments() {
  const [alpha, beta] = await openThree();
  const kernel = new Kernel();
  return (random: Random) => {
    const sealings = [0, 1].map(() => random.below(4) === 0 ? { key: KEY } : {});
    alpha.restart({
      name: ALPHA,
      connections: [{ peer: BETA, ...WIDE, ...sealings[0]! }, { peer: GAMMA, ...WIDE, ...sealings[1]! }],
      routes: [ALPHA, BETA, GAMMA].map((name) => ({
        name,
        unicastSlot: -1,
        broadcastSlots: name === ALPHA ? [0, 1] : [],
      })),
    });
    beta.restart({
      name: BETA,
      connections: [ALPHA, GAMMA].map((peer, i) => ({ peer, ...WIDE, ...sealings[i]!, outbound: false })),
      routes: routesBy(BETA, () => -1).map((route) => ({ ...route, broadcastSlots: [] })),
    });
    const flow = anyFlow(random);
    for (const made of flow.map(transportFrame)) alpha.capture(made.frame, made.virtio);
    const sent = alpha.takeSent();
    assert.deepEqual(alpha.drops(), {});
    const expected = flow.flatMap(expectedSegments);
    for (const slot of [0, 1]) {
      // Packets of one class keep their order; what may be fragmented goes in another than what may not.
      const frames = [false, true].map((df) =>
        framesIn(
          sent.filter((s) => s.slot === slot && s.df === df).map((s) => beta.textOf(slot, s.octets)),
        )
      );
      assert.deepEqual(frames[1]!.map(hexOf), expected.filter(isDontFragment).map(hexOf));
      assert.deepEqual(frames[0]!.map(hexOf), expected.filter((f) => !isDontFragment(f)).map(hexOf));
    }
    checkGluing(random, beta, alpha, expected, kernel);
  };
}

/** Super-frames and others, some of which continue the stream of one before. */
function anyFlow(random: Random): TransportFrame[] {
  const frames: TransportFrame[] = [];
  for (let n = 1 + random.below(5); n > 0; n--) {
    const before = frames.at(-1);
    const next = randomTransport(random, EVERYBODY, MACS[0]!);
    const flags = (before?.flags ?? 0) & (TCP_PSH | TCP_FIN) ? before!.flags! : next.flags!;
    frames.push(
      !before || random.below(3) === 0 ? next : {
        ...before,
        payload: random.below(20_000),
        sequence: ((before.sequence ?? 1) + before.payload) >>> 0,
        identification: random.below(0x10000),
        flags,
        ...(before.segment === undefined ? { payload: random.below(1400) } : {}),
      },
    );
    const last = frames.at(-1)!;
    if (last.segment !== undefined && last.payload === 0) frames.pop();
  }
  return frames;
}

function checkGluing(
  random: Random,
  beta: PacketRouter,
  alpha: PacketRouter,
  frames: readonly Uint8Array[],
  kernel: Kernel,
): void {
  const arriving = onTheWay(random, frames);
  const header = Uint8Array.fromHex(nameOf(ALPHA) + nameOf(BETA));
  for (let at = 0; at < arriving.length;) {
    const end = Math.min(arriving.length, at + 1 + random.below(40));
    const batch = arriving.slice(at, end);
    at = end;
    if (batch.reduce((n, frame) => n + frame.length + 60, 0) > 900_000) continue;
    beta.receive(...batch.map((frame) => {
      const length = Uint8Array.of(frame.length >>> 8, frame.length);
      return alpha.packetOf(0, true, joined(header, length, frame));
    }));
    const written = beta.written.splice(0);
    written.forEach(checkWritten);
    const out = written.flatMap((frame) => kernel.cut(frame));
    assert.deepEqual(out.map(essence).sort(), batch.map(essence).sort());
    // Where nothing was damaged, each flow keeps its order.
    if (!batch.every((frame) => frames.includes(frame))) continue;
    for (const flow of new Set(batch.map(flowOf))) {
      const its = (list: readonly Uint8Array[]) => list.filter((frame) => flowOf(frame) === flow).map(essence);
      assert.deepEqual(its(out), its(batch));
    }
  }
}

function isDontFragment(frame: Uint8Array): boolean {
  return frame[12] === 8 && frame[13] === 0 && (frame[20]! & 0x40) !== 0;
}

/** Short enough to read, and different where frames differ. */
function hexOf(frame: Uint8Array): string {
  return `${frame.length} ${frame.subarray(0, 100).toHex()} ${sumOf(frame)}`;
}

function sumOf(octets: Uint8Array): number {
  let sum = 0;
  for (const [i, octet] of octets.entries()) sum = (sum + octet * (i + 1)) % 0x7fff_ffff;
  return sum;
}

function framesIn(texts: readonly Uint8Array[]): Uint8Array[] {
  return texts.flatMap((text) => {
    const frames: Uint8Array[] = [];
    const view = new DataView(text.buffer, text.byteOffset, text.length);
    let at = 0;
    while (at < text.length) {
      const length = view.getUint16(at + 12);
      frames.push(text.slice(at + 14, at + 14 + length));
      at += 14 + length;
    }
    assert.equal(at, text.length);
    return frames;
  });
}

function onTheWay(random: Random, frames: readonly Uint8Array[]): Uint8Array[] {
  const arriving = [...frames];
  const trouble = random.below(4);
  for (let n = trouble === 0 ? 0 : random.below(6); n > 0 && arriving.length > 0; n--) {
    const i = random.below(arriving.length), j = random.below(arriving.length);
    switch (random.below(5)) {
      case 0:
        arriving.splice(i, 1);
        break;
      case 1:
        arriving.splice(j, 0, arriving[i]!);
        break;
      case 2:
        [arriving[i], arriving[j]] = [arriving[j]!, arriving[i]!];
        break;
      default: {
        const damaged = arriving[i]!.slice();
        for (let m = 1 + random.below(2); m > 0; m--) {
          damaged[random.below(Math.min(80, damaged.length))] = random.u32();
        }
        // The zero header of a special frame would be something else.
        if (damaged[0] !== 0 || damaged[6] !== 0) arriving[i] = damaged;
      }
    }
  }
  return arriving;
}

/** What must stay as it is: everything but the identification and its checksum where DF is set, when they mean nothing. */
function essence(frame: Uint8Array): string {
  const kept = frame.slice();
  if (frame[12] === 8 && frame[13] === 0 && (frame[20]! & 0x40) !== 0) kept.fill(0, 18, 20).fill(0, 24, 26);
  return hexOf(kept);
}

/** Names the flow of a frame that has no VLAN tag: version of IP, protocol, ports (addresses are the same in all). */
function flowOf(frame: Uint8Array): string {
  if (frame[12] === 0x81) return "tagged";
  const [protocol, ports] = frame[12] === 8 ? [23, 34] : [20, 54];
  return `${frame[12]} ${frame[protocol]} ${frame.subarray(ports, ports + 4).toHex()}`;
}

/** Cuts what is written to the TAP as the kernel does for a container that takes no super-frames. */
class Kernel {
  readonly #m = new FrameMemory(new ArrayBuffer(256 * 1024));
  readonly #superFrame = new SuperFrame(this.#m, 0);

  cut(written: Uint8Array): Uint8Array[] {
    if (written[1] === 0) return [written.subarray(12)];
    const m = this.#m;
    const at = Math.ceil(HEADER_LIMIT / 64) * 64;
    m.u8.set(written, at);
    const segments = this.#superFrame;
    assert.ok(segments.open(at, at + 12, written.length - 12), "a super-frame that nobody can cut");
    const to = 128 * 1024;
    return Array.from({ length: segments.count }, (_, i) => {
      segments.writeHeader(i, to);
      m.copy(to + segments.headerOctets, segments.payloadAt + i * segments.segmentOctets, segments.payloadOctets(i));
      return m.u8.slice(to, to + segments.headerOctets + segments.payloadOctets(i));
    });
  }
}

// ── Helpers ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

async function openThree(): Promise<[PacketRouter, PacketRouter, PacketRouter]> {
  const open = (name: PeerName) => PacketRouter.open({ name, connections: [], routes: [] });
  return [await open(ALPHA), await open(BETA), await open(GAMMA)];
}

/** @param slotOf next hop; -1 for none */
function routesBy(us: PeerName, slotOf: (name: PeerName) => number, odd?: Random): PeerRoutes[] {
  return [ALPHA, BETA, GAMMA, DELTA].map((name) => {
    const slots = us === BETA ? [0, 1] : [0];
    const beyond = us === BETA ? (name === ALPHA ? [1] : [0]) : [];
    const usual = name === us ? slots : beyond;
    return {
      name,
      unicastSlot: name === us ? -1 : slotOf(name),
      broadcastSlots: odd ? slots.filter(() => odd.below(2) === 0) : usual,
    };
  });
}

function nameOf(name: PeerName): string {
  return name.toString(16).padStart(12, "0");
}
