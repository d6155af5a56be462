import assert from "node:assert/strict";
import { openAsker, openService, receiveDatagram, sendDatagram } from "../../ffi/datagrams.ts";
import { type Endpoint, parseEndpoint } from "../lib/ip.ts";
import { DnsAskers, type DnsHandler, DnsRoom, listenForDns, type Ticket } from "./dns_sockets.ts";
import { ControlSockets } from "./sockets.ts";

const FORWARD = -1;
/** First octets of messages that the handler below answers at once, later, or not at all. */
const ECHO = 1, LATER = 2, NEVER = 3;

Deno.test("listenForDns() answers over UDP, at once and later", async () => {
  await using world = new World();
  using asker = openAsker();
  for (let i = 0; i < 100; i++) sendDatagram(asker, Uint8Array.of(ECHO, i), world.at);
  sendDatagram(asker, Uint8Array.of(NEVER), world.at);
  sendDatagram(asker, Uint8Array.of(LATER, 200), world.at);
  const answers = new Set<number>();
  const buffer = new Uint8Array(100);
  await until(() => {
    const result = receiveDatagram(asker, buffer);
    if ("octets" in result) answers.add(buffer[1]!);
    return answers.size === 100;
  });
  assert.equal(world.tickets.length, 1);
  world.tickets[0]!.answer(Uint8Array.of(LATER, 200, 1));
  await until(() => "octets" in receiveDatagram(asker, buffer));
  assert.equal(buffer[1], 200);
});

Deno.test("listenForDns() answers several queries of a connection, however they are cut", async () => {
  await using world = new World();
  using client = await world.connect();
  const queries = [[ECHO, 1], [LATER, 2], [ECHO, 3]].flatMap((query) => [0, query.length, ...query]);
  for (const octet of queries) await client.write(Uint8Array.of(octet));
  assert.deepEqual(await readMessage(client), [ECHO, 1]);
  assert.deepEqual(await readMessage(client), [ECHO, 3], "it does not wait");
  world.tickets[0]!.answer(new Uint8Array(60_000).fill(7));
  assert.equal((await readMessage(client)).length, 60_000);
});

Deno.test("listenForDns() answers a client that has said all it had to say", async () => {
  await using world = new World();
  using client = await world.connect();
  await client.write(Uint8Array.of(0, 2, LATER, 2));
  await client.closeWrite();
  await until(() => world.tickets.length === 1);
  world.tickets[0]!.answer(Uint8Array.of(LATER, 2));
  assert.deepEqual(await readMessage(client), [LATER, 2]);
  assert.equal(await client.read(new Uint8Array(1)), null);
});

Deno.test("listenForDns() bounds connections of a client, and what one may leave open", async () => {
  await using world = new World();
  const clients = await Promise.all(Array.from({ length: 20 }, () => world.connect()));
  await until(() => world.refused === 4);
  using greedy = clients[0]!;
  for (let i = 0; i < 20; i++) await greedy.write(Uint8Array.of(0, 1, LATER)).catch(() => {});
  await until(() => world.refused === 5);
  assert.equal(world.tickets.length, 16);
  world.tickets.forEach((ticket) => ticket.answer(Uint8Array.of(1)));
  for (const client of clients.slice(1)) client.close();
  await until(async () => {
    using client = await world.connect();
    await client.write(Uint8Array.of(0, 2, ECHO, 9));
    return (await readMessage(client)).length === 2;
  });
});

Deno.test("listenForDns() names the address that cannot be had", async () => {
  await using world = new World();
  const { sockets, room, handler } = world;
  assert.throws(() => listenForDns({ at: world.at, sockets, room, handler }), {
    name: "OperationError",
    message: `Cannot listen for DNS queries at 127.0.0.1:${world.at.port}: EADDRINUSE`,
  });
});

