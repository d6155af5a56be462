/** Which carriers a connection has: those that both routers offer, by name, in the order of our preference. */
import { ProtocolError } from "../lib/errors.ts";

/**
 * The carriers in common. A carrier's place in this list is its number in control messages; the router at the other end may have
 * another order, but with the names in use both have the same.
 * @param theirs undefined where the peer said nothing of carriers: then it has sleeve alone
 * @throws ProtocolError where there is none
 */
export function commonOverlays(ours: readonly string[], theirs: readonly string[] | undefined): readonly string[] {
  const common = ours.filter((name) => (theirs ?? ["sleeve"]).includes(name));
  if (common.length === 0) throw new ProtocolError("no overlays in common with peer");
  return common;
}
