import assert from "node:assert/strict";
import { DescriptorTrace } from "../../ffi/fd.ts";
import { SysError } from "../../ffi/errno.ts";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { type Endpoint, formatEndpoint, parseIpv4 } from "../lib/ip.ts";
import { run } from "./command.ts";
import { type ControlSocket, ControlSockets, type DialOptions, type Listener } from "./sockets.ts";

const LOOPBACK = parseIpv4("127.0.0.1")!;

Deno.test("dial() and listen() join two routers, and octets pass both ways", async () => {
  await using world = new World();
  const { near, far } = await world.join();
  assert.equal(formatEndpoint(near.socket.local), formatEndpoint(far.socket.remote));
  assert.equal(formatEndpoint(near.socket.remote), formatEndpoint(far.socket.local));
  near.socket.send(Uint8Array.of(1, 2));
  near.socket.send(Uint8Array.of());
  near.socket.send(Uint8Array.of(3));
  far.socket.send(Uint8Array.of(9));
  await until(() => far.octets === 3 && near.octets === 1);
  assert.deepEqual(far.received(), Uint8Array.of(1, 2, 3));
  assert.deepEqual(near.received(), Uint8Array.of(9));
});

Deno.test("close() resets, after what the kernel takes at once", async () => {
  await using world = new World();
  const { near, far } = await world.join();
  near.socket.send(Uint8Array.of(1, 2, 3));
  near.socket.close();
  near.socket.close();
  assert.equal(near.socket.send(Uint8Array.of(4)), false);
  await until(() => far.reason !== undefined);
  assert.deepEqual(far.received(), Uint8Array.of(1, 2, 3));
  const ends = `${formatEndpoint(far.socket.local)}->${formatEndpoint(far.socket.remote)}`;
  assert.equal(far.reason, `read tcp ${ends}: read: connection reset by peer`);
  assert.equal(far.socket.closed, true);
  assert.equal(near.reason, undefined);
});

Deno.test("a stream that ends is EOF", async () => {
  await using world = new World();
  const accepted = world.accept();
  const client = await Deno.connect({ hostname: "127.0.0.1", port: world.port });
  await client.write(Uint8Array.of(5));
  client.close();
  const far = await accepted;
  await until(() => far.reason !== undefined);
  assert.deepEqual([...far.received(), far.reason], [5, "EOF"]);
});

Deno.test("dial() says why it failed, in Go's words", async () => {
  await using world = new World();
  const cases = [
    ["127.0.0.1", 1, {}, "dial tcp :0->127.0.0.1:1: connect: connection refused"],
    ["127.0.0.1", 1, { source: "127.0.0.9" }, "dial tcp 127.0.0.9:0->127.0.0.1:1: connect: connection refused"],
    [
      "127.0.0.1",
      1,
      { source: "192.0.2.1" },
      "dial tcp 192.0.2.1:0->127.0.0.1:1: bind: cannot assign requested address",
    ],
  ] as const;
  for (const [address, port, options, expected] of cases) {
    const source = "source" in options ? parseIpv4(options.source) : undefined;
    assert.equal(await world.failure({ address: parseIpv4(address)!, port }, { source }), expected);
  }
});

Deno.test("dial() connects from the address it is given", async () => {
  await using world = new World();
  const source = parseIpv4("127.0.0.77")!;
  const { near, far } = await world.join({ source });
  assert.equal(near.socket.local.address, source);
  assert.equal(far.socket.remote.address, source);
});

Deno.test("cancel() leaves no callback behind, whatever the outcome would have been", async () => {
  await using world = new World();
  const told: string[] = [];
  const handler = {
    onConnected: () => void told.push("connected"),
    onFailed: (reason: string) => void told.push(reason),
  };
  for (const port of [world.port, 1]) {
    for (const source of [undefined, parseIpv4("192.0.2.1")]) {
      const dial = world.ours.dial({ address: LOOPBACK, port }, handler, { source });
      dial.cancel();
      dial.cancel();
    }
  }
  await delay(30);
  assert.deepEqual(told, []);
});

Deno.test("listen() says who has the port", async () => {
  await using world = new World();
  assert.throws(() => world.ours.listen({ port: world.port }, { onAccepted() {} }), (error) => {
    assert.ok(error instanceof SysError);
    assert.deepEqual([error.call, error.errnoName], ["bind", "EADDRINUSE"]);
    return true;
  });
  assert.throws(() => world.ours.listen({ address: parseIpv4("192.0.2.1")!, port: 0 }, { onAccepted() {} }), {
    errnoName: "EADDRNOTAVAIL",
  });
});

