/**
 * Next hops, by breadth-first search over the graph of peers, level by level; within a level peers are visited in ascending order
 * of name, so that whoever knows the same graph finds the same ways, and a broadcast reaches every peer once.
 *
 * A connection counts in the *established* tables if the records of both ends have it as established, in the *all* tables if that of the
 * near end has it. Frames follow the first, gossip the second. Tables are made when asked for and kept until a record changes.
 */
import { NO_PEER, type PeerName } from "../lib/mac.ts";
import type { Random } from "../lib/random.ts";
import type { PeerNode, Peers } from "./peers.ts";

/** Destination → next hop; ourselves → NO_PEER. */
export type UnicastTable = ReadonlyMap<PeerName, PeerName>;

interface Tables {
  unicast: UnicastTable | undefined;
  readonly broadcast: Map<PeerName, readonly PeerName[]>;
  /** For each neighbour how many destinations it serves; ascending by name. */
  weights: ReadonlyMap<PeerName, number> | undefined;
}

export class Routes {
  readonly #peers: Peers;
  #generation = -1;
  #established = emptyTables();
  #all = emptyTables();

  constructor(peers: Peers) {
    this.#peers = peers;
  }

  unicast(): UnicastTable {
    return this.#unicast(this.#tables(true), true);
  }

  unicastAll(): UnicastTable {
    return this.#unicast(this.#tables(false), false);
  }

  /** Whether established connections lead to a peer, found without a table. */
  leadTo(name: PeerName): boolean {
    const wanted = this.#peers.node(name);
    if (!wanted) return false;
    this.#peers.linkSymmetric();
    const mark = this.#peers.nextMark();
    const reached = [this.#peers.ourNode];
    this.#peers.ourNode.mark = mark;
    for (let i = 0; i < reached.length && wanted.mark !== mark; i++) {
      for (const to of reached[i]!.symmetric) {
        if (to.mark === mark) continue;
        to.mark = mark;
        reached.push(to);
      }
    }
    return wanted.mark === mark;
  }

  /** Neighbours to which a broadcast of `source` goes on from here, ascending by name; empty for an unknown source. */
  broadcast(source: PeerName): readonly PeerName[] {
    return this.#broadcast(this.#tables(true), source, true);
  }

  broadcastAll(source: PeerName): readonly PeerName[] {
    return this.#broadcast(this.#tables(false), source, false);
  }

  /**
   * Neighbours to gossip with: 2·log2(peers) of them, drawn with a probability that grows with how many peers they lead to, so that
   * narrow places are crossed; all of them where that is as many.
   */
  randomNeighbours(except: PeerName, random: Random): PeerName[] {
    const neighbours = this.#neighbours().filter((name) => name !== except);
    const { length } = neighbours;
    if (this.#reaches(2 ** (length / 2))) return neighbours;
    const wanted = gossipFanOut(this.unicastAll().size);
    if (wanted >= length) return neighbours;
    const weights = new Map(this.#weights());
    weights.delete(except);
    return drawWeighted(weights, wanted, random);
  }

  #tables(established: boolean): Tables {
    if (this.#generation !== this.#peers.generation) {
      this.#generation = this.#peers.generation;
      this.#established = emptyTables();
      this.#all = emptyTables();
    }
    return established ? this.#established : this.#all;
  }

  #unicast(tables: Tables, established: boolean): UnicastTable {
    tables.unicast ??= searchUnicast(this.#peers, established);
    return tables.unicast;
  }

  #broadcast(tables: Tables, source: PeerName, established: boolean): readonly PeerName[] {
    const known = tables.broadcast.get(source);
    if (known) return known;
    const from = this.#peers.node(source);
    if (!from) return [];
    const hops = searchBroadcast(this.#peers, from, established);
    tables.broadcast.set(source, hops);
    return hops;
  }

  #neighbours(): PeerName[] {
    return linksOf(this.#peers.ourNode, false).map((node) => node.name).sort(ascending);
  }

  #weights(): ReadonlyMap<PeerName, number> {
    const tables = this.#tables(false);
    if (!tables.weights) {
      const weights = new Map(this.#neighbours().map((name) => [name, 0]));
      for (const hop of this.unicastAll().values()) if (hop !== NO_PEER) weights.set(hop, (weights.get(hop) ?? 0) + 1);
      tables.weights = weights;
    }
    return tables.weights;
  }

  /** Whether there are so many peers on the ways from us: mostly seen after a few steps, without a table. */
  #reaches(count: number): boolean {
    const { unicast } = this.#tables(false);
    if (unicast) return unicast.size >= count;
    return this.#peers.size >= count && this.#peers.reach(this.#peers.nextMark(), count).length >= count;
  }
}

/** How many neighbours hear gossip, of a mesh of this many peers, ourselves included. */
export function gossipFanOut(peers: number): number {
  return Math.floor(2 * Math.log2(peers));
}

/** Draws `count` keys without putting back; the chance of each is its value over the sum. */
export function drawWeighted(weights: Map<PeerName, number>, count: number, random: Random): PeerName[] {
  let total = 0;
  for (const weight of weights.values()) total += weight;
  const drawn: PeerName[] = [];
  while (drawn.length < count && weights.size > 0) {
    let point = random.unit() * total;
    for (const [name, weight] of weights) {
      point -= weight;
      if (point >= 0) continue;
      drawn.push(name);
      weights.delete(name);
      total -= weight;
      break;
    }
  }
  return drawn;
}

function searchUnicast(peers: Peers, established: boolean): UnicastTable {
  if (established) peers.linkSymmetric();
  const us = peers.ourNode;
  const mark = peers.nextMark();
  const hops = new Map<PeerName, PeerName>([[us.name, NO_PEER]]);
  us.mark = mark;
  let level: Visit[] = [{ node: us, hop: NO_PEER }];
  while (level.length > 0 && hops.size < peers.size) {
    const next: Visit[] = [];
    for (const { node, hop } of level) {
      for (const to of established ? node.symmetric : node.links) {
        if (to === undefined || to.mark === mark) continue;
        to.mark = mark;
        const visit = { node: to, hop: node === us ? to.name : hop };
        hops.set(to.name, visit.hop);
        next.push(visit);
      }
    }
    level = next.sort((a, b) => a.node.name - b.node.name);
  }
  return hops;
}

interface Visit {
  readonly node: PeerNode;
  readonly hop: PeerName;
}

function searchBroadcast(peers: Peers, source: PeerNode, established: boolean): readonly PeerName[] {
  if (established) peers.linkSymmetric();
  const us = peers.ourNode;
  const mark = peers.nextMark();
  let reached = 1;
  source.mark = mark;
  let level = [source];
  while (level.length > 0) {
    const next: PeerNode[] = [];
    for (const node of level) {
      if (node === us) return namesNotMarked(linksOf(us, established), mark);
      if (reached === peers.size) return []; // nobody is left for us to serve
      for (const to of established ? node.symmetric : node.links) {
        if (to === undefined || to.mark === mark) continue;
        to.mark = mark;
        reached++;
        next.push(to);
      }
    }
    level = next.sort((a, b) => a.name - b.name);
  }
  return [];
}

function namesNotMarked(nodes: readonly PeerNode[], mark: number): PeerName[] {
  return nodes.filter((node) => node.mark !== mark).map((node) => node.name).sort(ascending);
}

function linksOf(node: PeerNode, established: boolean): readonly PeerNode[] {
  return established ? node.symmetric : node.links.filter((to) => to !== undefined);
}

function emptyTables(): Tables {
  return { unicast: undefined, broadcast: new Map(), weights: undefined };
}

function ascending(a: number, b: number): number {
  return a - b;
}
