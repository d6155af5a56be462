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
  /** Far ends of the record's connections, itself and unknown ones left out. */
  links: readonly PeerLink[];
  /** Some far end found no room when the record came. */
  incomplete: boolean;
  /** Far ends of established links; made when asked for. */
  establishedTo: Set<PeerNode> | undefined;
  /** Number of the last search that came by. */
  mark: number;
}

export interface PeerLink {
  readonly to: PeerNode;
  readonly established: boolean;
}

export interface MergeResult {
  /** The peers that the update was about. */
  readonly names: readonly PeerName[];
  /** Those whose record is now another one: what is to be passed on. */
  readonly improved: readonly PeerName[];
  /** Our own record has a new version and is to be told. */
  readonly ourselfChanged: boolean;
  /** Records that found no room. */
  readonly refused: number;
}

/** @param record with uid 0: the peer is known only as the far end of somebody's connection */
export function isPlaceholder(record: PeerRecord): boolean {
  return record.uid === 0n && record.version === 0n;
}

export class Peers {
  readonly #byName = new Map<PeerName, PeerNode>();
  readonly #ourself: PeerNode;
  readonly #shortIds = new ShortIds();
  readonly #random: Random;
  #connections = 0;
  #generation = 0;
  #searches = 0;
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

  nodes(): IterableIterator<PeerNode> {
    return this.#byName.values();
  }

  names(): IterableIterator<PeerName> {
    return this.#byName.keys();
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
    if (this.#byName.has(record.name)) return true;
    if (this.#byName.size >= MAX_PEERS) return false;
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
    const names = new Set<PeerName>();
    const improved = new Set<PeerName>();
    let ourselfChanged = false;
    let refused = 0;
    const changed: PeerNode[] = [];
    for (const record of records) {
      if (record.name === NO_PEER) continue;
      names.add(record.name);
      const known = this.#byName.get(record.name);
      if (known === this.#ourself) {
        ourselfChanged = this.#outdo(record) || ourselfChanged;
      } else if (known ? known.record !== record && isNewer(record, known.record) : true) {
        const node = known ? this.#replace(known, record) : this.#add(record);
        if (!node) {
          refused++;
          continue;
        }
        changed.push(node);
        improved.add(record.name);
      }
    }
    // Links come last: a far end may be described further on in the same update.
    for (const node of changed) this.#link(node);
    if (changed.length > 0) ourselfChanged = this.#settleShortId() || ourselfChanged;
    return { names: [...names], improved: [...improved], ourselfChanged, refused };
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
    const reached = [this.#ourself];
    this.#ourself.mark = mark;
    for (let i = 0; i < reached.length; i++) {
      for (const { to } of reached[i]!.links) {
        if (to.mark === mark) continue;
        to.mark = mark;
        reached.push(to);
      }
    }
    if (reached.length === this.#byName.size) return { removed: [], ourselfChanged: false };
    const removed: PeerRecord[] = [];
    for (const node of this.#byName.values()) {
      if (node.mark === mark) continue;
      this.#byName.delete(node.name);
      this.#connections -= node.record.connections.length;
      this.#shortIds.remove(node.record.shortId, node.name);
      removed.push(node.record);
    }
    this.#generation++;
    this.#shortIdsExhausted = false;
    for (const node of reached) if (node.incomplete) this.#link(node);
    return { removed, ourselfChanged: this.#settleShortId() };
  }

  #outdo(record: PeerRecord): boolean {
    return this.outdo(record.uid, record.version);
  }

  #add(record: PeerRecord): PeerNode | undefined {
    const room = this.#byName.size < MAX_PEERS && this.#connections + record.connections.length <= MAX_CONNECTIONS;
    return room ? this.#create(record) : undefined;
  }

  #create(record: PeerRecord): PeerNode {
    const { name } = record;
    const node: PeerNode = { name, record, links: [], incomplete: false, establishedTo: undefined, mark: 0 };
    this.#byName.set(name, node);
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
    node.record = record;
    this.#generation++;
    return node;
  }

  /** Finds the far ends of a record's connections; those that nobody has described become placeholders. */
  #link(node: PeerNode): void {
    const links: PeerLink[] = [];
    node.incomplete = false;
    for (const { peer, established } of node.record.connections) {
      if (peer === node.name || peer === NO_PEER) continue;
      const to = this.#byName.get(peer) ?? this.#add(placeholder(peer));
      if (to) links.push({ to, established });
      else node.incomplete = true;
    }
    node.links = links;
    node.establishedTo = undefined;
    this.#generation++;
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
export function isNewer(theirs: PeerRecord, ours: PeerRecord): boolean {
  if (theirs.version !== ours.version) return theirs.version > ours.version;
  if (theirs.uid !== ours.uid) return theirs.uid > ours.uid;
  return theirs.shortId !== undefined && ours.shortId === undefined;
}

/** Far ends that `node` calls established. */
export function establishedTo(node: PeerNode): Set<PeerNode> {
  node.establishedTo ??= new Set(node.links.filter((link) => link.established).map((link) => link.to));
  return node.establishedTo;
}

function placeholder(name: PeerName): PeerRecord {
  return { name, nickName: "", uid: 0n, version: 0n, shortId: undefined, connections: [] };
}
