import assert from "node:assert/strict";
import fc from "fast-check";
import { WireError } from "../lib/errors.ts";
import {
  decodeFlows,
  encodeDeleteFlow,
  encodeDeleteFlows,
  encodeListFlows,
  type Flow,
  type FlowTuple,
  IPPROTO,
  TCP_STATE,
} from "./conntrack.ts";
import { AttributeWriter, encodeMessage } from "./netlink.ts";

const FLOW: Flow = {
  original: {
    protocol: IPPROTO.tcp,
    source: 0xc0a8_010a,
    sourcePort: 40_000,
    destination: 0xc0a8_0101,
    destinationPort: 80,
    zone: 3,
  },
  reply: {
    protocol: IPPROTO.tcp,
    source: 0x0a20_0001,
    sourcePort: 9000,
    destination: 0x0a20_00fe,
    destinationPort: 51_234,
    zone: 0,
  },
  mark: 0x8483_0007,
  id: 0xdead_beef,
  zone: 0,
  tcpState: TCP_STATE.established,
};

Deno.test("encodeListFlows() asks by mark, in network order", () => {
  assert.equal(
    encodeListFlows({ mark: 0x0083_0007, mask: 0x00ff_ffff }).toHex(),
    // length, type 0x101, flags request and dump
    "24000000" + "0101" + "0103" + "0000000000000000" +
      // AF_INET, version, resource
      "02000000" +
      // CTA_MARK, CTA_MARK_MASK
      "08000800" + "00830007" + "08001500" + "00ffffff",
  );
  assert.equal(encodeListFlows({ mark: 0, mask: 0 }).length, 20);
});

Deno.test("encodeDeleteFlow() names a flow by its tuple, its zone and its id", () => {
  assert.equal(
    encodeDeleteFlow(FLOW).toHex(),
    "58000000" + "0201" + "0500" + "0000000000000000" + "02000000" +
      // CTA_TUPLE_ORIG: CTA_TUPLE_IP with CTA_IP_V4_SRC and _DST
      "3c000180" + "14000180" + "08000100c0a8010a" + "08000200c0a80101" +
      // CTA_TUPLE_PROTO with CTA_PROTO_NUM, _SRC_PORT, _DST_PORT
      "1c000280" + "0500010006000000" + "060002009c400000" + "0600030000500000" +
      // CTA_TUPLE_ZONE, CTA_ID
      "0600030000030000" + "08000c00deadbeef",
  );
});

Deno.test("encodeDeleteFlows() never asks for all of them", () => {
  assert.throws(() => encodeDeleteFlows({ mark: 0, mask: 0 }), RangeError);
  assert.equal(encodeDeleteFlows({ mark: 7, mask: 0xffff }).toHex().slice(8, 12), "0201");
});

Deno.test("decodeFlows() reads several flows of a datagram, and passes over what it does not know", () => {
  const udp: Flow = {
    ...withoutState(FLOW),
    original: { ...FLOW.original, protocol: IPPROTO.udp, zone: 0 },
    reply: { ...FLOW.reply, protocol: IPPROTO.udp },
    zone: 9,
  };
  const ipv6 = encodeMessage({ type: 0x100, flags: 2, body: Uint8Array.of(10, 0, 0, 0, 1, 2, 3) });
  const other = encodeMessage({ type: 3, flags: 2, body: new Uint8Array(4) });
  const datagram = Uint8Array.from([kernelSays(FLOW), ipv6, other, kernelSays(udp)].flatMap((octets) => [...octets]));
  assert.deepEqual(flowsIn(datagram), [FLOW, udp]);
  assert.deepEqual(flowsIn(new Uint8Array()), []);
});

Deno.test("decodeFlows() returns what the kernel says of any flow", () => {
  const u16 = fc.integer({ min: 0, max: 0xffff }), u32 = fc.integer({ min: 0, max: 0xffff_ffff });
  const tuple = fc.record({
    protocol: fc.constantFrom(IPPROTO.tcp, IPPROTO.udp),
    source: u32,
    destination: u32,
    sourcePort: u16,
    destinationPort: u16,
    zone: u16,
  }, { noNullPrototype: true });
  const flow = fc.record(
    { original: tuple, reply: tuple, mark: u32, id: u32, zone: u16, tcpState: fc.integer({ min: 0, max: 10 }) },
    { requiredKeys: ["original", "reply", "mark", "id", "zone"], noNullPrototype: true },
  );
  fc.assert(fc.property(fc.array(flow, { maxLength: 4 }), (flows) => {
    const datagram = Uint8Array.from(flows.flatMap((one) => [...kernelSays(one as Flow)]));
    assert.deepEqual(flowsIn(datagram), flows);
  }));
});

Deno.test("decodeFlows() refuses what is cut off anywhere, and does not read beyond it", () => {
  const whole = kernelSays(FLOW);
  for (let octets = 1; octets < whole.length; octets++) {
    const cut = whole.slice(0, octets);
    assert.throws(() => flowsIn(cut), WireError, `${octets}`);
    // The same with a length that says it is whole.
    if (octets < 20) continue;
    new DataView(cut.buffer).setUint32(0, octets, true);
    try {
      flowsIn(cut);
    } catch (error) {
      assert.ok(error instanceof WireError, `${octets}: ${error}`);
    }
  }
});

function flowsIn(datagram: Uint8Array): Flow[] {
  const flows: Flow[] = [];
  decodeFlows(datagram, (flow) => flows.push(flow));
  return flows;
}

function withoutState({ tcpState: _, ...flow }: Flow): Flow {
  return flow;
}

/** As ctnetlink_fill_info() writes it, with attributes that we do not read. */
function kernelSays(flow: Flow): Uint8Array {
  const w = new AttributeWriter().raw(Uint8Array.of(2, 0, 0, 0));
  const u16 = (value: number) => Uint8Array.of(value >>> 8, value);
  const u32 = (value: number) => Uint8Array.of(value >>> 24, value >>> 16, value >>> 8, value);
  const tuple = (type: number, tuple: FlowTuple) =>
    w.nest(type, () => {
      w.nest(1, () => w.bytes(1, u32(tuple.source)).bytes(2, u32(tuple.destination)));
      w.nest(2, () => w.u8(1, tuple.protocol).bytes(2, u16(tuple.sourcePort)).bytes(3, u16(tuple.destinationPort)));
      if (tuple.zone !== 0) w.bytes(3, u16(tuple.zone));
    });
  tuple(1, flow.original);
  tuple(2, flow.reply);
  w.bytes(3, u32(0x1ae)).bytes(7, u32(431_999));
  const { tcpState } = flow;
  if (tcpState !== undefined) w.nest(4, () => w.nest(1, () => w.u8(1, tcpState).u8(2, 7)));
  w.bytes(8, u32(flow.mark));
  if (flow.zone !== 0) w.bytes(18, u16(flow.zone));
  w.bytes(12, u32(flow.id)).bytes(11, u32(1));
  return encodeMessage({ type: 0x100, flags: 2, body: w.finish() });
}
