import assert from "node:assert/strict";
import { DatagramBatch, NONE_WAITS, openAsker, openService, receiveDatagram, sendDatagram } from "./datagrams.ts";
import { ERRNO } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { localAddress } from "./socket.ts";

const LOOPBACK = 0x7f00_0001;
const OTHER = 0x7f00_0002;

Deno.test("DatagramBatch answers many datagrams, each to who sent it", async () => {
  const service = openService({ address: LOOPBACK, port: 0 });
  using fd = service.fd;
  const batch = newBatch();
  const askers = Array.from({ length: 6 }, () => openAsker());
  try {
    askers.forEach((asker, i) => assert.equal(sendDatagram(asker, Uint8Array.of(1, 2, i), service.local), 0));
    assert.equal(batch.receive(fd), 4, "as many as there are slots");
    for (let i = 0; i < 4; i++) echo(batch, i);
    assert.equal(batch.flush(fd), 0);
    assert.equal(batch.receive(fd), 2);
    for (let i = 0; i < 2; i++) echo(batch, i);
    assert.equal(batch.flush(fd), 0);
    assert.equal(batch.receive(fd), -NONE_WAITS);
    for (const [i, asker] of askers.entries()) {
      const { octets, from } = await received(asker);
      assert.deepEqual([...octets], [1, 2, i, 99]);
      assert.deepEqual(from, service.local);
    }
  } finally {
    askers.forEach((asker) => asker.close());
  }
});

Deno.test("DatagramBatch answers from the address that was asked, at once and later", async () => {
  const service = openService({ address: 0, port: 0 });
  using fd = service.fd;
  using asker = openAsker();
  const batch = newBatch();
  const late = newBatch();
  for (const address of [LOOPBACK, OTHER]) {
    const at = { address, port: service.local.port };
    sendDatagram(asker, Uint8Array.of(7), at);
    assert.equal(batch.receive(fd), 1);
    assert.equal(batch.address(0), LOOPBACK);
    const route = batch.route(0);
    assert.deepEqual(route, { remote: { address: LOOPBACK, port: localAddress(asker).port }, local: address });
    echo(batch, 0);
    batch.flush(fd);
    assert.deepEqual((await received(asker)).from, at);
    assert.ok(late.send(fd, Uint8Array.of(1, 2, 3, 4, 5), route));
    const answer = await received(asker);
    assert.deepEqual([[...answer.octets], answer.from], [[1, 2, 3, 4, 5], at]);
  }
});

Deno.test("DatagramBatch says 0 octets of what is longer than a slot", () => {
  const service = openService({ address: LOOPBACK, port: 0 });
  using fd = service.fd;
  using asker = openAsker();
  const batch = newBatch();
  sendDatagram(asker, new Uint8Array(101), service.local);
  sendDatagram(asker, new Uint8Array(100), service.local);
  sendDatagram(asker, new Uint8Array(), service.local);
  assert.equal(batch.receive(fd), 3);
  assert.deepEqual([0, 1, 2].map((i) => batch.octets(i)), [0, 100, 0]);
});

Deno.test("DatagramBatch goes on after an answer that the kernel refuses", async () => {
  const service = openService({ address: LOOPBACK, port: 0 });
  using fd = service.fd;
  using asker = openAsker();
  const batch = newBatch();
  const late = newBatch();
  for (let i = 0; i < 3; i++) sendDatagram(asker, Uint8Array.of(i), service.local);
  assert.equal(batch.receive(fd), 3);
  const unreachable = { remote: { address: 0xf000_0001, port: 9 }, local: undefined };
  assert.equal(late.send(fd, Uint8Array.of(1), unreachable), false);
  for (let i = 0; i < 3; i++) echo(batch, i);
  assert.equal(batch.flush(fd), 0);
  for (let i = 0; i < 3; i++) assert.deepEqual([...(await received(asker)).octets], [i, 99]);
});

Deno.test("openService() refuses a port that is taken", () => {
  const first = openService({ address: LOOPBACK, port: 0 });
  using _fd = first.fd;
  assert.throws(() => openService(first.local), { errnoName: "EADDRINUSE" });
});

Deno.test("an asker hears that nobody listens", async () => {
  const service = openService({ address: LOOPBACK, port: 0 });
  service.fd.close();
  using asker = openAsker();
  assert.equal(sendDatagram(asker, Uint8Array.of(1), service.local), 0);
  const buffer = new Uint8Array(100);
  for (let i = 0; i < 100; i++) {
    const result = receiveDatagram(asker, buffer);
    if ("errno" in result && result.errno !== NONE_WAITS) return assert.equal(result.errno, ERRNO.ECONNREFUSED[0]);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  assert.fail("nothing was heard");
});

Deno.test("askers have ports of their own, far apart", () => {
  const ports = Array.from({ length: 20 }, () => {
    using asker = openAsker();
    return localAddress(asker).port;
  });
  assert.ok(new Set(ports).size > 15);
  assert.ok(Math.max(...ports) - Math.min(...ports) > 1000, `${ports}`);
});

Deno.test("DatagramBatch makes nothing per datagram that stays", () => {
  const service = openService({ address: LOOPBACK, port: 0 });
  using fd = service.fd;
  using asker = openAsker();
  const batch = newBatch();
  const buffer = new Uint8Array(100);
  const round = () => {
    sendDatagram(asker, Uint8Array.of(1), service.local);
    if (batch.receive(fd) === 1) echo(batch, 0);
    batch.flush(fd);
    receiveDatagram(asker, buffer);
  };
  for (let i = 0; i < 2_000; i++) round();
  const before = Deno.memoryUsage().rss;
  for (let i = 0; i < 20_000; i++) round();
  assert.ok(Deno.memoryUsage().rss - before < 30 << 20);
});

function newBatch(): DatagramBatch {
  return new DatagramBatch({ slots: 4, receiveOctets: 100, answerOctets: 100, spare: 0 });
}

/** Answers datagram i with itself and a 99. */
function echo(batch: DatagramBatch, i: number): void {
  const length = batch.octets(i);
  batch.answers.set(batch.received.subarray(batch.receivedAt(i), batch.receivedAt(i) + length), batch.answerAt(i));
  batch.answers[batch.answerAt(i) + length] = 99;
  batch.answer(i, length + 1);
}

async function received(fd: Fd) {
  const buffer = new Uint8Array(1000);
  for (let i = 0; i < 100; i++) {
    const result = receiveDatagram(fd, buffer);
    if ("octets" in result) return { octets: buffer.slice(0, result.octets), from: result.from };
    assert.equal(result.errno, NONE_WAITS);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error("nothing came");
}