Deno.test("send() asks for a pause when the other side does not read, and tells when it does again", async () => {
  await using world = new World();
  const { near, far } = await world.join();
  far.socket.pause();
  const piece = Uint8Array.from({ length: 100_000 }, (_, i) => i % 251);
  let sent = 0;
  while (near.socket.send(piece) || near.socket.queuedOctets < 256 * 1024) {
    sent += piece.length;
    await delay(0);
  }
  sent += piece.length;
  await delay(20);
  assert.equal(near.writable, 0);
  assert.ok(near.socket.queuedOctets > 256 * 1024);
  far.socket.resume();
  await until(() => far.octets === sent);
  assert.equal(near.writable, 1);
  assert.equal(near.socket.queuedOctets, 0);
  const all = far.received();
  for (let at = 0; at < sent; at += piece.length) assert.deepEqual(all.subarray(at, at + piece.length), piece);
});

Deno.test("send() closes the socket of a sender that never pauses", async () => {
  await using world = new World();
  const { near, far } = await world.join();
  far.socket.pause();
  const piece = new Uint8Array(4 * 1024 * 1024);
  for (let i = 0; i < 100 && !near.socket.closed; i++) {
    near.socket.send(piece);
    await delay(1);
  }
  assert.match(near.reason ?? "", /^write tcp .*: too much waits to be sent$/);
});

Deno.test("pause() stops reading within a turn, and a reset is noticed afterwards", async () => {
  await using world = new World();
  const { near, far } = await world.join();
  far.onOctets = () => far.socket.pause();
  near.socket.send(new Uint8Array(1_000_000));
  await until(() => far.octets > 0);
  const before = far.octets;
  await delay(20);
  assert.equal(far.octets, before);
  assert.ok(before <= 64 * 1024);
  near.socket.close();
  await delay(20);
  assert.equal(far.reason, undefined);
  far.onOctets = () => {};
  far.socket.resume();
  await until(() => far.reason !== undefined);
  assert.match(far.reason!, /connection reset by peer$/);
});

Deno.test("a busy socket leaves the others their turn", async () => {
  await using world = new World();
  const busy = await world.join(), quiet = await world.join();
  const pump = () => {
    while (!busy.near.socket.closed && busy.near.socket.send(new Uint8Array(64 * 1024)));
  };
  busy.near.onWritable = pump;
  pump();
  await until(() => busy.far.octets > 10_000_000);
  // In turns, not in time: who gets a processor when is not for us to say.
  let worst = 0;
  for (let i = 1; i <= 50; i++) {
    const before = busy.far.octets;
    quiet.near.socket.send(Uint8Array.of(i));
    await until(() => quiet.far.octets === i, 0);
    worst = Math.max(worst, busy.far.octets - before);
  }
  assert.ok(worst < 64_000_000, `${worst} octets of the busy one came first`);
});

Deno.test("a socket may be closed from any callback", async () => {
  await using world = new World();
  const first = await world.join();
  first.far.onOctets = () => first.far.socket.close();
  first.near.socket.send(new Uint8Array(500_000));
  await until(() => first.near.reason !== undefined);
  assert.equal(first.far.reason, undefined);
  const accepted = Promise.withResolvers<void>();
  const listener = world.theirs.listen({ address: LOOPBACK, port: 0 }, {
    onAccepted(socket) {
      socket.close();
      listener.close();
      accepted.resolve();
    },
  });
  const reason = Promise.withResolvers<string>();
  world.ours.dial(listener.local, {
    onConnected: (socket) => socket.start({ onOctets() {}, onWritable() {}, onClosed: reason.resolve }),
    onFailed: reason.resolve,
  });
  await accepted.promise;
  assert.match(await reason.promise, /connection reset by peer$/);
  assert.match(await world.failure(listener.local, {}), /connection refused$/);
});

Deno.test("listen() goes on after descriptors ran out", async () => {
  const script = `
    import { ControlSockets } from ${JSON.stringify(new URL("./sockets.ts", import.meta.url).href)};
    const warnings = [];
    const log = { warn: (event, fields) => warnings.push(fields.errno) };
    const sockets = new ControlSockets({ log });
    const { local } = sockets.listen({ port: 0 }, { onAccepted: (socket) => socket.close() });
    const files = [];
    const client = new Deno.Command("bash", { args: ["-c", "sleep 0.3; exec 3<>/dev/tcp/127.0.0.1/" + local.port + "; cat <&3"] }).spawn();
    try { for (;;) files.push(Deno.openSync("/dev/null")); } catch {}
    await new Promise((resolve) => setTimeout(resolve, 700));
    const calls = warnings.length;
    for (const file of files) file.close();
    await client.status;
    await sockets.stop();
    console.log(JSON.stringify({ errno: warnings[0], few: calls >= 1 && calls <= 4 }));`;
  const args = ["-c", 'ulimit -n 64; exec "$@"', "bash", Deno.execPath(), "eval", "--no-lock", script];
  const { stdout, stderr } = await new Deno.Command("bash", { args }).output();
  const decoder = new TextDecoder();
  assert.equal(decoder.decode(stdout), '{"errno":"EMFILE","few":true}\n', decoder.decode(stderr));
});

