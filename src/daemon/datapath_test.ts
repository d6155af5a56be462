import assert from "node:assert/strict";
import type { PeerName } from "../lib/mac.ts";
import { Datapath, type DatapathEvent } from "./datapath.ts";

const A = 0x02aa_0000_0001 as PeerName;
const B = 0x02bb_0000_0002 as PeerName;
const KEY = Uint8Array.from({ length: 32 }, (_, i) => i * 7);

for (
  const [how, key, webAssemblyBoxes] of [
    ["in clear", undefined, false],
    ["sealed", KEY, false],
    ["sealed by WebAssembly", KEY, true],
  ] as const
) {
  Deno.test(`two packet threads carry frames to each other, ${how}`, async () => {
    await using a = await Host.start(A, { webAssemblyBoxes }), b = await Host.start(B);
    connect(a, b, key);
    const hello = frame("ffffffffffff", "06000000000b", 60);
    b.tap.write(hello);
    assert.deepEqual(await a.tap.read(), hello);
    for (const octets of [60, 100, 700, 1400]) {
      for (let i = 0; i < 20; i++) a.tap.write(frame("06000000000b", "06000000000a", octets + i));
      for (let i = 0; i < 20; i++) {
        assert.deepEqual(await b.tap.read(), frame("06000000000b", "06000000000a", octets + i));
      }
    }
    const { totals, drops } = a.datapath.counters();
    assert.equal(totals.capturedFrames, 80);
    assert.ok(Object.values(drops).every((n) => n === 0), JSON.stringify(drops));
    assert.deepEqual(a.datapath.fdb().map((row) => [row.mac, row.peer]).sort(), [
      [0x0600_0000_000a, A],
      [0x0600_0000_000b, B],
    ]);
    assert.ok(a.datapath.slotCounters(0).txPackets > 0);
  });

  Deno.test(`special frames arrive as events, ${how}`, async () => {
    await using a = await Host.start(A, { webAssemblyBoxes }), b = await Host.start(B);
    connect(a, b, key);
    a.datapath.sendSpecial(0, 1, { frameOctets: 22, df: true, uid: 0xfedc_ba98_7654_3210n });
    a.datapath.sendSpecial(0, 1, { frameOctets: 60001, df: false });
    a.datapath.sendSpecial(0, 1, { frameOctets: 1452, df: true });
    a.datapath.sendSpecial(0, 2, { frameOctets: 1453, df: true }); // of a connection that is no more
    await until(() => b.events.length >= 3);
    const from = { address: 0x7f000001, port: a.port };
    const common = { type: "special", slot: 0, generation: 1 } as const;
    const expected: DatapathEvent[] = [
      { ...common, kind: "heartbeat", uid: 0xfedc_ba98_7654_3210n, from },
      { ...common, kind: "fragmentationTest" },
      { ...common, kind: "probe", mtu: 1438 },
    ];
    // Two sockets carry them: their order is not that of sending.
    const kinds = (e: DatapathEvent) => e.type === "special" ? e.kind : "";
    const sorted = (list: DatapathEvent[]) => list.toSorted((x, y) => kinds(x).localeCompare(kinds(y)));
    assert.deepEqual(sorted(b.events), sorted(expected));
  });
}

Deno.test("a peer that floods us with messages of the carrier does not keep the main thread busy", async () => {
  await using a = await Host.start(A), b = await Host.start(B);
  connect(a, b, undefined);
  for (let i = 0; i < 400; i++) b.datapath.sendSpecial(0, 1, { frameOctets: 22, df: true, uid: 1n });
  const told = () => a.events.length, lost = () => a.datapath.counters().drops.eventLost;
  await until(() => told() >= 64 && lost() >= 64); // the kernel may lose some on the way
  assert.ok(told() >= 64 && told() <= 128, `${told()} in a second or the turn of one`);
  // Frames pass meanwhile.
  const hello = frame("ffffffffffff", "06000000000b", 60);
  b.tap.write(hello);
  assert.deepEqual(await a.tap.read(), hello);
});

Deno.test("forgetPeer() and new routes empty the fdb of a peer", async () => {
  await using a = await Host.start(A), b = await Host.start(B);
  connect(a, b, undefined);
  const learn = async () => {
    b.tap.write(frame("ffffffffffff", "06000000000b", 60));
    await a.tap.read();
  };
  await learn();
  assert.equal(a.datapath.fdb().length, 1);
  a.datapath.forgetPeer(B);
  await until(() => a.datapath.fdb().length === 0);
  await learn();
  a.datapath.publishRoutes({ peers: [{ name: A, unicastSlot: -1, broadcastSlots: [] }] });
  await until(() => a.datapath.fdb().length === 0);
});

Deno.test("stop() joins the packet thread at once, and may be called again", async () => {
  const host = await Host.start(A);
  const before = performance.now();
  await host.datapath.stop();
  await host.datapath.stop();
  assert.ok(performance.now() - before < 500);
  host.close();
});

Deno.test("start() rejects when a descriptor is none", async () => {
  await assert.rejects(Host.start(A, { tapFd: 9999 }), /Cannot start packet thread/);
});

