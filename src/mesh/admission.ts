/** Whether a peer that introduced itself may stay, by who it says it is. */
import { formatMac, NO_PEER } from "../lib/mac.ts";
import type { Features } from "../wire/control.ts";
import type { PeerRecord } from "../wire/topology.ts";
import type { Connection, Introduction } from "./connection.ts";

export interface Refusal {
  readonly reason: string;
  /** `never`: its target will not be dialled again, until it is configured again. */
  readonly retry: "later" | "never";
  /** The connection leads to ourselves: it does not count as one that was terminated. */
  readonly ourself?: boolean;
}

export interface Applicant {
  readonly connection: Connection;
  readonly features: Features;
  readonly introduction: Introduction;
  /** Our own record. */
  readonly ours: PeerRecord;
  /** What we know of the peer. */
  readonly known: PeerRecord | undefined;
}

/** Why the applicant may not stay; undefined: nothing speaks against it. Reasons as Weave Net 2.8 words them. */
export function refusalOf({ connection, features, introduction, ours, known }: Applicant): Refusal | undefined {
  const { name, uid } = features;
  if (name === NO_PEER || !connection.anyPeer && !known) {
    return { reason: `Found unknown remote name: ${formatMac(name)} at ${connection.address}`, retry: "later" };
  }
  if (name === ours.name && uid !== ours.uid) {
    const [us, them] = [describePeer(ours), describePeer(features)].map((text) => JSON.stringify(text));
    return { reason: `local ${us} and remote ${them} peer names collision`, retry: "never" };
  }
  if (name === ours.name) return { reason: "cannot connect to ourself", retry: "never", ourself: true };
  if (introduction.overlays.length === 0) return { reason: "no overlays in common with peer", retry: "later" };
  return undefined;
}

/** `name(nickname)`, as status and log show a peer. */
export function describePeer(peer: { readonly name: PeerRecord["name"]; readonly nickName: string }): string {
  return `${formatMac(peer.name)}(${peer.nickName})`;
}