Deno.test("stop() ends the wait, and leaves no descriptor open", async () => {
  using trace = new DescriptorTrace();
  const world = new World();
  await world.join();
  world.ours.dial({ address: LOOPBACK, port: world.port }, { onConnected() {}, onFailed() {} });
  const started = performance.now();
  await world[Symbol.asyncDispose]();
  await world.ours.stop();
  assert.ok(performance.now() - started < 100);
  assert.deepEqual(trace.left(), []);
  assert.throws(() => world.ours.listen({ port: 0 }, { onAccepted() {} }), { message: /they were stopped$/ });
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("dial() tells silence from a host that is not there, and from no way to it", async () => {
    await run("/bin/sh", [
      "-ec",
      `
      ip link add ho0 type veth peer name ho1
      ip address add 10.9.0.1/24 dev ho0
      ip link set ho0 up; ip link set ho1 up
      ip neighbour add 10.9.0.2 lladdr 02:00:00:00:00:02 dev ho0
      echo 1 > /proc/sys/net/ipv4/neigh/ho0/mcast_solicit`,
    ]);
    await using world = new World();
    const fail = (address: string) => world.failure({ address: parseIpv4(address)!, port: 6783 }, { limitMs: 1500 });
    const started = performance.now();
    assert.equal(await fail("10.9.0.2"), "dial tcp :0->10.9.0.2:6783: i/o timeout");
    assert.ok(performance.now() - started >= 1490);
    assert.equal(await fail("10.9.0.3"), "dial tcp :0->10.9.0.3:6783: connect: no route to host");
    assert.equal(await fail("192.0.2.1"), "dial tcp :0->192.0.2.1:6783: connect: network is unreachable");
  });
});

/** One end of a connection, and what it heard. */
class End {
  readonly #pieces: Uint8Array[] = [];
  octets = 0;
  writable = 0;
  reason: string | undefined;
  onOctets: () => void = () => {};
  onWritable: () => void = () => {};

  constructor(readonly socket: ControlSocket) {
    socket.start({
      onOctets: (octets) => {
        this.#pieces.push(octets);
        this.octets += octets.length;
        this.onOctets();
      },
      onWritable: () => {
        this.writable++;
        this.onWritable();
      },
      onClosed: (reason) => this.reason = reason,
    });
  }

  /** All octets so far. */
  received(): Uint8Array {
    const all = new Uint8Array(this.octets);
    let at = 0;
    for (const piece of this.#pieces) {
      all.set(piece, at);
      at += piece.length;
    }
    return all;
  }
}

/** Two routers on loopback. */
class World implements AsyncDisposable {
  readonly ours = new ControlSockets();
  readonly theirs = new ControlSockets();
  readonly #listener: Listener;
  #onAccepted: (end: End) => void = () => {};

  constructor() {
    this.#listener = this.theirs.listen({ address: LOOPBACK, port: 0 }, {
      onAccepted: (socket) => this.#onAccepted(new End(socket)),
    });
  }

  get port(): number {
    return this.#listener.local.port;
  }

  /** The next socket that the listener accepts. */
  accept(): Promise<End> {
    return new Promise((resolve) => this.#onAccepted = resolve);
  }

  async join(options: DialOptions = {}): Promise<{ near: End; far: End }> {
    const far = this.accept();
    const near = new Promise<End>((resolve, reject) => {
      const handler = {
        onConnected: (socket: ControlSocket) => resolve(new End(socket)),
        onFailed: (reason: string) => reject(new Error(reason)),
      };
      this.ours.dial(this.#listener.local, handler, options);
    });
    return { near: await near, far: await far };
  }

  /** Why dialling fails. */
  failure(remote: Endpoint, options: DialOptions): Promise<string> {
    return new Promise((resolve) => {
      this.ours.dial(
        remote,
        { onConnected: (socket) => resolve(`connected ${socket.closed}`), onFailed: resolve },
        options,
      );
    });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.ours.stop();
    await this.theirs.stop();
  }
}

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(done: () => boolean, everyMs = 2): Promise<void> {
  for (const limit = performance.now() + 5000; performance.now() < limit;) {
    if (done()) return;
    await delay(everyMs);
  }
  assert.fail("did not come to pass within 5 s");
}
