import assert from "node:assert/strict";
import { Counters, countersOctets, DROP } from "./counters.ts";
import { Fdb, FDB_OCTETS } from "./fdb.ts";
import {
  carriage,
  CARRY_DF,
  CARRY_FRAGMENTS,
  CARRY_NOT_NO_ADDRESS,
  CARRY_NOT_TOO_BIG,
  CARRY_PLAIN,
  DISCARD,
  Forwarder,
  INJECT,
  INJECT_AND_FLOOD,
  SEND,
  TELL_TOO_BIG,
} from "./forward.ts";
import { PEERS, SLOTS, Tables, TABLES_OCTETS, TableWriter } from "./tables.ts";
import { FrameMemory } from "../lib/frame_memory.ts";
import type { PeerName } from "../lib/mac.ts";

const US = 0x0200_0000_0001 as PeerName;
const NEAR = 0x0200_0000_0002 as PeerName;
const FAR = 0x0200_0000_0003 as PeerName;

const IPV4_DF = "0800" + "45000000000040004011";
const IPV4 = "0800" + "45000000000000004011";
const IPV6 = "86dd" + "60000000000000114000";
const ARP = "0806" + "00010800060400010000";
const TAGGED = "8100" + "00050800450000000000";
const FITS = 1438 + 14, TOO_BIG = 1438 + 15;

const CARRIAGES: {
  name: string;
  type: string;
  octets: number;
  fragments: boolean;
  broadcast?: boolean;
  want: number;
}[] = [
  { name: "DF that fits", type: IPV4_DF, octets: FITS, fragments: true, want: CARRY_DF },
  { name: "DF that fits, to many", type: IPV4_DF, octets: FITS, fragments: true, broadcast: true, want: CARRY_DF },
  { name: "DF too big", type: IPV4_DF, octets: TOO_BIG, fragments: true, want: TELL_TOO_BIG },
  {
    name: "DF too big, to many",
    type: IPV4_DF,
    octets: TOO_BIG,
    fragments: true,
    broadcast: true,
    want: CARRY_NOT_TOO_BIG,
  },
  { name: "no DF where the stack fragments", type: IPV4, octets: FITS, fragments: true, want: CARRY_PLAIN },
  {
    name: "no DF, too big, where the stack fragments",
    type: IPV4,
    octets: TOO_BIG,
    fragments: true,
    want: CARRY_PLAIN,
  },
  { name: "no DF where the stack is not trusted", type: IPV4, octets: FITS, fragments: false, want: CARRY_DF },
  { name: "no DF, too big, stack not trusted", type: IPV4, octets: TOO_BIG, fragments: false, want: CARRY_FRAGMENTS },
  { name: "IPv6", type: IPV6, octets: TOO_BIG, fragments: false, want: CARRY_PLAIN },
  { name: "ARP", type: ARP, octets: 60, fragments: false, want: CARRY_PLAIN },
  { name: "a VLAN tag before IPv4", type: TAGGED, octets: TOO_BIG, fragments: false, want: CARRY_PLAIN },
  { name: "too short for IPv4", type: IPV4_DF, octets: 33, fragments: false, want: CARRY_PLAIN },
];

for (const c of CARRIAGES) {
  Deno.test(`carriage() of ${c.name}`, () => {
    const { tables, writer } = world();
    connect(writer, c.fragments, true);
    tables.refresh(NONE);
    const m = frame("020000000022", "020000000011", c.type);
    assert.equal(carriage(m, 14, c.octets, tables, 0, c.broadcast ?? false), c.want);
  });
}

Deno.test("carriage() without a remote address", () => {
  const { tables, writer } = world();
  connect(writer, true, false);
  tables.refresh(NONE);
  assert.equal(carriage(frame("02", "02", IPV4), 14, 100, tables, 0, false), CARRY_NOT_NO_ADDRESS);
});

