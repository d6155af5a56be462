import assert from "node:assert/strict";
import fc from "fast-check";
import { FrameMemory } from "../lib/frame_memory.ts";
import { Glue } from "./glue.ts";
import { GSO_TCP4, GSO_TCP6, GSO_UDP, HEADER_LIMIT, SuperFrame, VIRTIO } from "./segment.ts";

const TEMPLATE_AT = 0;
const INPUT_AT = 512;
const CUT_AT = 80_000;
const SIZE = 400_000;

Deno.test("cut frames are whole, in order and have right checksums, wherever they lie", () => {
  fc.assert(
    fc.property(superFrames(), fc.integer({ min: 0, max: 3 }), (options, shift) => {
      const whole = build(options);
      const frames = cut(whole, options.segment, shift);
      assert.equal(frames.length, Math.ceil(options.payload / options.segment));
      let payload: number[] = [];
      frames.forEach((frame, i) => {
        const seen = read(frame);
        assert.deepEqual(seen.wrong, []);
        payload = payload.concat([...seen.payload]);
        if (seen.identification !== undefined) assert.equal(seen.identification, (options.identification + i) & 0xffff);
        if (options.tcp) assert.equal(seen.sequence, (options.sequence + i * options.segment) >>> 0);
        if (options.tcp && i > 0) assert.equal(seen.flags & 0x80, 0);
        if (options.tcp && i < frames.length - 1) assert.equal(seen.flags & 9, 0);
      });
      assert.deepEqual(payload, [...read(whole.frame).payload]);
      if (options.tcp) assert.equal(read(frames.at(-1)!).flags & 9, options.flags & 9);
    }),
    { numRuns: 300 },
  );
});

Deno.test("glue(cut(x)) is x", () => {
  fc.assert(
    fc.property(superFrames().filter((o) => o.tags === 0 && o.payload > o.segment), (options) => {
      const whole = build(options);
      const written = glue(cut(whole, options.segment, 0));
      assert.equal(written.length, 1);
      assert.deepEqual(written[0]!.octets, Uint8Array.from([...whole.virtio, ...whole.frame]));
    }),
    { numRuns: 300 },
  );
});

Deno.test("gluing interleaved flows gives each back whole", () => {
  fc.assert(
    fc.property(
      fc.array(superFrames().filter((o) => o.tags === 0 && o.tcp && o.payload > o.segment), {
        minLength: 2,
        maxLength: 6,
      }),
      fc.infiniteStream(fc.nat()),
      (flows, choices) => {
        const wholes = flows.map((o, i) =>
          build({ ...o, payload: Math.min(o.payload, o.segment * 8), port: 1000 + i })
        );
        const queues = wholes.map((whole, i) => cut(whole, flows[i]!.segment, 0));
        const mixed: Uint8Array[] = [];
        while (queues.some((q) => q.length > 0)) {
          const left = queues.filter((q) => q.length > 0);
          mixed.push(left[choices.next().value! % left.length]!.shift()!);
        }
        const written = glue(mixed).map((w) => toHex(w.octets)).sort();
        assert.deepEqual(written, wholes.map((w) => toHex([...w.virtio, ...w.frame])).sort());
      },
    ),
    { numRuns: 60 },
  );
});

Deno.test("gluing lets what does not belong together pass, in order", () => {
  fc.assert(
    fc.property(
      superFrames().filter((o) => o.tags === 0 && o.payload > o.segment * 2),
      fc.nat(),
      fc.nat(),
      fc.integer({ min: 1, max: 255 }),
      (options, which, where, flip) => {
        const frames = cut(build(options), options.segment, 0).slice(0, 20);
        const victim = frames[which % frames.length]!;
        victim[where % victim.length]! ^= flip;
        const before = frames.map(essence);
        const after = glue(frames).flatMap((w) => reCut(w.octets)).map(essence);
        // Nothing is lost or doubled, and each frame that comes out is one that went in, the damaged one included.
        assert.deepEqual(after.toSorted(), before.toSorted());
        const undamaged = before.filter((_, i) => i !== which % frames.length);
        assert.deepEqual(after.filter((f) => f !== essence(victim)), undamaged);
      },
    ),
    { numRuns: 300 },
  );
});

