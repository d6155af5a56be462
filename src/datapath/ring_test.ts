import assert from "node:assert/strict";
import { RECORD_WORDS, RING_OCTETS, RingReader, RingWriter } from "./ring.ts";

Deno.test("a ring gives records in the order they were put, and refuses when full", () => {
  const memory = new SharedArrayBuffer(RING_OCTETS);
  const writer = new RingWriter(memory), reader = new RingReader(memory);
  assert.equal(reader.peek(), -1);
  let put = 0;
  for (let at = writer.reserve(); at >= 0; at = writer.reserve()) {
    writer.words[at] = put++;
    writer.words[at + RECORD_WORDS - 1] = ~put;
    writer.commit();
  }
  assert.equal(put, 1024);
  for (let taken = 0; taken < put; taken++) {
    const at = reader.peek();
    assert.equal(reader.words[at], taken);
    reader.release();
  }
  assert.equal(reader.peek(), -1);
});

Deno.test("wakeNeeded() is true once until the taker looks again", () => {
  const memory = new SharedArrayBuffer(RING_OCTETS);
  const writer = new RingWriter(memory), reader = new RingReader(memory);
  assert.deepEqual([writer.wakeNeeded(), writer.wakeNeeded()], [true, false]);
  reader.rearm();
  assert.equal(writer.wakeNeeded(), true);
});

Deno.test("a ring loses and mixes nothing between two threads", async () => {
  const RECORDS = 200_000;
  const memory = new SharedArrayBuffer(RING_OCTETS);
  const reader = new RingReader(memory);
  const worker = inlineWorker(`
    import { RECORD_WORDS, RingWriter } from "${import.meta.resolve("./ring.ts")}";
    self.onmessage = ({ data }) => {
      const writer = new RingWriter(data);
      for (let n = 0; n < ${RECORDS};) {
        const at = writer.reserve();
        if (at < 0) continue;
        for (let i = 0; i < RECORD_WORDS; i++) writer.words[at + i] = n * 31 + i;
        writer.commit();
        n++;
      }
    };`);
  worker.postMessage(memory);
  for (let n = 0; n < RECORDS;) {
    const at = reader.peek();
    if (at < 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      continue;
    }
    for (let i = 0; i < RECORD_WORDS; i++) assert.equal(reader.words[at + i], (n * 31 + i) >>> 0);
    reader.release();
    n++;
  }
  worker.terminate();
});

function inlineWorker(source: string): Worker {
  return new Worker(URL.createObjectURL(new Blob([source], { type: "text/javascript" })), { type: "module" });
}