Deno.test("received() learns, and moves an address that was elsewhere", () => {
  const { forwarder, fdb, tables } = world();
  const m = frame("0200000000aa", "020000000011", ARP, FAR, US);
  assert.equal(forwarder.received(m, 0, 0), INJECT_AND_FLOOD);
  assert.equal(fdb.lookup(0x0200, 0x11), tables.peerOf(0x0200, 3));
  assert.equal(forwarder.captured(m, 14, 60), 0);
  assert.equal(forwarder.received(frame("0200000000aa", "020000000011", ARP, NEAR, US), 0, 0), INJECT);
  assert.equal(fdb.lookup(0x0200, 0x11), tables.peerOf(0x0200, 2));
});

Deno.test("received() floods on unless the receiver is known to be here", () => {
  const { forwarder } = world();
  const toHere = frame("0200000000aa", "020000000011", ARP, FAR, US);
  assert.equal(forwarder.received(toHere, 0, 0), INJECT_AND_FLOOD);
  assert.notEqual(forwarder.captured(frame("ffffffffffff", "0200000000aa", ARP), 14, 60), 0);
  assert.equal(forwarder.received(toHere, 0, 0), INJECT);
  // What everybody shall have goes on, wherever its receivers are.
  assert.equal(forwarder.received(frame("ffffffffffff", "020000000011", ARP, FAR, US), 0, 0), INJECT_AND_FLOOD);
});

Deno.test("received() for another peer goes to its next hop, and teaches nothing", () => {
  const { forwarder, fdb } = world();
  assert.equal(forwarder.received(frame("0200000000aa", "020000000011", ARP, FAR, NEAR), 0, 1), SEND);
  assert.equal(forwarder.slot, 0);
  assert.equal(fdb.size, 0);
});

Deno.test("received() sends nothing back where it came from", () => {
  const { forwarder } = world();
  assert.equal(forwarder.received(frame("0200000000aa", "020000000011", ARP, FAR, NEAR), 0, 0), DISCARD);
  assert.equal(forwarder.reason, DROP.noRoute);
  // To everybody but the one it came from, who is all there is.
  assert.equal(forwarder.received(frame("ffffffffffff", "020000000011", ARP, FAR, US), 0, 1), INJECT);
});

const NONE = { connectionReplaced() {}, connectionChanged() {}, peerReplaced() {} };

function world() {
  const memory = new ArrayBuffer(TABLES_OCTETS);
  const writer = new TableWriter(memory);
  const tables = new Tables(memory);
  const fdb = new Fdb(new ArrayBuffer(FDB_OCTETS), PEERS);
  connect(writer, true, true);
  writer.publishRoutes(US, [
    { name: US, unicastSlot: -1, broadcastSlots: [0] },
    { name: NEAR, unicastSlot: 0, broadcastSlots: [] },
    { name: FAR, unicastSlot: 0, broadcastSlots: [1] },
  ]);
  tables.refresh(NONE);
  const forwarder = new Forwarder(tables, fdb, new Counters(new ArrayBuffer(countersOctets(SLOTS))));
  return { writer, tables, fdb, forwarder };
}

function connect(writer: TableWriter, stackFragments: boolean, hasAddress: boolean): void {
  writer.publishConnection(0, {
    peer: NEAR,
    generation: 1,
    outbound: true,
    confirmed: true,
    established: true,
    ...(hasAddress ? { remote: { address: 1, port: 2 } } : {}),
    mtu: 1438,
    maxPayload: 1472,
    stackFragments,
  });
}

/** A frame of 60 octets at offset 14, after its names and length. */
function frame(to: string, from: string, type: string, source = US, destination = NEAR): FrameMemory {
  const m = new FrameMemory(new ArrayBuffer(128));
  const name = (peer: PeerName) => peer.toString(16).padStart(12, "0");
  const text = name(source) + name(destination) + "003c" + to.padEnd(12, "0") + from.padEnd(12, "0") + type;
  m.u8.set(Uint8Array.from(text.match(/../g)!, (h) => parseInt(h, 16)));
  return m;
}
