import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { Counters, countersOctets } from "../datapath/counters.ts";
import { CLASS_DF, CLASS_PLAIN, PacketBuilder } from "../datapath/packet_builder.ts";
import { SLOTS, Tables, TABLES_OCTETS, TableWriter } from "../datapath/tables.ts";
import { BoxIo } from "../host/packet_boxes.ts";
import { PacketMemory } from "../host/packet_io.ts";
import type { PeerName } from "../lib/mac.ts";

interface Packet {
  readonly seq: number;
  readonly note: string;
  readonly packet?: string;
  readonly packet_sha256?: string;
  readonly frames: readonly {
    readonly src: string;
    readonly dst: string;
    readonly len: number;
    readonly frame: string;
  }[];
}
interface Vectors {
  readonly key: string;
  readonly streams: readonly {
    readonly df: boolean;
    readonly sender_is_outbound: boolean;
    readonly packets: readonly Packet[];
  }[];
}

const US = 0x02aa_0000_0001 as PeerName;
const THEM = 0x02bb_0000_0002 as PeerName;
const ARENA = 256 * 1024;

for (const webAssembly of [false, true]) {
  Deno.test(`sealed packets are those of the vectors, octet for octet (WebAssembly: ${webAssembly})`, async () => {
    const path = new URL("../../test/fixtures/vectors/sleeve-encrypted.json", import.meta.url);
    const vectors: Vectors = JSON.parse(Deno.readTextFileSync(path));
    for (const stream of vectors.streams) {
      const world = await makeWorld(fromHex(vectors.key), stream.sender_is_outbound, webAssembly);
      const packetClass = stream.df ? CLASS_DF : CLASS_PLAIN;
      for (const p of stream.packets) {
        if (p.frames.length === 0) continue; // not ours to send
        world.sequences[packetClass] = p.seq;
        world.add(packetClass, p);
        const [sent, ...more] = world.flush();
        assert.deepEqual(more, []);
        if (p.packet) assert.equal(toHex(sent!), p.packet, p.note);
        else assert.equal(createHash("sha256").update(sent!).digest("hex"), p.packet_sha256, p.note);
      }
    }
  });
}

Deno.test("open() opens what the other side sealed, and not what this one did", async () => {
  const key = Uint8Array.from({ length: 32 }, (_, i) => i);
  const us = await makeWorld(key, true, false), them = await makeWorld(key, false, true);
  us.builder.addSpecial(0, CLASS_DF, 22, 1, 2);
  const [packet] = us.flush();
  for (const [world, expected] of [[them, true], [us, false]] as const) {
    const at = world.memory.take(1024);
    world.memory.frames.u8.set(packet!, at);
    assert.equal(world.boxes.open(0, at, packet!.length), expected);
    if (expected) assert.equal(world.memory.frames.get32(at + 30 + 14 + 18), 2);
  }
});

async function makeWorld(key: Uint8Array, outbound: boolean, webAssembly: boolean) {
  const memory = new PacketMemory(ARENA + BoxIo.octets(SLOTS) + 65536);
  const m = memory.frames;
  const boxes = await BoxIo.open(memory, SLOTS, webAssembly);
  const shared = new ArrayBuffer(TABLES_OCTETS);
  const writer = new TableWriter(shared), tables = new Tables(shared);
  const path = { mtu: 65535, maxPayload: 65507, stackFragments: true, remote: { address: 1, port: 1 } };
  writer.publishConnection(0, {
    ...path,
    peer: THEM,
    generation: 1,
    outbound,
    key,
    confirmed: true,
    established: true,
  });
  writer.publishRoutes(
    US,
    [US, THEM, 0x02cc_0000_0003 as PeerName].map((name) => ({
      name,
      unicastSlot: -1,
      broadcastSlots: [],
    })),
  );
  tables.refresh({
    connectionReplaced() {},
    connectionChanged: (slot) => boxes.setKey(slot, tables.slotKey, outbound),
    peerReplaced() {},
  });
  const sent: Uint8Array[] = [];
  const sequences = new Float64Array(SLOTS * 2);
  const builder = new PacketBuilder({
    memory: m,
    tables,
    sink: {
      begin: () => true,
      piece: (at, octets) => void sent.push(m.u8.slice(at, at + octets)),
      flush: () => true,
    },
    sealer: boxes,
    counters: new Counters(new ArrayBuffer(countersOctets(SLOTS))),
    sequences,
    arenaAt: memory.take(ARENA),
    arenaOctets: ARENA,
    ourName: US,
  });
  const frameAt = memory.take(2048) + 64;
  const peer = (name: string) => tables.peerOf(parseInt(name.slice(0, 4), 16), parseInt(name.slice(4), 16));
  const add = (packetClass: number, { frames }: Packet) => {
    for (const f of frames) {
      if (/zero bytes$|^0{28}/.test(f.frame)) {
        const uid = f.len === 22 ? BigInt(`0x${f.frame.slice(28)}`) : 0n;
        builder.addSpecial(0, packetClass, f.len, Number(uid >> 32n), Number(uid & 0xffff_ffffn));
      } else {
        m.u8.set(fromHex(f.frame), frameAt);
        builder.add(0, packetClass, peer(f.src), peer(f.dst), frameAt, f.len);
      }
    }
  };
  const flush = () => {
    builder.flush();
    return sent.splice(0);
  };
  return { memory, boxes, builder, sequences, add, flush };
}

function fromHex(text: string): Uint8Array {
  return Uint8Array.from(text.match(/../g) ?? [], (h) => parseInt(h, 16));
}

function toHex(octets: Uint8Array): string {
  return [...octets].map((o) => o.toString(16).padStart(2, "0")).join("");
}
