/**
 * Between the mesh and the packet thread: for every confirmed connection a slot of the shared tables and the state of its carrier;
 * and the routes, in slots. Runs on the main thread, decides nothing: the cores do.
 *
 *     mesh    confirmed, ended, overlayControl, routes  →  Carriers  →  connections and routes published, special frames  packet thread
 *             established, failed, overlay control      ←            ←  heartbeats, tests and probes received, too big
 */
import { formatEndpoint } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { type Deadline, earlier, type Instant } from "../lib/time.ts";
import type { Confirmed, ConnectionId, MeshRoutes } from "../mesh/mesh.ts";
import { Sleeve, type SleeveOutput, type SleeveState } from "../overlay/sleeve.ts";
import { SLOTS } from "../datapath/tables.ts";
import type { Datapath, DatapathEvent } from "./datapath.ts";

/** What of the packet thread is needed here. */
export type CarrierDatapath = Pick<Datapath, "publishConnection" | "publishRoutes" | "sendSpecial" | "slotCounters">;

/** What carriers tell the mesh. */
export interface CarrierListener {
  established(id: ConnectionId): void;
  failed(id: ConnectionId, reason: string): void;
  control(id: ConnectionId, overlay: number, subTag: number, payload: Uint8Array): void;
}

export interface CarriersOptions {
  readonly ourName: PeerName;
  readonly datapath: CarrierDatapath;
  readonly listener: CarrierListener;
  readonly log: Logger;
}

/** A connection's carrier as status shows it. */
export interface CarrierStatus extends SleeveState {
  readonly carrier: "sleeve";
  readonly txPackets: number;
  readonly txOctets: number;
  readonly rxPackets: number;
  readonly rxOctets: number;
}

interface Line {
  readonly id: ConnectionId;
  readonly confirmed: Confirmed;
  readonly slot: number;
  readonly generation: number;
  readonly sleeve: Sleeve;
  /** Position of sleeve in the list that both sides share. */
  readonly overlay: number;
}

export class Carriers {
  readonly #o: CarriersOptions;
  readonly #lines = new Map<ConnectionId, Line>();
  readonly #bySlot = new Map<number, Line>();
  #nextSlot = 0;
  #generation = 0;
  #routesDue = true;

  constructor(o: CarriersOptions) {
    this.#o = o;
  }

  confirm(confirmed: Confirmed, now: Instant): void {
    const slot = this.#takeSlot();
    const overlay = confirmed.overlays.indexOf("sleeve");
    if (slot < 0 || overlay < 0) {
      this.#o.listener.failed(confirmed.id, slot < 0 ? `No room for more than ${SLOTS} connections` : "no overlays");
      return;
    }
    const { uid, outbound, remote, overlayKey, extensions } = confirmed;
    const line: Line = {
      id: confirmed.id,
      confirmed,
      slot,
      generation: ++this.#generation,
      overlay,
      sleeve: new Sleeve({
        uid,
        outbound,
        remote,
        encrypted: overlayKey !== undefined,
        fast: extensions.includes("probe"),
      }),
    };
    this.#lines.set(line.id, line);
    this.#bySlot.set(slot, line);
    line.sleeve.handleConfirmed(now);
    this.#publish(line);
    this.#routesDue = true;
    this.#drain(line);
  }

  end(id: ConnectionId): void {
    const line = this.#lines.get(id);
    if (line === undefined) return;
    this.#lines.delete(id);
    this.#bySlot.delete(line.slot);
    this.#o.datapath.publishConnection(line.slot, undefined);
    this.#routesDue = true;
  }

  handleControl(id: ConnectionId, overlay: number, subTag: number, payload: Uint8Array, now: Instant): void {
    const line = this.#lines.get(id);
    if (line === undefined || overlay !== line.overlay) return;
    line.sleeve.handleControl(subTag, payload, now);
    this.#drain(line);
  }

  /** Something the packet thread saw. What it says of a connection that is another by now is ignored. */
  handleEvent(event: DatapathEvent, now: Instant): void {
    const line = this.#bySlot.get(event.slot);
    if (line === undefined || line.generation !== event.generation) return;
    if (event.type === "tooBig") line.sleeve.handleTooBig(event.pathMtu, now);
    else if (event.kind === "heartbeat") line.sleeve.handleHeartbeat(event.uid, event.from, now);
    else if (event.kind === "probe") line.sleeve.handleProbe(event.mtu, now);
    else line.sleeve.handleFragmentationTest(now);
    this.#drain(line);
  }

