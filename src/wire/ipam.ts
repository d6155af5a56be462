/**
 * What routers say to each other about who owns which addresses, on the channel `IPallocation`. Gossip and broadcasts carry a state,
 * unicasts an octet for their type and then a stream:
 *
 *     state    gossipState  Now int | Nicknames map uint→string | Paxos map NodeID→NodeClaims | Ring
 *     0        Range        Start uint | End uint     give me something of this range
 *     1        gossipState                            this is how things are
 *     2        Range                                  there is nothing to give in this range
 *
 * A state has a ring, or (Paxos, perhaps an empty map) its sender votes for the first one, or it has neither: the sender does not
 * vote and wants to be given a ring. Addresses are numbers; a range ends before its `End`.
 */
import { WireError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import {
  decodeGob,
  encodeGob,
  GobReader,
  GobWriter,
  INT,
  map,
  optional,
  type SchemaOf,
  slice,
  STRING,
  struct,
  type TypeIds,
  UINT,
  unsigned,
} from "./gob.ts";

/** The addresses from `start` to before `end`. */
export interface AddressRange {
  readonly start: Ipv4;
  readonly end: Ipv4;
}

/** A token: the addresses from here to the next token belong to `peer`. Immutable. */
export interface RingEntry {
  readonly token: Ipv4;
  readonly peer: PeerName;
  /** Counts what the owner changed. */
  readonly version: number;
  /** How many of the addresses are free, as the owner last said. */
  readonly free: number;
}

/** A ring as it is told and stored. Immutable. */
export interface RingValue {
  /** The universe. */
  readonly start: Ipv4;
  readonly end: Ipv4;
  /** Whose view it is. */
  readonly peer: PeerName;
  /** Ascending by token, in a ring that is well formed. */
  readonly entries: readonly RingEntry[];
  /** Among whom the universe was divided at first. */
  readonly seeds: readonly PeerName[];
}

/** A voter: a router from one start to the next. */
export interface NodeId {
  readonly name: PeerName;
  readonly uid: bigint;
}

/** Round 0: none. */
export interface ProposalId {
  readonly round: number;
  readonly proposer: NodeId;
}

export interface AcceptedValue {
  /** In no order; a name may come twice. */
  readonly value: readonly PeerName[];
  /** The proposal that first had this value. */
  readonly origin: ProposalId;
}

/** What a voter has promised and accepted. Immutable. */
export interface NodeClaims {
  readonly promise: ProposalId;
  readonly accepted: ProposalId;
  readonly acceptedValue: AcceptedValue;
}

export interface IpamState {
  /** Unix seconds at the sender; nobody needs it. */
  readonly now: bigint;
  /** Of the peers that allocate addresses, as far as the sender knows; a name comes once. */
  readonly nicknames: readonly (readonly [PeerName, string])[];
  readonly paxos: readonly (readonly [NodeId, NodeClaims])[] | undefined;
  readonly ring: RingValue | undefined;
}

export type IpamMessage =
  | { readonly type: "request"; readonly range: AddressRange }
  | { readonly type: "ring"; readonly state: IpamState }
  | { readonly type: "denied"; readonly range: AddressRange };

/** Tokens of a ring; a message has room for not much more. */
export const MAX_RING_ENTRIES = 1 << 18;
/** Voters, each start of a router being another one. */
export const MAX_NODES = 4096;
/** Names in all values of a state together. */
export const MAX_VALUE_NAMES = 1 << 19;
const MAX_SEEDS = 1 << 16;
const MAX_NICKNAMES = 16_384;
const MAX_NICKNAME_OCTETS = 4096;

const REQUEST = 0, RING_UPDATE = 1, DENIED = 2;

/** Peers are named by 48 bits, addresses and versions have 32. */
const PEER = unsigned(48) as SchemaOf<number> as SchemaOf<PeerName>;
const U32 = unsigned(32);
/** Nobody gets there by proposing. */
const ROUND = unsigned(53);

/** Go names neither what maps and slices are made of, nor what stands behind a pointer there. */
const NODE_ID = struct("", { Name: PEER, UID: UINT });
const PROPOSAL_ID = struct("ProposalID", { Round: ROUND, Proposer: NODE_ID });
const ACCEPTED_VALUE = struct("AcceptedValue", { Value: slice(PEER, "Value", MAX_NODES), Origin: PROPOSAL_ID });
const NODE_CLAIMS = struct("", {
  Promise: PROPOSAL_ID,
  Accepted: PROPOSAL_ID,
  AcceptedVal: ACCEPTED_VALUE,
});
const ENTRY = struct("", { Token: U32, Peer: PEER, Version: U32, Free: U32 });
const RING = struct("Ring", {
  Start: U32,
  End: U32,
  Peer: PEER,
  Entries: slice(ENTRY, "entries", MAX_RING_ENTRIES),
  Seeds: slice(PEER, "[]mesh.PeerName", MAX_SEEDS),
});
const CLAIMS_OF_ALL = map(NODE_ID, NODE_CLAIMS, "GossipState", MAX_NODES);
const STATE = struct("gossipState", {
  Now: INT,
  Nicknames: map(PEER, STRING, "map[mesh.PeerName]string", MAX_NICKNAMES),
  Paxos: optional(CLAIMS_OF_ALL),
  Ring: optional(RING),
});
const RANGE = struct("Range", { Start: U32, End: U32 });

type WireNodeId = { readonly Name: PeerName; readonly UID: bigint };
type WireProposalId = { readonly Round: number; readonly Proposer: WireNodeId };
type WireClaims = {
  readonly Promise: WireProposalId;
  readonly Accepted: WireProposalId;
  readonly AcceptedVal: { readonly Value: readonly PeerName[]; readonly Origin: WireProposalId };
};
type WireRing = {
  readonly Start: Ipv4;
  readonly End: Ipv4;
  readonly Peer: PeerName;
  readonly Entries: readonly {
    readonly Token: Ipv4;
    readonly Peer: PeerName;
    readonly Version: number;
    readonly Free: number;
  }[];
  readonly Seeds: readonly PeerName[];
};

/** @param ids for the types, as `ipamTypeIds()` read them: a test makes the same octets with them */
export function encodeIpamState(state: IpamState, ids?: TypeIds): Uint8Array {
  const { now, nicknames, paxos, ring } = state;
  const writer = new GobWriter(256 + 32 * (ring?.entries.length ?? 0) + 32 * nicknames.length, ids);
  writer.write(STATE, {
    Now: now,
    Nicknames: nicknames,
    Paxos: paxos?.map(([node, claims]) => [toWireNode(node), toWireClaims(claims)] as const),
    Ring: ring === undefined ? undefined : toWireRing(ring),
  });
  return writer.finish();
}

/** Throws WireError. A ring in it is not checked for being well formed: that depends on more than its octets. */
export function decodeIpamState(octets: Uint8Array): IpamState {
  const { Now, Nicknames, Paxos, Ring } = decodeGob(octets, STATE);
  for (const [, nickname] of Nicknames) {
    if (nickname.length > MAX_NICKNAME_OCTETS) throw malformed(`a nickname has ${nickname.length} characters`);
  }
  const names = Paxos?.reduce((sum, [, claims]) => sum + claims.AcceptedVal.Value.length, 0) ?? 0;
  if (names > MAX_VALUE_NAMES) throw malformed(`values have ${names} names`);
  return {
    now: Now,
    nicknames: Nicknames,
    paxos: Paxos?.map(([node, claims]) => [fromWireNode(node), fromWireClaims(claims)] as const),
    ring: Ring === undefined ? undefined : fromWireRing(Ring),
  };
}

export function encodeIpamMessage(message: IpamMessage, ids?: TypeIds): Uint8Array {
  switch (message.type) {
    case "request":
      return typed(REQUEST, encodeRange(message.range, ids));
    case "denied":
      return typed(DENIED, encodeRange(message.range, ids));
    case "ring":
      return typed(RING_UPDATE, encodeIpamState(message.state, ids));
    default:
      return message satisfies never;
  }
}

/** An encoded state as a unicast. */
export function ringUpdateOf(state: Uint8Array): Uint8Array {
  return typed(RING_UPDATE, state);
}

/** Throws WireError, for an unknown type too. */
export function decodeIpamMessage(octets: Uint8Array): IpamMessage {
  const stream = octets.subarray(1);
  switch (octets[0]) {
    case REQUEST:
      return { type: "request", range: decodeRange(stream) };
    case RING_UPDATE:
      return { type: "ring", state: decodeIpamState(stream) };
    case DENIED:
      return { type: "denied", range: decodeRange(stream) };
    case undefined:
      throw malformed("it is empty");
    default:
      throw malformed(`type ${octets[0]} is unknown`);
  }
}

/** A ring alone, as Weave Net 2.8 stores it. */
export function encodeRing(ring: RingValue, ids?: TypeIds): Uint8Array {
  const writer = new GobWriter(256, ids);
  writer.write(RING, toWireRing(ring));
  return writer.finish();
}

/** Throws WireError. */
export function decodeRing(octets: Uint8Array): RingValue {
  return fromWireRing(decodeGob(octets, RING));
}

/** Claims alone, as an election's state. */
export function encodePaxosClaims(paxos: NonNullable<IpamState["paxos"]>, ids?: TypeIds): Uint8Array {
  const writer = new GobWriter(256, ids);
  writer.write(CLAIMS_OF_ALL, paxos.map(([node, claims]) => [toWireNode(node), toWireClaims(claims)] as const));
  return writer.finish();
}

/** Throws WireError. */
export function decodePaxosClaims(octets: Uint8Array): NonNullable<IpamState["paxos"]> {
  const claims = decodeGob(octets, CLAIMS_OF_ALL);
  return claims.map(([node, claims]) => [fromWireNode(node), fromWireClaims(claims)] as const);
}

/** The type ids in a stream of any of these, for a test. Throws WireError. */
export function ipamTypeIds(octets: Uint8Array, what: "state" | "range" | "ring" | "claims"): TypeIds {
  const reader = new GobReader(octets);
  if (!reader.next()) throw malformed("there is no value");
  reader.read<unknown>({ state: STATE, range: RANGE, ring: RING, claims: CLAIMS_OF_ALL }[what]);
  return reader.ids;
}

function encodeRange({ start, end }: AddressRange, ids: TypeIds | undefined): Uint8Array {
  if (ids === undefined) return encodeGob(RANGE, { Start: start, End: end });
  const writer = new GobWriter(64, ids);
  writer.write(RANGE, { Start: start, End: end });
  return writer.finish();
}

function decodeRange(octets: Uint8Array): AddressRange {
  const { Start, End } = decodeGob(octets, RANGE);
  return { start: Start, end: End };
}

function typed(type: number, stream: Uint8Array): Uint8Array {
  const octets = new Uint8Array(1 + stream.length);
  octets[0] = type;
  octets.set(stream, 1);
  return octets;
}

function toWireRing({ start, end, peer, entries, seeds }: RingValue): WireRing {
  return {
    Start: start,
    End: end,
    Peer: peer,
    Entries: entries.map((e) => ({ Token: e.token, Peer: e.peer, Version: e.version, Free: e.free })),
    Seeds: seeds,
  };
}

function fromWireRing({ Start, End, Peer, Entries, Seeds }: WireRing): RingValue {
  return {
    start: Start,
    end: End,
    peer: Peer,
    entries: Entries.map((e) => ({ token: e.Token, peer: e.Peer, version: e.Version, free: e.Free })),
    seeds: Seeds,
  };
}

function toWireNode({ name, uid }: NodeId): WireNodeId {
  return { Name: name, UID: uid };
}

function fromWireNode({ Name, UID }: WireNodeId): NodeId {
  return { name: Name, uid: UID };
}

function toWireProposal({ round, proposer }: ProposalId): WireProposalId {
  return { Round: round, Proposer: toWireNode(proposer) };
}

function fromWireProposal({ Round, Proposer }: WireProposalId): ProposalId {
  return { round: Round, proposer: fromWireNode(Proposer) };
}

function toWireClaims({ promise, accepted, acceptedValue }: NodeClaims): WireClaims {
  return {
    Promise: toWireProposal(promise),
    Accepted: toWireProposal(accepted),
    AcceptedVal: { Value: acceptedValue.value, Origin: toWireProposal(acceptedValue.origin) },
  };
}

function fromWireClaims({ Promise: promise, Accepted, AcceptedVal }: WireClaims): NodeClaims {
  return {
    promise: fromWireProposal(promise),
    accepted: fromWireProposal(Accepted),
    acceptedValue: { value: AcceptedVal.Value, origin: fromWireProposal(AcceptedVal.Origin) },
  };
}

function malformed(what: string): WireError {
  return new WireError(`Cannot read addresses' message: ${what}`);
}
