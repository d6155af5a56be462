/** Messages about addresses: read, and taken in by an allocator, which must stay sound whatever peers say. */
import assert from "node:assert/strict";
import { Allocator } from "../../src/ipam/allocator.ts";
import { rangeOf, sizeOf } from "../../src/ipam/range.ts";
import { ProtocolError, WireError } from "../../src/lib/errors.ts";
import { parseCidr } from "../../src/lib/ip.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import type { Random } from "../../src/lib/random.ts";
import {
  decodeIpamMessage,
  decodeIpamState,
  decodePaxosClaims,
  decodeRing,
  encodeIpamMessage,
  encodeIpamState,
  type IpamState,
  type RingEntry,
} from "../../src/wire/ipam.ts";
import { decodeReclaim, encodeReclaim } from "../../src/wire/reclaim.ts";
import { vector } from "./corpus.ts";
import { decodes, makeInput, pick } from "./inputs.ts";
import { InputError, type Target } from "./target.ts";

export const IPAM_TARGETS: readonly Target[] = [
  { name: "addresses message", takes: takeMessage, prepare: prepareMessages },
  { name: "allocator", prepare: () => attemptAllocator },
];

function known(): Uint8Array[] {
  const states = vector<{ cases: readonly { hex: string }[] }>("ipam-state").cases;
  const messages = vector<{ cases: readonly { hex: string }[] }>("ipam-messages").cases;
  const { scenarios } = vector<{ scenarios: readonly { steps: readonly { state_hex?: string }[] }[] }>("paxos");
  const claims = scenarios.flatMap(({ steps }) => steps.flatMap(({ state_hex }) => state_hex ?? []));
  const announcement = encodeReclaim({
    afterMs: 86_400_000,
    majority: true,
    absent: [{ peer: 7 as PeerName, forMs: 1000, seen: true }],
    intends: [7 as PeerName],
  });
  return [
    ...[...states, ...messages].map(({ hex }) => Uint8Array.fromHex(hex)),
    ...claims.map((hex) => Uint8Array.fromHex(hex)),
    announcement,
  ];
}

function prepareMessages() {
  const corpus = known();
  corpus.forEach(takeMessage);
  return (random: Random) => {
    const octets = makeInput(random, corpus);
    try {
      takeMessage(octets);
    } catch (error) {
      throw new InputError(octets, error);
    }
  };
}

function takeMessage(octets: Uint8Array): void {
  const message = decodes(octets, () => decodeIpamMessage(octets), [WireError]);
  if (message !== undefined) assert.deepEqual(decodeIpamMessage(encodeIpamMessage(message)), message);
  for (const decode of [decodeIpamState, decodeRing, decodePaxosClaims, decodeReclaim]) {
    decodes(octets, () => void decode(octets), [WireError]);
  }
}

// ── An allocator among peers that say anything ────────────────────────────────────────────────────────────────────────────────

const RANGE = parseCidr("10.32.0.0/26")!;
const { start: START, end: END } = rangeOf(RANGE);
const US = 1 as PeerName;
const PEERS = [0, 1, 2, 3, 0xffff_ffff_ffff].map((n) => n as PeerName);
const NUMBERS = [0, 1, 2, 99, 100, 101, 0x7fff_ffff, 0xffff_fffe, 0xffff_ffff];

function attemptAllocator(random: Random): void {
  const reclaims = random.below(2) === 0;
  const voting = { mode: "consensus", peers: 1 + random.below(3) } as const;
  const init = random.below(4) === 0 ? { mode: "observer" } as const : voting;
  const allocator = new Allocator({
    name: US,
    nickName: "us",
    uid: 5n,
    range: RANGE,
    init,
    stored: undefined,
    existing: [],
    running: undefined,
    reclaim: { afterMs: reclaims ? 600_000 : undefined, elapsed: { ms: 0, exact: true } },
    peers: { inReach: () => random.below(4) > 0, targetCount: () => 1 },
    random,
    log: SILENT,
  }, 0);
  const held = new Map<string, number>();
  let now = 0;
  for (let step = random.below(40); step >= 0; step--) {
    now += random.below(3) === 0 ? random.below(20_000) : 1;
    doSomething(allocator, random, held, now);
    drain(allocator, held, now);
    checkAllocator(allocator, held);
  }
}

