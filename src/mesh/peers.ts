/**
 * Every peer we know, as a graph. Each peer alone changes its own record, and counts its versions: of two records of one peer the one
 * with the greater (version, uid) is right, so that merging gives the same whatever comes first and however often.
 *
 * Records are immutable and may be shared between meshes. The nodes that hold them are ours: they know their neighbours as nodes,
 * so that a search over the whole graph looks nothing up.
 */
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { ConnectionRecord, PeerRecord } from "../wire/topology.ts";
import { NameMap } from "./name_map.ts";
import { ShortIds } from "./short_ids.ts";

/** Peers there may be, ourselves included: as many as there are short ids. More are not taken. */
export const MAX_PEERS = 4096;

/** Connections in all records together. A record that would bring more is not taken. */
export const MAX_CONNECTIONS = 1 << 20;

/** The highest version of an earlier life of ours that we still outdo; what is above was never reached by counting. */
const MAX_VERSION = (1n << 64n) - (1n << 32n);

/** A peer as a node of the graph. */
export interface PeerNode {
  readonly name: PeerName;
  /** Replaced as a whole. */
  record: PeerRecord;
  /** Far ends, one for each of the record's connections; undefined for the peer itself, and where there was no room. */
  links: readonly (PeerNode | undefined)[];
  /** `links` is not right yet, or some far end found no room. */
  incomplete: boolean;
  /** Far ends of connections that both records have as established; see `linkSymmetric()`. */
  symmetric: readonly PeerNode[];
  /** Number of the last search that came by. */
  mark: number;
  /** Its peer is not known any more, or by another node. */
  gone: boolean;
}

export interface MergeResult {
  /** Those whose record is now another one: what is to be passed on. */
  readonly improved: readonly PeerNode[];
  /** Our own record has a new version and is to be told. */
  readonly ourselfChanged: boolean;
  /** Records that found no room. */
  readonly refused: number;
}

/** @param record with uid 0: the peer is known only as the far end of somebody's connection */
export function isPlaceholder(record: PeerRecord): boolean {
  return record.uid === 0n && record.version === 0n;
}

const NO_NODES: readonly PeerNode[] = [];

export class Peers {
  readonly #byName = new NameMap<PeerNode>();
  /** Oldest first. */
  #nodes: PeerNode[] = [];
  readonly #ourself: PeerNode;
  readonly #shortIds = new ShortIds();
  readonly #random: Random;
  #connections = 0;
  #generation = 0;
  #searches = 0;
  #symmetricGeneration = -1;
  /** All short ids were taken; no use to look again before somebody is gone. */
  #shortIdsExhausted = false;

  constructor(ourself: PeerRecord, random: Random) {
    this.#random = random;
    this.#ourself = this.#create(ourself);
    this.#link(this.#ourself);
  }

  /** Another number whenever any record or the set of peers is another one. */
  get generation(): number {
    return this.#generation;
  }

  get size(): number {
    return this.#byName.size;
  }

  /** Our own record. */
  get ourself(): PeerRecord {
    return this.#ourself.record;
  }

  get ourNode(): PeerNode {
    return this.#ourself;
  }

  get(name: PeerName): PeerRecord | undefined {
    return this.#byName.get(name)?.record;
  }

  node(name: PeerName): PeerNode | undefined {
    return this.#byName.get(name);
  }

  nodes(): readonly PeerNode[] {
    return this.#nodes;
  }

  /** For a search: differs from every node's mark. */
  nextMark(): number {
    return ++this.#searches;
  }

  shortIdOwner(shortId: number): PeerName | undefined {
    return this.#shortIds.owner(shortId);
  }

  /** All who have this short id, its owner first. */
  shortIdHolders(shortId: number): readonly PeerName[] {
    return this.#shortIds.holders(shortId);
  }