  handleTimeout(now: Instant): void {
    for (const line of [...this.#lines.values()]) {
      const deadline = line.sleeve.pollTimeout();
      if (deadline === undefined || deadline.at > now) continue;
      line.sleeve.handleTimeout(now);
      this.#drain(line);
    }
  }

  pollTimeout(): Deadline | undefined {
    let next: Deadline | undefined;
    for (const line of this.#lines.values()) next = earlier(next, line.sleeve.pollTimeout());
    return next;
  }

  /** Next hops have changed: they are published by the next `publishRoutes()`. */
  routesChanged(): void {
    this.#routesDue = true;
  }

  /** Publishes the routes if they, or the slots they lead to, are others than before. To be called when all is done. */
  publishRoutes(routes: MeshRoutes, peers: () => readonly PeerName[]): void {
    if (!this.#routesDue) return;
    this.#routesDue = false;
    const slots = this.#slotsByPeer();
    const slotOf = (peer: PeerName | undefined) => (peer === undefined ? undefined : slots.get(peer)) ?? -1;
    const unicast = routes.unicast();
    const leftOut = this.#o.datapath.publishRoutes({
      peers: peers().map((name) => ({
        name,
        unicastSlot: name === this.#o.ourName ? -1 : slotOf(unicast.get(name)),
        broadcastSlots: routes.broadcast(name).map(slotOf).filter((slot) => slot >= 0),
      })),
    });
    if (leftOut > 0) this.#o.log.warn("peers left out of the datapath, which has no room for more", { count: leftOut });
  }

  status(id: ConnectionId): CarrierStatus | undefined {
    const line = this.#lines.get(id);
    if (line === undefined) return undefined;
    return { carrier: "sleeve", ...line.sleeve.state, ...this.#o.datapath.slotCounters(line.slot) };
  }

  /** While one connection takes another's place there are two to a peer: the one that works counts, or else the newer. */
  #slotsByPeer(): Map<PeerName, number> {
    const best = new Map<PeerName, Line>();
    for (const line of this.#lines.values()) {
      const other = best.get(line.confirmed.peer);
      const better = other === undefined || rank(line) >= rank(other);
      if (better) best.set(line.confirmed.peer, line);
    }
    return new Map([...best].map(([peer, { slot }]) => [peer, slot]));
  }

  #drain(line: Line): void {
    for (let output = line.sleeve.poll(); output !== undefined; output = line.sleeve.poll()) this.#act(line, output);
  }

  #act(line: Line, output: SleeveOutput): void {
    const { listener, datapath, log } = this.#o;
    switch (output.type) {
      case "changed":
        return this.#publish(line);
      case "special":
        return datapath.sendSpecial(line.slot, line.generation, output);
      case "control":
        return listener.control(line.id, line.overlay, output.subTag, output.payload);
      case "established":
        log.info("carrier established", { ...fieldsOf(line), mtu: line.sleeve.state.mtu });
        this.#routesDue = true;
        return listener.established(line.id);
      case "failed":
        log.info("carrier failed", { ...fieldsOf(line), reason: output.reason });
        return listener.failed(line.id, output.reason);
      default:
        return output satisfies never;
    }
  }

  #publish(line: Line): void {
    const { peer, outbound, overlayKey } = line.confirmed;
    this.#o.datapath.publishConnection(line.slot, {
      ...line.sleeve.state,
      peer,
      generation: line.generation,
      outbound,
      ...(overlayKey === undefined ? {} : { key: overlayKey }),
    });
  }

  /** The next free slot after the last one taken, so that routes to one that ended do not lead to another at once. */
  #takeSlot(): number {
    for (let i = 0; i < SLOTS; i++) {
      const slot = (this.#nextSlot + i) % SLOTS;
      if (this.#bySlot.has(slot)) continue;
      this.#nextSlot = (slot + 1) % SLOTS;
      return slot;
    }
    return -1;
  }
}

function rank(line: Line): number {
  return (line.sleeve.state.established ? 2 ** 40 : 0) + line.generation;
}

function fieldsOf(line: Line) {
  const remote = line.sleeve.state.remote;
  return {
    peer: formatMac(line.confirmed.peer),
    carrier: "sleeve",
    ...(remote === undefined ? {} : { address: formatEndpoint(remote) }),
  };
}
