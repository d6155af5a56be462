/** Well-formed octets to begin with: what the vectors hold, and what our own encoders make. */

import type { Mac } from "../../src/lib/mac.ts";
import { encodeArpProbe, encodeGratuitousArp } from "../../src/wire/arp.ts";
import { encodeMessage as encodeControl, type Message } from "../../src/wire/control.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { encodeListFlows } from "../../src/wire/conntrack.ts";
import {
  encodeDeleteAddress,
  encodeDeleteLink,
  encodeDeleteRoute,
  encodeGetAddresses,
  encodeGetLink,
  encodeNewAddress,
  encodeNewLink,
  encodeNewNeighbour,
  encodeNewRoute,
  encodeSetPort,
} from "../../src/wire/rtnetlink.ts";

export function vector<T>(name: string): T {
  return JSON.parse(Deno.readTextFileSync(new URL(`../fixtures/vectors/${name}.json`, import.meta.url)));
}

function hexes(list: readonly (string | undefined)[]): Uint8Array[] {
  return list.flatMap((text) => text ? [Uint8Array.fromHex(text)] : []);
}

interface RecordedItem {
  readonly dir?: string;
  readonly conn?: number;
  readonly hex?: string;
  readonly frame?: string;
  readonly plaintext?: string;
}

export const SESSIONS = ["plain", "encrypted", "nofrag", "relay", "dup"] as const;

/** What one router sent on one connection of a recorded session: header and flag, then whole frames. */
export function recordedStream(session: string, sender: string): Uint8Array[] {
  const { transcript } = vector<{ transcript: readonly RecordedItem[] }>(`recorded-tcp-${session}`);
  const items = transcript.filter((item) => item.dir?.startsWith(sender) && (item.conn ?? 0) === 0);
  return hexes(items.map((item) => item.hex ?? item.frame));
}

export function gobs(): Uint8Array[] {
  interface Case {
    readonly hex: string;
  }
  return [
    ...["gob-primitives", "features", "topology-updates"].flatMap((name) =>
      hexes(vector<{ cases: readonly Case[] }>(name).cases.map((c) => c.hex))
    ),
    nestedGob(20),
    nestedGob(30_000),
  ];
}

/** A slice of slices of slices…: a type that is its own element, and as many ones. */
function nestedGob(depth: number): Uint8Array {
  const definition = "ff81020102ff820001ff820000";
  return Uint8Array.fromHex(gobMessage(definition) + gobMessage(`ff8200${"01".repeat(depth)}00`));
}

function gobMessage(hex: string): string {
  const octets = hex.length / 2;
  return (octets < 128 ? octets.toString(16).padStart(2, "0") : `fe${octets.toString(16).padStart(4, "0")}`) + hex;
}

export function topologies(): Uint8Array[] {
  const { cases } = vector<{ cases: readonly { hex: string }[] }>("topology-updates");
  const { steps } = vector<{ steps: readonly { update_hex?: string }[] }>("topology-merge");
  return hexes([...cases.map((c) => c.hex), ...steps.map((s) => s.update_hex)]);
}

export function featureMaps(): Uint8Array[] {
  return hexes(vector<{ cases: readonly { hex: string }[] }>("features").cases.map((c) => c.hex));
}

/** Messages of the control connection, recorded and our own. */
export function messages(): Uint8Array[] {
  const recorded = SESSIONS.flatMap((session) => {
    const { transcript } = vector<{ transcript: readonly RecordedItem[] }>(`recorded-tcp-${session}`);
    return transcript.map((item) =>
      item.plaintext ?? (item.plaintext === undefined ? item.frame?.slice(8) : undefined)
    );
  });
  const { cases } = vector<{ cases: readonly { message: string }[] }>("gossip-envelopes");
  const name = 0x02aa_0000_0001 as PeerName;
  const ours: Message[] = [
    { type: "heartbeat" },
    { type: "probe", number: 7 },
    { type: "probeAnswer", number: 7 },
    { type: "digest", digest: 0xfedc_ba98_7654_3210n },
    { type: "summary", entries: [{ name, uid: 1n, version: 2n }, { name, uid: 3n, version: 4n }] },
    { type: "want", names: [name, name] },
    { type: "clock", wallClockMs: 1_763_990_000_123 },
  ];
  return [
    ...hexes([...recorded, ...cases.map((c) => c.message)]),
    ...ours.map((message) => encodeControl(message, false)),
  ].filter((message) => message.length < 20_000);
}

export function netlinkMessages(): Uint8Array[] {
  const cidr = { address: 0x0a20_0001, prefixLength: 16 };
  const mac = 0x0600_0000_0001 as Mac;
  const route = { destination: cidr, gateway: 0x0a20_0002, link: 3, metric: 9 };
  return [
    encodeGetLink({ name: "weave" }),
    encodeNewLink({ name: "weave", mtu: 1376, mac, kind: { type: "bridge", stp: false, multicastSnooping: false } }),
    encodeNewLink({ name: "v1", up: true, master: 2, kind: { type: "veth", peer: { name: "v2", netnsFd: 5 } } }),
    encodeDeleteLink(7),
    encodeSetPort(7, { hairpin: true, isolated: true, learning: false, flood: false }),
    encodeGetAddresses(),
    encodeNewAddress({ link: 3, cidr }),
    encodeDeleteAddress({ link: 3, cidr }),
    encodeNewRoute(route),
    encodeDeleteRoute(route),
    encodeNewNeighbour({ link: 3, address: 0x0a20_0002, mac, state: 0x80 }),
    encodeNewNeighbour({ link: 3, mac, state: 0x80, flags: 2 }),
  ];
}

/** What the kernel says of a flow, and what we ask. */
export function flowMessages(): Uint8Array[] {
  const flow = "c4000000000102000000000000000000020000003c0001801400018008000100c0a8010a08000200c0a801011c0002800500" +
    "010006000000060002009c400000060003000050000006000300000300003400028014000180080001000a20000108000200" +
    "0a2000fe1c0002800500010006000000060002002328000006000300c822000008000300000001ae080007000006977f1800" +
    "04801400018005000100030000000500020007000000080008008483000708000c00deadbeef08000b0000000001";
  return [...hexes([flow, flow + flow]), encodeListFlows({ mark: 7, mask: 0xffff })];
}

export function arps(): Uint8Array[] {
  const mac = 0x0600_0000_0001 as Mac;
  return [encodeArpProbe(mac, 0x0a20_0001), encodeGratuitousArp(mac, 0x0a20_0001)];
}
