import assert from "node:assert/strict";
import { type ControlBoxes, openControlBoxes } from "./control_boxes.ts";

interface KeyCase {
  a_private: string;
  a_public: string;
  b_private: string;
  b_public: string;
  password_hex: string;
  session_key: string;
}

interface FrameStream {
  key: string;
  frames: {
    nonce: string;
    plaintext: string;
    plaintext_len?: number;
    frame?: string;
    frame_len?: number;
    frame_prefix_64?: string;
  }[];
}

const KEYS = (read("session-key.json") as { cases: KeyCase[] }).cases;
const STREAMS = (read("tcp-frames.json") as { encrypted: FrameStream[] }).encrypted;

for (const forceWebAssembly of [false, true]) {
  const how = forceWebAssembly ? "WebAssembly" : "library";
  const test = (name: string, run: (boxes: ControlBoxes) => void) =>
    Deno.test(`${name} (${how})`, async () => run(await openControlBoxes({ forceWebAssembly })));

  test("openControlBoxes() says what it uses", (boxes) => {
    assert.match(boxes.implementation, forceWebAssembly ? /^libsodium \(WebAssembly\)$/ : /^libsodium/);
  });

  test("sessionKey() gives both sides the key of the vectors", (boxes) => {
    for (const c of KEYS) {
      const password = Uint8Array.fromHex(c.password_hex);
      const key = (theirs: string, ours: string) =>
        boxes.sessionKey(Uint8Array.fromHex(theirs), Uint8Array.fromHex(ours), password)?.toHex();
      assert.equal(key(c.b_public, c.a_private), c.session_key);
      assert.equal(key(c.a_public, c.b_private), c.session_key);
    }
  });

  test("sessionKey() refuses public keys that would give everybody the same shared key", (boxes) => {
    const { privateKey } = boxes.generateKeyPair();
    for (const low of [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]) {
      assert.equal(boxes.sessionKey(low, privateKey, new Uint8Array()), undefined);
    }
  });

  Deno.test(`generateKeyPair() uses up the given keys, then random ones (${how})`, async () => {
    const privateKeys = KEYS.map((c) => Uint8Array.fromHex(c.a_private));
    const boxes = await openControlBoxes({ forceWebAssembly, privateKeys });
    for (const c of KEYS) {
      const pair = boxes.generateKeyPair();
      assert.deepEqual([pair.privateKey.toHex(), pair.publicKey.toHex()], [c.a_private, c.a_public]);
    }
    const [one, other] = [boxes.generateKeyPair(), boxes.generateKeyPair()];
    assert.notEqual(one.privateKey.toHex(), other.privateKey.toHex());
    const password = Uint8Array.of(1);
    assert.deepEqual(
      boxes.sessionKey(other.publicKey, one.privateKey, password),
      boxes.sessionKey(one.publicKey, other.privateKey, password),
    );
  });

  test("seal() makes the frames of the vectors, open() reads them", (boxes) => {
    for (const { key, frames } of STREAMS) {
      for (const frame of frames) {
        const message = frame.plaintext_len
          ? new Uint8Array(frame.plaintext_len).fill(0x5a)
          : Uint8Array.fromHex(frame.plaintext);
        const [nonce, k] = [Uint8Array.fromHex(frame.nonce), Uint8Array.fromHex(key)];
        const box = boxes.seal(message, nonce, k);
        if (frame.frame) assert.equal(box.toHex(), frame.frame.slice(8));
        else {
          assert.equal(box.length, frame.frame_len! - 4);
          assert.equal(box.subarray(0, 60).toHex(), frame.frame_prefix_64!.slice(8));
        }
        assert.deepEqual(boxes.open(box, nonce, k), message);
      }
    }
  });

  test("open() refuses any change, and what is too short to be a box", (boxes) => {
    const [nonce, key] = [new Uint8Array(24), new Uint8Array(32)];
    const box = boxes.seal(Uint8Array.of(1, 2, 3), nonce, key);
    for (let at = 0; at < box.length; at++) {
      box[at]! ^= 1;
      assert.equal(boxes.open(box, nonce, key), undefined);
      box[at]! ^= 1;
    }
    assert.deepEqual(boxes.open(box, nonce, key), Uint8Array.of(1, 2, 3));
    for (let length = 0; length < box.length; length++) {
      assert.equal(boxes.open(box.subarray(0, length), nonce, key), undefined);
    }
  });

  test("seal() and open() take the longest message, and views", (boxes) => {
    const [nonce, key] = [new Uint8Array(25).subarray(1), new Uint8Array(40).subarray(8)];
    const message = new Uint8Array(10_485_760 + 3).fill(7).subarray(3);
    const box = boxes.seal(message, nonce, key);
    assert.equal(boxes.open(box, nonce, key)?.every((octet) => octet === 7), true);
  });

  test("keys and nonces of another length are refused", (boxes) => {
    const pair = boxes.generateKeyPair();
    assert.throws(() => boxes.seal(new Uint8Array(), new Uint8Array(23), new Uint8Array(32)), RangeError);
    assert.throws(() => boxes.open(new Uint8Array(16), new Uint8Array(24), new Uint8Array(31)), RangeError);
    assert.throws(() => boxes.sessionKey(new Uint8Array(31), pair.privateKey, new Uint8Array()), RangeError);
  });
}

Deno.test("openControlBoxes() refuses private keys of another length", async () => {
  await assert.rejects(openControlBoxes({ privateKeys: [new Uint8Array(31)] }), RangeError);
});

function read(name: string): unknown {
  return JSON.parse(Deno.readTextFileSync(`test/fixtures/vectors/${name}`));
}
