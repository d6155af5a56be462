/**
 * What waits to be gossiped on one connection. Each channel has one slot for gossip, and one for the broadcasts of each source; what comes
 * for a slot that is taken is merged with what waits there, so that a slow connection gets less, not later. Gossip goes first.
 */
import type { PeerName } from "../lib/mac.ts";
import type { Payload } from "../wire/control.ts";

/** What is to be gossiped on a channel, merged with more while it waits, and encoded when it is sent. Immutable. */
export interface GossipData {
  /** Folds in what came later, of the same channel. */
  merge(later: GossipData): GossipData;
  /** Payloads, each a message of its own. */
  encode(): readonly Payload[];
  /** Octets that it holds while it waits; left out where they are few, however much is merged. */
  readonly heldOctets?: number;
}

/** A slot's content. */
export interface Waiting {
  readonly channel: string;
  /** Of a broadcast; undefined: gossip. */
  readonly source: PeerName | undefined;
  readonly data: GossipData;
}

export class GossipSlots {
  readonly #gossip = new Map<string, GossipData>();
  readonly #broadcasts = new Map<string, Map<PeerName, GossipData>>();
  #heldOctets = 0;
  #count = 0;

  /** @param source of a broadcast; undefined: gossip */
  put(channel: string, source: PeerName | undefined, data: GossipData): void {
    if (source === undefined) return this.#putInto(this.#gossip, channel, data);
    let sources = this.#broadcasts.get(channel);
    if (!sources) this.#broadcasts.set(channel, sources = new Map());
    this.#putInto(sources, source, data);
  }

  /** Takes the content of one slot away. */
  take(): Waiting | undefined {
    if (this.#count === 0) return undefined;
    for (const [channel, data] of this.#gossip) {
      this.#gossip.delete(channel);
      return this.#taken({ channel, source: undefined, data });
    }
    for (const [channel, sources] of this.#broadcasts) {
      for (const [source, data] of sources) {
        sources.delete(source);
        if (sources.size === 0) this.#broadcasts.delete(channel);
        return this.#taken({ channel, source, data });
      }
    }
    return undefined;
  }

  /** Octets in slots whose content grows with what comes. */
  get heldOctets(): number {
    return this.#heldOctets;
  }

  #putInto<Key>(slots: Map<Key, GossipData>, key: Key, data: GossipData): void {
    const before = slots.get(key);
    const after = before ? before.merge(data) : data;
    slots.set(key, after);
    if (!before) this.#count++;
    this.#heldOctets += (after.heldOctets ?? 0) - (before?.heldOctets ?? 0);
  }

  #taken(waiting: Waiting): Waiting {
    this.#count--;
    this.#heldOctets -= waiting.data.heldOctets ?? 0;
    return waiting;
  }
}
