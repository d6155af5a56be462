/**
 * What every way of carrying frames to a neighbour (a carrier) has in common, as a core: it is told what happened and when, and
 * says what to do. Whoever runs it carries that out, and hands on what the peer's side of the same carrier says over the
 * control connection.
 */
import type { Deadline, Instant } from "../lib/time.ts";

/** What any carrier asks for. What else one needs, its own outputs say. */
export type CarrierOutput =
  /** Tell the peer's side of this carrier, over the control connection. */
  | { readonly type: "control"; readonly subTag: number; readonly payload: Uint8Array }
  /** Frames pass. Said once. */
  | { readonly type: "established" }
  /** It does not work, and will not again on this connection. Said once; nothing follows. */
  | { readonly type: "failed"; readonly reason: string }
  /** What the datapath must know of it is different: publish it, before what follows is carried out. */
  | { readonly type: "changed" };

export interface Carrier<Own = never> {
  /** The connection was accepted by the mesh: frames of the peer are taken from now on. */
  handleConfirmed(now: Instant): void;
  /** A message of the peer's side of this carrier. Octets that mean nothing are ignored. */
  handleControl(subTag: number, payload: Uint8Array, now: Instant): void;
  handleTimeout(now: Instant): void;
  pollTimeout(): Deadline | undefined;
  poll(): CarrierOutput | Own | undefined;
}