Deno.test("open() refuses headers that contradict each other", () => {
  const whole = build(DEFAULTS);
  const mutate = (change: (virtio: Uint8Array, frame: Uint8Array) => void) => {
    const virtio = whole.virtio.slice(), frame = whole.frame.slice();
    change(virtio, frame);
    return tryOpen({ virtio, frame });
  };
  assert.equal(mutate(() => {}), true);
  assert.equal(mutate((v) => v[VIRTIO.gsoSize] = v[VIRTIO.gsoSize + 1] = 0), false);
  // A segment for each octet or so: nobody means that.
  assert.equal(mutate((v) => v.set([2, 0], VIRTIO.gsoSize)), false);
  assert.equal(mutate((v) => v.set([48, 0], VIRTIO.gsoSize)), true);
  assert.equal(mutate((v) => v[VIRTIO.gsoType] = 3), false);
  assert.equal(mutate((v) => v[VIRTIO.checksumStart] = 20), false);
  assert.equal(mutate((v) => v[VIRTIO.checksumStart + 1] = 0xff), false);
  assert.equal(mutate((_, f) => f[14] = 0x46), false);
  assert.equal(mutate((_, f) => f[14 + 20 + 12] = 0x40), false);
  assert.equal(mutate((_, f) => f[12] = 0x12), false);
});

Deno.test("open() survives random octets", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 12, maxLength: 300 }), (octets) => {
    octets[1] = [1, 4, 5][octets[1]! % 3]!;
    tryOpen({ virtio: octets.slice(0, 12), frame: octets.slice(12) });
  }));
});

Deno.test("complete() turns a partial checksum into a right one", () => {
  for (const tcp of [true, false]) {
    for (const ipv4 of [true, false]) {
      const { virtio, frame } = build({ ...DEFAULTS, tcp, ipv4, payload: 77, segment: 100 });
      const m = new FrameMemory(new ArrayBuffer(SIZE));
      m.u8.set(virtio, INPUT_AT);
      m.u8.set(frame, INPUT_AT + 12);
      assert.equal(new SuperFrame(m, TEMPLATE_AT).complete(INPUT_AT, INPUT_AT + 12, frame.length), true);
      assert.deepEqual(read(m.u8.slice(INPUT_AT + 12, INPUT_AT + 12 + frame.length)).wrong, []);
      m.set16le(INPUT_AT + VIRTIO.checksumStart, frame.length - 1);
      assert.equal(new SuperFrame(m, TEMPLATE_AT).complete(INPUT_AT, INPUT_AT + 12, frame.length), false);
    }
  }
});

interface Options {
  readonly ipv4: boolean;
  readonly tcp: boolean;
  readonly tags: number;
  readonly payload: number;
  readonly segment: number;
  readonly identification: number;
  readonly sequence: number;
  readonly flags: number;
  readonly tcpOptions: number;
  readonly port: number;
  readonly seed: number;
}

const DEFAULTS: Options = {
  ipv4: true,
  tcp: true,
  tags: 0,
  payload: 5000,
  segment: 1324,
  identification: 0xfffe,
  sequence: 0xffff_ff00,
  flags: 0x18,
  tcpOptions: 12,
  port: 40000,
  seed: 1,
};

function superFrames(): fc.Arbitrary<Options> {
  return fc.record({
    ipv4: fc.boolean(),
    tcp: fc.boolean(),
    tags: fc.integer({ min: 0, max: 2 }),
    segment: fc.integer({ min: 500, max: 9000 }),
    payload: fc.integer({ min: 1, max: 30_000 }),
    identification: fc.integer({ min: 0, max: 0xffff }),
    sequence: fc.integer({ min: 0, max: 0xffff_ffff }),
    flags: fc.constantFrom(0x10, 0x18, 0x11, 0x19, 0x50, 0xd0, 0x90),
    tcpOptions: fc.constantFrom(0, 12, 40),
    port: fc.integer({ min: 1, max: 65535 }),
    seed: fc.nat(255),
  });
}

