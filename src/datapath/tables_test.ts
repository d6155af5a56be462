import assert from "node:assert/strict";
import type { PeerName } from "../lib/mac.ts";
import {
  BITSET_WORDS,
  type ConnectionEntry,
  type PeerRoutes,
  SLOT_CONFIRMED,
  SLOT_ENCRYPTED,
  SLOT_ESTABLISHED,
  SLOT_HAS_ADDRESS,
  SLOT_PRESENT,
  SLOTS,
  type TableListener,
  Tables,
  TABLES_OCTETS,
  TableWriter,
} from "./tables.ts";

const US = 0x02aa_0000_0001 as PeerName;
const B = 0x02bb_0000_0002 as PeerName;
const C = 0x02cc_0000_0003 as PeerName;

Deno.test("a published connection arrives as it was, and is known by its peer's name once confirmed", () => {
  const { writer, tables, log } = pair();
  const key = Uint8Array.from({ length: 32 }, (_, i) => i + 200);
  const entry = connection({ key, remote: { address: 0xc6120902, port: 6783 }, confirmed: false });
  writer.publishConnection(5, entry);
  tables.refresh(log);
  assert.equal(tables.slotFlags[5], SLOT_PRESENT | SLOT_ENCRYPTED | SLOT_ESTABLISHED | SLOT_HAS_ADDRESS);
  assert.deepEqual([tables.slotAddress[5], tables.slotPort[5]], [0xc6120902, 6783]);
  assert.deepEqual([tables.slotMtu[5], tables.slotMaxPayload[5]], [1438, 1472]);
  assert.deepEqual(new Uint8Array(tables.slotKey.buffer, 5 * 32, 32), key);
  assert.equal(tables.slotOf(0x02bb, 2), -1);
  assert.deepEqual(log.take(), ["replaced 5", "changed 5"]);

  writer.publishConnection(5, { ...entry, confirmed: true });
  tables.refresh(log);
  assert.equal(tables.slotOf(0x02bb, 2), 5);
  assert.ok(tables.slotFlags[5]! & SLOT_CONFIRMED);
  assert.deepEqual(log.take().filter((l) => l.endsWith(" 5")), ["changed 5"]);

  writer.publishConnection(5, { ...entry, generation: 8, confirmed: true });
  tables.refresh(log);
  assert.ok(log.take().includes("replaced 5"));

  writer.publishConnection(5, undefined);
  tables.refresh(log);
  assert.equal(tables.slotOf(0x02bb, 2), -1);
  assert.ok(log.take().includes("replaced 5"));
  tables.refresh(log);
  assert.deepEqual(log.take(), []);
});

Deno.test("of two confirmed connections to a peer the newer has its name", () => {
  const { writer, tables, log } = pair();
  writer.publishConnection(1, connection({ generation: 9 }));
  writer.publishConnection(2, connection({ generation: 4 }));
  tables.refresh(log);
  assert.equal(tables.slotOf(0x02bb, 2), 1);
  writer.publishConnection(1, undefined);
  tables.refresh(log);
  assert.equal(tables.slotOf(0x02bb, 2), 2);
});

Deno.test("peers keep their index while they are known; one that takes the place of another is told", () => {
  const { writer, tables, log } = pair();
  writer.publishRoutes(US, [route(US), route(B, 0, []), route(C, 0, [1, 40])]);
  tables.refresh(log);
  const b = tables.peerOf(0x02bb, 2), c = tables.peerOf(0x02cc, 3);
  assert.equal(tables.peerOf(0x02aa, 1), tables.ourPeer);
  assert.deepEqual([tables.peerRoute[b], tables.peerRoute[c], tables.peerRoute[tables.ourPeer]], [0, 0, -1]);
  assert.deepEqual(tables.peerBroadcast[c * BITSET_WORDS], 2);
  assert.deepEqual(tables.peerBroadcast[c * BITSET_WORDS + 1], 1 << 8);
  log.take();

  writer.publishRoutes(US, [route(C, 7), route(US)]);
  tables.refresh(log);
  assert.deepEqual([tables.peerOf(0x02bb, 2), tables.peerOf(0x02cc, 3), tables.peerRoute[c]], [-1, c, 7]);
  assert.deepEqual(log.take(), [`peer ${b}`]);
  assert.deepEqual([writer.peerAt(c), writer.peerAt(b)], [C, 0]);
});

Deno.test("publishRoutes() says how many peers there was no room for", () => {
  const { writer } = pair();
  const many = Array.from({ length: 4100 }, (_, i) => route((i + 1) as PeerName));
  assert.equal(writer.publishRoutes(1 as PeerName, many), 4);
});

Deno.test("publishConnection() throws for a slot that is none", () => {
  assert.throws(() => pair().writer.publishConnection(SLOTS, undefined), RangeError);
});

Deno.test("a reader in another thread never sees half of what was published", async () => {
  const memory = new SharedArrayBuffer(TABLES_OCTETS);
  const source = `
    import { Tables } from "${import.meta.resolve("./tables.ts")}";
    self.onmessage = ({ data }) => {
      const tables = new Tables(data), none = { connectionReplaced() {}, connectionChanged() {}, peerReplaced() {} };
      let seen = 0, wrong = 0, last = -1;
      while (!tables.stopRequested) {
        tables.refresh(none);
        const n = tables.slotGeneration[3];
        if (n !== last) seen++;
        last = n;
        for (const field of [tables.slotMtu, tables.slotPort, tables.slotMaxPayload]) if (field[3] !== n) wrong++;
        for (let i = 0; i < 8; i++) if (tables.slotKey[24 + i] !== n) wrong++;
      }
      self.postMessage({ seen, wrong });
    };
    self.postMessage("ready");`;
  const worker = new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
  await new Promise((resolve) => worker.onmessage = resolve);
  const result = new Promise<{ seen: number; wrong: number }>((resolve) => worker.onmessage = (e) => resolve(e.data));
  worker.postMessage(memory);
  const writer = new TableWriter(memory);
  const end = performance.now() + 300;
  for (let n = 1; performance.now() < end; n = n % 60_000 + 1) {
    const key = new Uint8Array(new Uint32Array(8).fill(n).buffer);
    writer.publishConnection(
      3,
      connection({ key, generation: n, mtu: n, maxPayload: n, remote: { address: n, port: n } }),
    );
    if (n % 500 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  writer.requestStop();
  const { seen, wrong } = await result;
  worker.terminate();
  assert.equal(wrong, 0);
  assert.ok(seen > 10, `saw ${seen}`);
});

function pair() {
  const memory = new SharedArrayBuffer(TABLES_OCTETS);
  return { writer: new TableWriter(memory), tables: new Tables(memory), log: new Log() };
}

class Log implements TableListener {
  #lines: string[] = [];
  connectionReplaced(slot: number): void {
    this.#lines.push(`replaced ${slot}`);
  }
  connectionChanged(slot: number): void {
    if (slot === 5) this.#lines.push(`changed ${slot}`);
  }
  peerReplaced(index: number): void {
    this.#lines.push(`peer ${index}`);
  }
  take(): string[] {
    return this.#lines.splice(0);
  }
}

function connection(changes: Partial<ConnectionEntry>): ConnectionEntry {
  return {
    peer: B,
    generation: 7,
    outbound: false,
    confirmed: true,
    established: true,
    mtu: 1438,
    maxPayload: 1472,
    stackFragments: false,
    ...changes,
  };
}

function route(name: PeerName, unicastSlot = -1, broadcastSlots: number[] = []): PeerRoutes {
  return { name, unicastSlot, broadcastSlots };
}