function doSomething(allocator: Allocator, random: Random, held: ReadonlyMap<string, number>, now: number): void {
  const peer = pick(random, PEERS);
  try {
    switch (random.below(10)) {
      case 0:
      case 1:
        return void allocator.allocate({ id: `c${held.size}`, subnet: RANGE, isContainer: true }, now);
      case 2: {
        const cidr = { address: START + random.below(70), prefixLength: 26 };
        return void allocator.claim({ id: `m${held.size}`, cidr, isContainer: false }, now);
      }
      case 3:
        return allocator.handleTimeout(now);
      case 4:
        return void allocator.handleGossip(encodeIpamState(someState(allocator, random)), now, peer);
      case 5:
        return void allocator.handleBroadcast(peer, encodeIpamState(someState(allocator, random)), now);
      case 6: {
        const [a, b] = [pick(random, NUMBERS), START + random.below(80)];
        const range = random.below(2) === 0 ? { start: a, end: b } : { start: START + random.below(60), end: END };
        const type = random.below(2) === 0 ? "request" as const : "denied" as const;
        return allocator.handleUnicast(peer, encodeIpamMessage({ type, range }), now);
      }
      case 7:
        return allocator.handleUnicast(
          peer,
          encodeIpamMessage({ type: "ring", state: someState(allocator, random) }),
          now,
        );
      case 8: {
        const absent = [{ peer: pick(random, PEERS), forMs: Number.MAX_SAFE_INTEGER, seen: true }];
        const announcement = { afterMs: pick(random, NUMBERS), majority: true, absent, intends: [pick(random, PEERS)] };
        return void allocator.reclaimChannel.handleBroadcast(peer, encodeReclaim(announcement), now);
      }
      default:
        return allocator.handlePeerGone(peer, now);
    }
  } catch (error) {
    if (!(error instanceof ProtocolError || error instanceof WireError)) throw error;
    assert.ok(error.message.length < 10_000);
  }
}

/** Mostly our own ring with something else in it. */
function someState(allocator: Allocator, random: Random): IpamState {
  const { entries, seeds } = allocator.snapshot().stored;
  const changed: RingEntry[] = entries.map((entry) =>
    random.below(3) > 0 ? entry : {
      token: random.below(6) === 0 ? START + random.below(70) : entry.token,
      peer: random.below(2) === 0 ? pick(random, PEERS) : entry.peer,
      version: random.below(2) === 0 ? pick(random, NUMBERS) : entry.version + random.below(3),
      free: random.below(2) === 0 ? random.below(70) : entry.free,
    }
  );
  for (let more = random.below(3); more > 0; more--) {
    const token = START + random.below(64);
    changed.push({ token, peer: pick(random, PEERS), version: pick(random, NUMBERS), free: random.below(8) });
  }
  if (random.below(4) > 0) changed.sort((a, b) => a.token - b.token);
  const proposal = {
    round: pick(random, [0, 1, 7, Number.MAX_SAFE_INTEGER]),
    proposer: { name: pick(random, PEERS), uid: 5n },
  };
  const claims = {
    promise: proposal,
    accepted: proposal,
    acceptedValue: { value: PEERS.slice(random.below(6)), origin: proposal },
  };
  return {
    now: 0n,
    nicknames: [[pick(random, PEERS), "x"]],
    paxos: random.below(3) === 0 ? [[proposal.proposer, claims]] : undefined,
    ring: random.below(3) === 0 ? undefined : {
      start: random.below(20) === 0 ? 0 : START,
      end: END,
      peer: pick(random, PEERS),
      entries: changed,
      seeds: random.below(3) === 0 ? [pick(random, PEERS)] : seeds,
    },
  };
}

function drain(allocator: Allocator, held: Map<string, number>, now: number): void {
  let count = 0;
  for (let output = allocator.poll(); output; output = allocator.poll()) {
    assert.ok(++count < 1000, "outputs do not come to an end");
    if (output.type === "persist") allocator.handlePersisted(allocator.snapshot().revision, now);
    else if (output.type === "answer" && output.result.outcome === "done" && output.result.cidr) {
      held.set(`c${held.size}`, output.result.cidr.address);
    } else if (output.type === "unicast") decodeIpamMessage(output.payload);
    else if (output.type === "broadcast") output.data.encode();
  }
}

/** Nobody hears that an address which is held here is free, and nothing that was given is forgotten. */
function checkAllocator(allocator: Allocator, held: ReadonlyMap<string, number>): void {
  const { stored: { entries, held: holdings } } = allocator.snapshot();
  const addresses = holdings.flatMap(([, { cidrs }]) => cidrs.map(({ address }) => address));
  assert.equal(new Set(addresses).size, addresses.length, "an address is held twice");
  for (const address of held.values()) assert.ok(addresses.includes(address), "an address is forgotten");
  const ours = entries.reduce((sum, { peer, token }, i) => {
    const next = entries[(i + 1) % entries.length]!.token;
    return peer === US ? sum + (next > token ? next - token : END - token + next - START) : sum;
  }, 0);
  const { active } = allocator.status(0);
  assert.ok(active <= addresses.length && active <= ours && ours <= sizeOf({ start: START, end: END }));
}