/** A super-frame as the kernel would hand it out, its checksum field holding the pseudo header's sum. */
function build(o: Options): { virtio: Uint8Array; frame: Uint8Array } {
  const l4 = o.tcp ? 20 + o.tcpOptions : 8;
  const ip = 14 + 4 * o.tags;
  const th = ip + (o.ipv4 ? 20 : 40);
  const f = new Uint8Array(th + l4 + o.payload);
  const v = new DataView(f.buffer);
  for (let i = 0; i < 12; i++) f[i] = i === 0 || i === 6 ? 2 : i * 3;
  for (let t = 0; t < o.tags; t++) v.setUint32(12 + 4 * t, 0x8100_0005);
  v.setUint16(ip - 2, o.ipv4 ? 0x0800 : 0x86dd);
  if (o.ipv4) {
    v.setUint16(ip, 0x4500);
    v.setUint16(ip + 2, f.length - ip);
    v.setUint16(ip + 4, o.identification);
    v.setUint16(ip + 6, 0x4000);
    v.setUint16(ip + 8, 0x4000 | (o.tcp ? 6 : 17));
    v.setUint32(ip + 12, 0x0a200001);
    v.setUint32(ip + 16, 0x0a200002);
    v.setUint16(ip + 10, 0xffff ^ ones(f.slice(ip, ip + 20)));
  } else {
    v.setUint32(ip, 0x6000_0000);
    v.setUint16(ip + 4, f.length - th);
    f[ip + 6] = o.tcp ? 6 : 17;
    f[ip + 7] = 64;
    for (let i = 8; i < 40; i++) f[ip + i] = i * 5;
  }
  v.setUint16(th, o.port);
  v.setUint16(th + 2, 5201);
  if (o.tcp) {
    v.setUint32(th + 4, o.sequence);
    v.setUint32(th + 8, 0x01020304);
    f[th + 12] = l4 << 2;
    f[th + 13] = o.flags;
    v.setUint16(th + 14, 512);
    for (let i = 20; i < l4; i++) f[th + i] = i;
  } else v.setUint16(th + 4, f.length - th);
  for (let i = th + l4; i < f.length; i++) f[i] = i * 7 + o.seed;
  v.setUint16(th + (o.tcp ? 16 : 6), ones(pseudo(f, ip, th, o.ipv4)));
  const virtio = new Uint8Array(12);
  const w = new DataView(virtio.buffer);
  virtio[0] = 1;
  virtio[1] = (o.tcp ? (o.ipv4 ? GSO_TCP4 : GSO_TCP6) : GSO_UDP) | (o.tcp && o.flags & 0x80 ? 0x80 : 0);
  w.setUint16(2, th + l4, true);
  w.setUint16(4, o.segment, true);
  w.setUint16(6, th, true);
  w.setUint16(8, o.tcp ? 16 : 6, true);
  return { virtio, frame: f };
}

function pseudo(f: Uint8Array, ip: number, th: number, ipv4: boolean): Uint8Array {
  const addresses = ipv4 ? f.slice(ip + 12, ip + 20) : f.slice(ip + 8, ip + 40);
  const octets = f.length - th;
  return Uint8Array.from([...addresses, 0, f[ipv4 ? ip + 9 : ip + 6]!, octets >>> 8, octets & 0xff]);
}

/** RFC 1071 as it stands. */
function ones(octets: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < octets.length; i += 2) {
    sum += (octets[i]! << 8) + (octets[i + 1] ?? 0);
    if (sum > 0xffff) sum -= 0xffff;
  }
  return sum;
}

interface Seen {
  readonly wrong: string[];
  readonly payload: Uint8Array;
  readonly identification: number | undefined;
  readonly sequence: number;
  readonly flags: number;
}

/** The obvious reader: what is in a frame, and which of its lengths and checksums are wrong. */
function read(f: Uint8Array): Seen {
  const v = new DataView(f.buffer, f.byteOffset, f.length);
  let ip = 14;
  while (v.getUint16(ip - 2) === 0x8100) ip += 4;
  const ipv4 = v.getUint16(ip - 2) === 0x0800;
  const th = ip + (ipv4 ? 20 : 40);
  const tcp = f[ipv4 ? ip + 9 : ip + 6] === 6;
  const header = th + (tcp ? f[th + 12]! >>> 4 << 2 : 8);
  const wrong: string[] = [];
  if (ipv4 && v.getUint16(ip + 2) !== f.length - ip) wrong.push("IPv4 length");
  if (ipv4 && ones(f.slice(ip, ip + 20)) !== 0xffff) wrong.push("IPv4 checksum");
  if (!ipv4 && v.getUint16(ip + 4) !== f.length - th) wrong.push("IPv6 length");
  if (!tcp && v.getUint16(th + 4) !== f.length - th) wrong.push("UDP length");
  if (!tcp && v.getUint16(th + 6) === 0) wrong.push("UDP checksum left out");
  if (ones(Uint8Array.from([...f.slice(th), ...f.length & 1 ? [0] : [], ...pseudo(f, ip, th, ipv4)])) !== 0xffff) {
    wrong.push("transport checksum");
  }
  return {
    wrong,
    payload: f.slice(header),
    identification: ipv4 ? v.getUint16(ip + 4) : undefined,
    sequence: tcp ? v.getUint32(th + 4) : 0,
    flags: tcp ? f[th + 13]! : 0,
  };
}

