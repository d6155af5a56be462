/**
 * Services of isolated networks: a plan in parts, one for this namespace and one for that of each network. Pure. The parts speak to each
 * other by addresses of the transit, one for each backend and one for each address at which clients of the network call; ports stay as
 * they are. An inner part is a plan like any other, for a gateway with two networks.
 *
 *     here:    listener ─▶ 240.N.b:port          clients' 240.N.k:port ─▶ target
 *     inside:  240.N.b:port ─▶ backend:port      own or answered address:port ─▶ 240.N.k:port, if allowed
 */
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import type {
  BackendId,
  BackendPlan,
  ListenerPlan,
  NetworkId,
  NetworkPlan,
  Protocol,
  ServicePlan,
} from "../service/plan.ts";
import { transitAddress, transitLink } from "./network_namespace.ts";

export interface PlanParts {
  readonly here: ServicePlan;
  readonly inside: readonly InnerPart[];
}

export interface InnerPart {
  readonly network: NetworkPlan;
  readonly plan: ServicePlan;
}

/** What the transit is in an inner plan. Greater than any network. */
const TRANSIT: NetworkId = 63;
/** Host parts of the transit that backends have: their number and this, as the veth's ends have the first ones. */
const BACKENDS_FROM = 3;
/** Host parts for addresses at which clients call, and what these are as backends inside. */
const CALLED_FROM = 65_024, CALLED_COUNT = 510;
const PROTOCOLS: readonly Protocol[] = ["tcp", "udp"];

export function splitPlan(plan: ServicePlan): PlanParts {
  const isolated = plan.networks.filter((network) => network.isolated);
  if (isolated.length === 0) return { here: plan, inside: [] };
  const isIsolated = new Set(isolated.map(({ id }) => id));
  const called = new Map(
    isolated.map(({ id }) => [id, numberCalled(plan.listeners.filter(({ network }) => network === id))]),
  );
  const here: ServicePlan = {
    ...plan,
    networks: plan.networks.map((network) =>
      network.isolated ? { ...network, interfaces: [transitLink(network.id)] } : network
    ),
    answered: [
      ...plan.answered.filter(({ network }) => !isIsolated.has(network)),
      ...[...called].flatMap(([network, numbers]) =>
        [...numbers.values()].map((host) => ({ network, address: transitAddress(network, host) }))
      ),
    ],
    backends: plan.backends.map((backend) =>
      isIsolated.has(backend.network) ? { ...backend, address: backendTransit(backend) } : backend
    ),
    listeners: plan.listeners.map((listener) =>
      isIsolated.has(listener.network)
        ? {
          ...listener,
          address: transitAddress(listener.network, called.get(listener.network)!.get(listener.address)!),
          allow: undefined, // judged inside, where the client's address is to be seen
        }
        : listener
    ),
  };
  return {
    here,
    inside: isolated.map((network) => ({ network, plan: innerPlan(plan, network, called.get(network.id)!) })),
  };
}

function innerPlan(
  plan: ServicePlan,
  { id, name, interfaces }: NetworkPlan,
  called: ReadonlyMap<Ipv4 | "own", BackendId>,
): ServicePlan {
  const backends = plan.backends.filter(({ network }) => network === id);
  const inbound = backends.flatMap((backend): ListenerPlan[] =>
    PROTOCOLS.map((protocol) => ({
      service: backend.service,
      network: TRANSIT,
      address: backendTransit(backend),
      protocol,
      firstPort: 1,
      lastPort: 65_535,
      allow: undefined,
      targets: backend.revoked ? [] : [{ backend: backend.id, firstPort: 1, weight: 1 }],
    }))
  );
  const outbound = plan.listeners.filter(({ network }) => network === id).map((listener): ListenerPlan => ({
    ...listener,
    targets: listener.targets.length === 0
      ? []
      : [{ backend: called.get(listener.address)!, firstPort: listener.firstPort, weight: 1 }],
  }));
  return {
    networks: [
      { id, name, interfaces, isolated: false },
      { id: TRANSIT, name: "transit", interfaces: [transitLink(id)], isolated: false },
    ],
    subnets: [],
    answered: [
      ...plan.answered.filter(({ network }) => network === id),
      ...backends.map((backend) => ({ network: TRANSIT, address: backendTransit(backend) })),
    ],
    backends: [
      ...backends,
      ...[...called.values()].map((host): BackendPlan => ({
        id: host,
        service: "",
        network: TRANSIT,
        address: transitAddress(id, host),
      })),
    ],
    listeners: [...inbound, ...outbound],
  };
}

function backendTransit({ id, network, service }: BackendPlan): Ipv4 {
  if (id + BACKENDS_FROM >= CALLED_FROM) {
    throw new OperationError(`Cannot reach "${service}": more backends than an isolated network can have`);
  }
  return transitAddress(network, id + BACKENDS_FROM);
}

/**
 * A number for each address at which clients call. It depends on the address as far as possible, so that it stays the same when others
 * come and go.
 */
function numberCalled(listeners: readonly ListenerPlan[]): Map<Ipv4 | "own", BackendId> {
  const numbers = new Map<Ipv4 | "own", BackendId>();
  const taken = new Set<number>();
  for (const address of [...new Set(listeners.map((listener) => listener.address))].sort()) {
    let number = address === "own" ? 0 : address % CALLED_COUNT;
    if (taken.size === CALLED_COUNT) {
      throw new OperationError(`Cannot answer for more than ${CALLED_COUNT} addresses of an isolated network`);
    }
    while (taken.has(number)) number = (number + 1) % CALLED_COUNT;
    taken.add(number);
    numbers.set(address, CALLED_FROM + number);
  }
  return numbers;
}