Deno.test("DnsAskers asks over UDP, and tells of every reply and of who it was", async () => {
  await using world = new World();
  const server = openService({ address: 0x7f00_0001, port: 0 });
  using fd = server.fd;
  using other = openAsker();
  world.askers.ask(1, server.local, Uint8Array.of(5, 6), "udp");
  const buffer = new Uint8Array(100);
  let who: Endpoint | undefined;
  await until(() => {
    const result = receiveDatagram(fd, buffer);
    if ("from" in result) who = result.from;
    return who !== undefined;
  });
  assert.deepEqual([...buffer.subarray(0, 2)], [5, 6]);
  sendDatagram(other, Uint8Array.of(66), who!);
  sendDatagram(fd, Uint8Array.of(7), who!);
  await until(() => world.replies.length === 2);
  assert.deepEqual(world.replies.map(({ octets }) => [...octets]), [[66], [7]]);
  assert.deepEqual(world.replies[1]!.from, server.local);
  assert.notEqual(world.replies[0]!.from.port, server.local.port);
  world.askers.close(1);
  sendDatagram(fd, Uint8Array.of(8), who!);
  await new Promise((resolve) => setTimeout(resolve, 30));
  assert.equal(world.replies.length, 2);
});

Deno.test("DnsAskers asks over TCP, and puts the answer together", async () => {
  await using world = new World();
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const at = parseEndpoint(`127.0.0.1:${(listener.addr as Deno.NetAddr).port}`)!;
  world.askers.ask(1, at, Uint8Array.of(5, 6), "tcp");
  using server = await listener.accept();
  listener.close();
  assert.deepEqual(await readMessage(server), [5, 6]);
  const answer = new Uint8Array(2 + 300).fill(9);
  answer.set([1, 44]);
  for (const part of [answer.subarray(0, 1), answer.subarray(1, 100), answer.subarray(100)]) {
    await server.write(part);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  await until(() => world.replies.length === 1);
  assert.equal(world.replies[0]!.octets.length, 300);
  world.askers.close(1);
});

Deno.test("DnsAskers tells where nobody listens, and where a connection ends early", async () => {
  await using world = new World();
  const closed = openService({ address: 0x7f00_0001, port: 0 });
  closed.fd.close();
  world.askers.ask(1, closed.local, Uint8Array.of(5), "udp");
  world.askers.ask(2, closed.local, Uint8Array.of(5), "tcp");
  world.askers.ask(3, { address: 0xffff_ffff, port: 53 }, Uint8Array.of(5), "udp");
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const at = parseEndpoint(`127.0.0.1:${(listener.addr as Deno.NetAddr).port}`)!;
  world.askers.ask(4, at, Uint8Array.of(5), "tcp");
  (await listener.accept()).close();
  listener.close();
  await until(() => world.failed.size === 4);
  for (const attempt of [1, 2, 3, 4]) world.askers.close(attempt);
});

class World implements AsyncDisposable {
  readonly sockets = new ControlSockets();
  readonly room = new DnsRoom();
  readonly tickets: Ticket[] = [];
  readonly replies: { attempt: number; from: Endpoint; octets: Uint8Array }[] = [];
  readonly failed = new Set<number>();
  refused = 0;
  readonly handler: DnsHandler = {
    handle: (octets, at, length, answerAt) => {
      if (octets[at] === LATER) return FORWARD;
      if (octets[at] !== ECHO) return 0;
      this.room.answers.set(octets.subarray(at, at + length), answerAt);
      return length;
    },
    forward: (ticket) => void this.tickets.push(ticket),
    refused: () => void this.refused++,
  };
  readonly askers = new DnsAskers<number>(this.sockets, {
    replied: (attempt, from, octets) => void this.replies.push({ attempt, from, octets }),
    failed: (attempt) => void this.failed.add(attempt),
  });
  readonly #listener = listenForDns({
    at: { address: 0x7f00_0001, port: 0 },
    sockets: this.sockets,
    room: this.room,
    handler: this.handler,
  });

  get at(): Endpoint {
    return this.#listener.local;
  }

  connect(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: this.at.port });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#listener.close();
    this.askers.stop();
    await this.sockets.stop();
    // What is being closed is closed.
    await new Promise((resolve) => setTimeout(resolve, 60));
  }
}

async function readMessage(connection: Deno.Conn): Promise<number[]> {
  const read = async (count: number) => {
    const octets = new Uint8Array(count);
    for (let at = 0; at < count;) {
      const got = await connection.read(octets.subarray(at));
      assert.ok(got !== null, "the connection ended");
      at += got;
    }
    return octets;
  };
  const length = await read(2);
  return [...await read(length[0]! << 8 | length[1]!)];
}

async function until(ask: () => boolean | Promise<boolean>): Promise<void> {
  for (let i = 0; i < 400; i++) {
    if (await ask()) return;
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assert.fail("waited in vain");
}
