import assert from "node:assert/strict";
import { TooBigFrames } from "./too_big.ts";
import { FrameMemory } from "../lib/frame_memory.ts";

const FRAME_AT = 128, RESULT_AT = 16_384;

Deno.test("writeTooBig() makes the ICMP messages of the vectors", () => {
  interface Case {
    offending_frame_first_42: string;
    offending_frame_len: number;
    overlay_mtu: number;
    reply_frame: string;
  }
  for (const c of vectors<Case>("sleeve-icmp")) {
    const { m, frames } = place(c.offending_frame_first_42);
    const length = frames.writeTooBig(RESULT_AT, FRAME_AT, c.offending_frame_len, c.overlay_mtu);
    assert.equal(toHex(m.u8.subarray(RESULT_AT, RESULT_AT + length)), c.reply_frame);
  }
});

Deno.test("writeFragment() makes the fragments of the vectors", () => {
  interface Case {
    frame: string;
    overlay_mtu: number;
    too_big: boolean;
    fragments: string[] | null;
  }
  for (const c of vectors<Case>("sleeve-fragment").filter((c) => c.too_big)) {
    const { m, frames } = place(c.frame);
    assert.deepEqual(fragment(m, frames, c.frame.length / 2, c.overlay_mtu), c.fragments);
  }
});

Deno.test("fragments of a frame with padding and options hold its payload once", () => {
  const options = "9404000001010100";
  const frame = "0600000000020600000000010800" + "4700003c12340000401100000a2000010a200002" + options +
    Array.from({ length: 32 }, (_, i) => i.toString(16).padStart(2, "0")).join("") + "ffffff";
  const { m, frames } = place(frame);
  const parts = fragment(m, frames, frame.length / 2, 48);
  assert.equal(parts.length, 2);
  assert.equal(
    parts.map((p) => p.slice(84, 84 + 2 * (parseInt(p.slice(32, 36), 16) - 28))).join(""),
    frame.slice(84, -6),
  );
  for (const p of parts) assert.equal(p.slice(68, 84), options);
});

Deno.test("nothing is written for frames that are cut short or no IPv4", () => {
  const { m, frames } = place("0600000000020600000000010800" + "45000400123400004011000000000000ffffffff");
  assert.equal(frames.writeTooBig(RESULT_AT, FRAME_AT, 41, 600), 0);
  assert.equal(frames.writeFragment(RESULT_AT, FRAME_AT, 700, 600, 0), 0);
  for (const first of [0x44, 0x65, 0x4f]) {
    m.u8[FRAME_AT + 14] = first;
    assert.equal(frames.fragmentOctets(FRAME_AT, 60, 600), 0);
    assert.equal(frames.writeTooBig(RESULT_AT, FRAME_AT, 60, 600), 0);
    assert.equal(frames.writeFragment(RESULT_AT, FRAME_AT, 60, 600, 0), 0);
  }
});

function place(frame: string) {
  const m = new FrameMemory(new ArrayBuffer(32_768));
  m.u8.fill(0xdd);
  m.u8.set(Uint8Array.from(frame.match(/../g)!, (h) => parseInt(h, 16)), FRAME_AT);
  return { m, frames: new TooBigFrames(m) };
}

function fragment(m: FrameMemory, frames: TooBigFrames, length: number, mtu: number): string[] {
  const step = frames.fragmentOctets(FRAME_AT, length, mtu);
  const result: string[] = [];
  for (let offset = 0;; offset += step) {
    const octets = frames.writeFragment(RESULT_AT, FRAME_AT, length, mtu, offset);
    if (octets === 0) return result;
    result.push(toHex(m.u8.subarray(RESULT_AT, RESULT_AT + octets)));
  }
}

function vectors<Case>(name: string): Case[] {
  const path = new URL(`../../test/fixtures/vectors/${name}.json`, import.meta.url);
  return JSON.parse(Deno.readTextFileSync(path)).cases;
}

function toHex(octets: Uint8Array): string {
  return [...octets].map((o) => o.toString(16).padStart(2, "0")).join("");
}