  /**
   * A peer introduced itself: it becomes known, if it is not, as its introduction says; what is known already is not touched. False:
   * no room.
   */
  introduce(record: PeerRecord): boolean {
    if (this.#byName.get(record.name)) return true;
    if (this.size >= MAX_PEERS) return false;
    this.#create(record);
    return true;
  }

  /** Our own connections are these from now on: a new version. True: our short id had to change as well. */
  setOurConnections(connections: readonly ConnectionRecord[]): boolean {
    this.#changeOurself({ connections });
    return this.#settleShortId();
  }

  /** Folds in what others know. */
  merge(records: readonly PeerRecord[]): MergeResult {
    const mark = this.nextMark();
    const improved: PeerNode[] = [];
    let ourselfChanged = false;
    let refused = 0;
    for (const record of records) {
      if (record.name === NO_PEER) continue;
      const known = this.#byName.get(record.name);
      if (known === this.#ourself) {
        if (this.outdo(record.uid, record.version)) ourselfChanged = true;
      } else if (!known || known.record !== record && isNewer(record, known.record)) {
        const node = known ? this.#replace(known, record) : this.#add(record);
        if (!node) {
          refused++;
        } else if (node.mark !== mark) {
          node.mark = mark;
          improved.push(node);
        }
      }
    }
    // Links come last: a far end may be described further on in the same update.
    for (const node of improved) if (node.incomplete) this.#link(node);
    if (improved.length > 0 && this.#settleShortId()) ourselfChanged = true;
    return { improved, ourselfChanged, refused };
  }

  /** An earlier life of ours is still told of: our version goes beyond it. True if it had to. */
  outdo(uid: bigint, version: bigint): boolean {
    if (uid === this.ourself.uid || version < this.ourself.version || version > MAX_VERSION) return false;
    this.#changeOurself({ version: version + 1n });
    return true;
  }

  /** Forgets whom no chain of recorded connections leads to from us. */
  collectGarbage(): { readonly removed: readonly PeerRecord[]; readonly ourselfChanged: boolean } {
    const mark = this.nextMark();
    const reached = this.reach(mark, Infinity);
    if (reached.length === this.size) return { removed: [], ourselfChanged: false };
    const removed: PeerRecord[] = [];
    for (const node of this.#nodes) {
      if (node.mark === mark) continue;
      node.gone = true;
      this.#byName.delete(node.name);
      this.#connections -= node.record.connections.length;
      this.#shortIds.remove(node.record.shortId, node.name);
      removed.push(node.record);
    }
    this.#nodes = this.#nodes.filter((node) => !node.gone);
    this.#generation++;
    this.#shortIdsExhausted = false;
    for (const node of reached) if (node.incomplete) this.#link(node);
    return { removed, ourselfChanged: this.#settleShortId() };
  }

  /** Marks whom recorded connections lead to from us, ourselves first, until there are so many. */
  reach(mark: number, enough: number): readonly PeerNode[] {
    const reached = [this.#ourself];
    this.#ourself.mark = mark;
    for (let i = 0; i < reached.length && reached.length < enough; i++) {
      for (const to of reached[i]!.links) {
        if (to === undefined || to.mark === mark) continue;
        to.mark = mark;
        reached.push(to);
      }
    }
    return reached;
  }

  /** Makes `symmetric` of all nodes right, unless it is. */
  linkSymmetric(): void {
    if (this.#symmetricGeneration === this.#generation) return;
    this.#symmetricGeneration = this.#generation;
    const listedBy = new Map<PeerNode, PeerNode[]>();
    for (const node of this.#nodes) listedBy.set(node, []);
    for (const node of this.#nodes) for (const to of establishedLinks(node)) listedBy.get(to)!.push(node);
    for (const [node, listing] of listedBy) {
      const mark = this.nextMark();
      for (const other of listing) other.mark = mark;
      const symmetric = establishedLinks(node).filter((to) => to.mark === mark);
      node.symmetric = symmetric.length > 0 ? symmetric : NO_NODES;
    }
  }

  #add(record: PeerRecord): PeerNode | undefined {
    const room = this.size < MAX_PEERS && this.#connections + record.connections.length <= MAX_CONNECTIONS;
    return room ? this.#create(record) : undefined;
  }

  #create(record: PeerRecord): PeerNode {
    const { name } = record;
    const node: PeerNode = {
      name,
      record,
      links: NO_NODES,
      incomplete: record.connections.length > 0,
      symmetric: NO_NODES,
      mark: 0,
      gone: false,
    };
    this.#byName.set(name, node);
    this.#nodes.push(node);
    this.#connections += record.connections.length;
    this.#shortIds.add(record.shortId, name);
    this.#generation++;
    return node;
  }

  #replace(node: PeerNode, record: PeerRecord): PeerNode | undefined {
    const connections = this.#connections + record.connections.length - node.record.connections.length;
    if (connections > MAX_CONNECTIONS) return undefined;
    this.#connections = connections;
    if (record.shortId !== node.record.shortId) {
      this.#shortIds.remove(node.record.shortId, node.name);
      this.#shortIds.add(record.shortId, node.name);
    }
    // Mostly it is the state of a connection that is new, not its far end.
    if (!haveSameFarEnds(node.record, record)) node.incomplete = true;
    node.record = record;
    this.#generation++;
    return node;
  }

  /** Finds the far ends of a record's connections; those that nobody has described become placeholders. */
  #link(node: PeerNode): void {
    this.#generation++;
    node.incomplete = false;
    node.links = node.record.connections.map(({ peer }) => {
      if (peer === node.name || peer === NO_PEER) return undefined;
      const to = this.#byName.get(peer) ?? this.#add(placeholder(peer));
      if (!to) node.incomplete = true;
      return to;
    });
  }

  #changeOurself(change: Partial<PeerRecord>): void {
    const record = { ...this.ourself, version: this.ourself.version + 1n, ...change };
    this.#replace(this.#ourself, record);
    this.#link(this.#ourself);
  }

  /** Takes another short id where a lower name has ours. True if it did. */
  #settleShortId(): boolean {
    const { shortId, name } = this.ourself;
    if (shortId === undefined || this.#shortIds.owner(shortId) === name || this.#shortIdsExhausted) return false;
    const free = this.#shortIds.chooseFree(this.#random);
    this.#shortIdsExhausted = free === undefined;
    if (free === undefined) return false;
    this.#changeOurself({ shortId: free });
    return true;
  }
}

/** Of two records of one peer, whether the first one is to replace the second. */
function isNewer(theirs: PeerRecord, ours: PeerRecord): boolean {
  if (theirs.version !== ours.version) return theirs.version > ours.version;
  if (theirs.uid !== ours.uid) return theirs.uid > ours.uid;
  return theirs.shortId !== undefined && ours.shortId === undefined;
}

function haveSameFarEnds(a: PeerRecord, b: PeerRecord): boolean {
  if (a.connections.length !== b.connections.length) return false;
  for (let i = 0; i < a.connections.length; i++) if (a.connections[i]!.peer !== b.connections[i]!.peer) return false;
  return true;
}

/** Far ends that the node's record calls established. */
function establishedLinks(node: PeerNode): PeerNode[] {
  const links: PeerNode[] = [];
  node.links.forEach((to, i) => {
    if (to && node.record.connections[i]!.established) links.push(to);
  });
  return links;
}

function placeholder(name: PeerName): PeerRecord {
  return { name, nickName: "", uid: 0n, version: 0n, shortId: undefined, connections: [] };
}