/** Cuts in memory whose rest is not zero. @param shift of the payload's alignment */
function cut(whole: { virtio: Uint8Array; frame: Uint8Array }, segment: number, shift: number): Uint8Array[] {
  const m = new FrameMemory(new ArrayBuffer(SIZE));
  m.u8.fill(0xcc);
  const at = INPUT_AT + 12 + shift;
  m.u8.set(whole.virtio, at - 12);
  m.u8.set(whole.frame, at);
  const superFrame = new SuperFrame(m, TEMPLATE_AT);
  assert.ok(superFrame.open(at - 12, at, whole.frame.length));
  assert.equal(superFrame.segmentOctets, segment);
  const frames: Uint8Array[] = [];
  for (let i = 0; i < superFrame.count; i++) {
    superFrame.writeHeader(i, CUT_AT);
    m.copy(CUT_AT + superFrame.headerOctets, superFrame.payloadAt + i * segment, superFrame.payloadOctets(i));
    frames.push(m.u8.slice(CUT_AT, CUT_AT + superFrame.headerOctets + superFrame.payloadOctets(i)));
  }
  return frames;
}

function tryOpen(whole: { virtio: Uint8Array; frame: Uint8Array }): boolean {
  const m = new FrameMemory(new ArrayBuffer(SIZE));
  m.u8.set(whole.virtio, INPUT_AT);
  m.u8.set(whole.frame, INPUT_AT + 12);
  return new SuperFrame(m, TEMPLATE_AT).open(INPUT_AT, INPUT_AT + 12, whole.frame.length);
}

interface Written {
  readonly octets: Uint8Array;
  readonly segments: number;
}

function glue(frames: readonly Uint8Array[]): Written[] {
  const m = new FrameMemory(new ArrayBuffer(SIZE));
  m.u8.fill(0xcc);
  const written: Written[] = [];
  const sink = {
    write(pieces: Int32Array, first: number, count: number, segments: number) {
      const octets: number[] = [];
      for (let i = 0; i < count; i++) {
        const at = pieces[first + 2 * i]!;
        octets.push(...m.u8.slice(at, at + pieces[first + 2 * i + 1]!));
      }
      written.push({ octets: Uint8Array.from(octets), segments });
    },
  };
  const lanes = new Glue(m, sink, { udp: true });
  let at = 2;
  for (const frame of frames) {
    at += 32;
    m.u8.set(frame, at);
    lanes.add(at, frame.length);
    at += frame.length;
  }
  lanes.flush();
  assert.equal(written.reduce((n, w) => n + w.segments, 0), frames.length);
  return written;
}

/** What the kernel would make of a frame written to the TAP: its segments. */
function reCut(octets: Uint8Array): Uint8Array[] {
  const virtio = octets.slice(0, 12), frame = octets.slice(12);
  return virtio[1] === 0 ? [frame] : cut({ virtio, frame }, virtio[4]! | virtio[5]! << 8, 0);
}

/** What must stay as it is, short enough to read: not the identification, which means nothing beside DF. */
function essence(frame: Uint8Array): string {
  const kept = frame.slice();
  if (frame[12] === 8 && (frame[20]! & 0x40) !== 0) {
    kept[18] =
      kept[19] =
      kept[24] =
      kept[25] =
        0;
  }
  return `${frame.length} ${toHex(kept.subarray(0, 74))} ${kept.reduce((n, o, i) => (n + o * (i + 1)) % 99991, 0)}`;
}

function toHex(octets: Iterable<number>): string {
  return [...octets].map((o) => o.toString(16).padStart(2, "0")).join("");
}

assert.ok(HEADER_LIMIT <= INPUT_AT);
