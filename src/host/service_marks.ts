/**
 * Marks by which rules, routes and sockets of services know each other. Networks are numbers from 1 to 62, backends from 1 to 65535.
 *
 *     ct mark       31    24 23    16 15            0
 *                  +--------+-+------+---------------+
 *                  | of the |O|of the| backend       |
 *                  | backend| |client|               |
 *                  +--------+-+------+---------------+
 *     packet mark  +--------+-+-------------------- -
 *                  | route  |I|  not ours
 *                  | by     | |
 *                  +--------+-+-------------------- -
 *
 * `O` is set in every mark of ours, so that one bit tells our flows from others. A flow without backend is one that was refused.
 * A packet is routed by the network in its mark: the backend's where it comes from the client, and the other way round. `I` is set on
 * what `service_reset.ts` sends in the name of others: no rule tracks, translates or marks it, and it has its network from the start.
 * A socket of ours that asks a backend (`service_probe.ts`) has the network in its mark as well, 2 for the host's own routing: rules
 * for clients on this host concern only what has none.
 */

/** Of a ct mark. */
export const BACKEND_MASK = 0x0000_ffff;
export const OURS = 0x0080_0000;
export const CLIENT_NETWORK_MASK = 0x007f_0000;
export const CLIENT_NETWORK_SHIFT = 16;
export const BACKEND_NETWORK_MASK = 0xff00_0000;
export const BACKEND_NETWORK_SHIFT = 24;

/** Of a packet mark, and of `SO_MARK`. */
export const ROUTE_MASK = 0xff00_0000;
export const ROUTE_SHIFT = 24;
export const INJECTED = 0x0080_0000;

/** The packet mark that has a packet routed as in that network. */
export function routeMark(network: number): number {
  return (network << ROUTE_SHIFT) >>> 0;
}

/** The ct mark of a flow. @param backend undefined where it is refused */
export function flowMark(flow: {
  readonly client: number;
  readonly backend?: { readonly id: number; readonly network: number };
}): number {
  const { id, network } = flow.backend ?? { id: 0, network: 0 };
  return (network << BACKEND_NETWORK_SHIFT | OURS | flow.client << CLIENT_NETWORK_SHIFT | id) >>> 0;
}

/** The backend that a ct mark names. */
export function markedBackend(mark: number): number {
  return mark & BACKEND_MASK;
}

export function markedClientNetwork(mark: number): number {
  return (mark & CLIENT_NETWORK_MASK) >>> CLIENT_NETWORK_SHIFT;
}

export function markedBackendNetwork(mark: number): number {
  return (mark & BACKEND_NETWORK_MASK) >>> BACKEND_NETWORK_SHIFT;
}

const OURS_TEXT = `0x${OURS.toString(16)}`;
/** Every flow of ours, as `-m connmark --mark` of iptables takes and prints it. */
export const OUR_CONNMARK = `${OURS_TEXT}/${OURS_TEXT}`;
