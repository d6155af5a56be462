import assert from "node:assert/strict";
import { openPacketBoxes } from "./packet_boxes.ts";

const KEY = 0, NONCE = 64, PACKET = 1024, COPY = 80_000;

for (const webAssembly of [false, true]) {
  const how = webAssembly ? "WebAssembly" : "library";

  Deno.test(`seal() makes the boxes of the sleeve vectors, open() reads them (${how})`, async () => {
    const { memory, boxes } = await open(webAssembly);
    assert.match(boxes.implementation, webAssembly ? /WebAssembly/ : /libsodium/);
    interface Packet {
      packet?: string;
      nonce: string;
      frames: { src: string; dst: string; len: number; frame?: string }[];
    }
    const vectors = JSON.parse(Deno.readTextFileSync("test/fixtures/vectors/sleeve-encrypted.json")) as {
      key: string;
      streams: { packets: Packet[] }[];
    };
    memory.set(fromHex(vectors.key), KEY);
    let checked = 0;
    for (const { packet, nonce, frames } of vectors.streams.flatMap((s) => s.packets)) {
      if (!packet || frames.some((f) => f.frame === undefined)) continue;
      const text = fromHex(frames.map((f) => f.src + f.dst + f.len.toString(16).padStart(4, "0") + f.frame).join(""));
      memory.set(fromHex(nonce), NONCE);
      memory.set(text, COPY + 3);
      boxes.seal(PACKET + 30, PACKET + 14, COPY + 3, text.length, NONCE, KEY);
      const box = memory.slice(PACKET + 14, PACKET + 30 + text.length);
      assert.equal(toHex(box), packet.slice(28));
      assert.equal(boxes.open(PACKET + 30, PACKET + 14, text.length, NONCE, KEY), true);
      assert.deepEqual(memory.slice(PACKET + 30, PACKET + 30 + text.length), text);
      checked++;
    }
    assert.ok(checked > 5);
  });

  Deno.test(`open() refuses any change of box, nonce and key, and leaves the memory alone (${how})`, async () => {
    const { memory, boxes } = await open(webAssembly);
    const text = Uint8Array.from({ length: 100 }, (_, i) => i);
    memory.set(text, PACKET + 30);
    boxes.seal(PACKET + 30, PACKET + 14, PACKET + 30, 100, NONCE, KEY);
    for (const at of [PACKET + 14, PACKET + 29, PACKET + 30, PACKET + 129, NONCE, KEY + 31]) {
      memory[at]! ^= 4;
      const before = memory.slice(PACKET, PACKET + 200);
      assert.equal(boxes.open(PACKET + 30, PACKET + 14, 100, NONCE, KEY), false);
      assert.deepEqual(memory.slice(PACKET, PACKET + 200), before);
      memory[at]! ^= 4;
    }
    assert.equal(boxes.open(PACKET + 30, PACKET + 14, 100, NONCE, KEY), true);
    assert.deepEqual(memory.slice(PACKET + 30, PACKET + 130), text);
  });

  Deno.test(`seal() and open() make no garbage (${how})`, async () => {
    const { boxes } = await open(webAssembly);
    const turn = () => {
      boxes.seal(PACKET + 30, PACKET + 14, COPY, 64, NONCE, KEY);
      boxes.open(PACKET + 30, PACKET + 14, 64, NONCE, KEY);
    };
    let grown = Infinity;
    for (let round = 0; round < 12 && grown > 20_000; round++) {
      const before = Deno.memoryUsage().heapUsed;
      for (let i = 0; i < 20_000; i++) turn();
      const after = Deno.memoryUsage().heapUsed;
      if (after >= before) grown = after - before;
    }
    assert.ok(grown <= 20_000, `${grown} octets in 20,000 turns`);
  });
}

async function open(webAssembly: boolean) {
  const memory = new Uint8Array(new WebAssembly.Memory({ initial: 4, maximum: 4 }).buffer as ArrayBuffer);
  return { memory, boxes: await openPacketBoxes(memory, webAssembly) };
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (h) => parseInt(h, 16));
}

function toHex(octets: Uint8Array): string {
  return [...octets].map((o) => o.toString(16).padStart(2, "0")).join("");
}
