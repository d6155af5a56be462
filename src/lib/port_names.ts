/** Names of the two ends of a veth for an endpoint in a network of Docker, before what tells it from others. */

/** Host's end, in the bridge. */
export const ENDPOINT_PORT_PREFIX = "vethwl";
/** The other end until Docker takes it. */
export const ENDPOINT_GUEST_PREFIX = "vethwg";