Deno.test("onCrash hears of a packet thread that dies", async () => {
  const host = await Host.start(A);
  host.tap.close();
  await until(() => host.crash !== undefined);
  assert.match(host.crash!.message, /Packet thread died/);
  await host[Symbol.asyncDispose]();
});

const CONNECTION = {
  generation: 1,
  outbound: true,
  confirmed: true,
  established: true,
  mtu: 1414,
  maxPayload: 1472,
  stackFragments: true,
} as const;

function connect(a: Host, b: Host, key: Uint8Array | undefined): void {
  for (const [us, them] of [[a, b], [b, a]] as const) {
    us.datapath.publishConnection(0, {
      ...CONNECTION,
      peer: them.name,
      outbound: us === a,
      remote: { address: 0x7f000001, port: them.port },
      ...(key ? { key } : {}),
    });
    us.datapath.publishRoutes({
      peers: [
        { name: us.name, unicastSlot: -1, broadcastSlots: [0] },
        { name: them.name, unicastSlot: 0, broadcastSlots: [] },
      ],
    });
  }
}

function frame(to: string, from: string, octets: number): Uint8Array {
  const text = to + from + "0800" + "45000000000040004011";
  const result = new Uint8Array(octets).fill(octets & 0xff);
  result.set(Uint8Array.from(text.match(/../g)!, (h) => parseInt(h, 16)));
  return result;
}

async function until(done: () => boolean): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (done()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("did not come to pass within 2 s");
}

/** A packet thread on loopback, with a socket pair in the TAP's place: it keeps frames apart too. */
class Host implements AsyncDisposable {
  readonly events: DatapathEvent[] = [];
  crash: Error | undefined;
  datapath!: Datapath;
  readonly #fds: number[];

  private constructor(readonly name: PeerName, readonly port: number, readonly tap: TapEnd, fds: number[]) {
    this.#fds = fds;
  }

  static async start(name: PeerName, options: { tapFd?: number; webAssemblyBoxes?: boolean } = {}): Promise<Host> {
    const pair = new Int32Array(2);
    const SOCK_SEQPACKET = 5, NONBLOCK = 0x800;
    libc.socketpair(1, SOCK_SEQPACKET | NONBLOCK, 0, pair);
    const [df, port] = udp(0, 2);
    const [plain] = udp(port, 0);
    const wakeFd = libc.eventfd(0, NONBLOCK);
    const host = new Host(name, port, new TapEnd(pair[1]!), [pair[0]!, df, plain, wakeFd]);
    try {
      host.datapath = await Datapath.start({
        ourName: name,
        tapFd: pair[0]!,
        dfFd: df,
        plainFd: plain,
        wake: { fd: wakeFd, signal: () => libc.write(wakeFd, ONE, 8n) },
        tapUdpSegments: false,
        ...options,
        onEvent: (event) => host.events.push(event),
        onCrash: (error) => host.crash = error,
      });
    } catch (error) {
      host.close();
      throw error;
    }
    return host;
  }

  close(): void {
    for (const fd of this.#fds) libc.close(fd);
    this.tap.close();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.datapath.stop();
    this.close();
  }
}

/** The kernel's end: frames with a virtio header. */
class TapEnd {
  #open = true;
  constructor(readonly fd: number) {}

  write(octets: Uint8Array): void {
    const whole = new Uint8Array(12 + octets.length);
    whole.set(octets, 12);
    assert.equal(libc.write(this.fd, whole, BigInt(whole.length)), BigInt(whole.length));
  }

  async read(): Promise<Uint8Array> {
    const buffer = new Uint8Array(70_000);
    let got = -1n;
    await until(() => (got = libc.read(this.fd, buffer, BigInt(buffer.length)) as bigint) > 0n);
    return buffer.slice(12, Number(got));
  }

  close(): void {
    if (this.#open) libc.close(this.fd);
    this.#open = false;
  }
}

const libc = Deno.dlopen("libc.so.6", {
  socketpair: { parameters: ["i32", "i32", "i32", "buffer"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  bind: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  getsockname: { parameters: ["i32", "buffer", "buffer"], result: "i32" },
  eventfd: { parameters: ["u32", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  write: { parameters: ["i32", "buffer", "u64"], result: "i64" },
  close: { parameters: ["i32"], result: "i32" },
}).symbols;
const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);

/** A UDP socket on loopback as the router has them: its descriptor and port. */
function udp(port: number, pathMtuDiscovery: number): [number, number] {
  const fd = libc.socket(2, 2 | 0x800, 0);
  const set = (level: number, name: number, value: number) => libc.setsockopt(fd, level, name, Int32Array.of(value), 4);
  set(1, 15, 1); // SO_REUSEPORT
  set(0, 10, pathMtuDiscovery); // IP_MTU_DISCOVER
  set(17, 104, 1); // UDP_GRO
  const name = Uint8Array.of(2, 0, port >>> 8, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0);
  assert.equal(libc.bind(fd, name, 16), 0);
  libc.getsockname(fd, name, Uint32Array.of(16));
  return [fd, name[2]! << 8 | name[3]!];
}
