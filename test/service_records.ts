/** Records of services for tests: plain ones, to be varied, and any that there can be. */
import fc from "fast-check";
import { type Cidr, type Ipv4, parseCidr } from "../src/lib/ip.ts";
import type { PeerName } from "../src/lib/mac.ts";
import { parsePortRange, type PortRange, portsOverlap } from "../src/lib/ports.ts";
import type {
  Backend,
  BackendHealth,
  ExportRecord,
  ExportSpec,
  ImportRecord,
  ImportSpec,
  Known,
  Offer,
  ServiceRecord,
} from "../src/service/records.ts";
import { isHostOf, keyOf, type Numbered, type RecordsMessage } from "../src/wire/service.ts";

export const SUBNET = parseCidr("10.32.0.0/12")!;

export interface ImportVariation {
  readonly spec?: Partial<ImportSpec>;
  /** Of its backends, each of which is made where `spec` has none. */
  readonly health?: readonly BackendHealth[];
  readonly offers?: readonly Partial<Offer>[];
  /** Address, and whether there are flows. */
  readonly holding?: readonly (readonly [Ipv4, boolean])[];
}

export function importOf(name: string, o: ImportVariation = {}): ImportRecord {
  const serves = parsePortRange("5432")!;
  const health = o.health ?? ["unknown"];
  const backends = health.map((_, i): Backend => ({
    host: 0xc0a8_0105 + i,
    network: "host",
    serves,
    firstPort: 5432,
    priority: 0,
    weight: 1,
  }));
  return {
    kind: "import",
    spec: {
      name,
      network: "host",
      ports: [serves],
      backends,
      check: { kind: "tcp", payload: "", intervalMs: 1_000, timeoutMs: 800, rise: 2, fall: 2 },
      priority: 0,
      weight: 1,
      subnets: [],
      allowLocal: false,
      state: "active",
      ...o.spec,
    },
    offers: (o.offers ?? [{}]).map((offer) => ({
      subnet: SUBNET,
      address: 0x0a20_0005,
      since: 1_000,
      relay: undefined,
      ...offer,
    })),
    status: { health, holding: (o.holding ?? []).map(([address, flows]) => ({ address, flows })) },
  };
}

export function exportOf(
  name: string,
  spec: Partial<ExportSpec> = {},
  status: Partial<ExportRecord["status"]> = {},
): ExportRecord {
  return {
    kind: "export",
    spec: {
      name,
      port: undefined,
      network: "host",
      listen: { address: "own", ports: parsePortRange("8080")! },
      allow: undefined,
      dns: false,
      force: false,
      ...spec,
    },
    status: { ready: true, holding: undefined, ...status },
  };
}

export function knownOf<R extends ServiceRecord>(owner: number, record: R, reachable = true): Known<R> {
  return { owner: owner as PeerName, reachable, secondHand: false, record };
}

// Any

const label = fc.stringMatching(/^[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?$/);
const network = fc.oneof(fc.constantFrom("host", "weave"), label);
const address = fc.integer({ min: 0x0100_0000, max: 0xdfff_ffff });
const hostName = fc.tuple(fc.stringMatching(/^[a-z]{1,5}$/), label).map((parts) => parts.join("."));
const count = fc.integer({ min: 0, max: 2 ** 40 });

const range: fc.Arbitrary<PortRange> = fc.record({
  protocol: fc.constantFrom("tcp", "udp"),
  first: fc.integer({ min: 1, max: 65_535 }),
  length: fc.nat(3_000),
}).map(({ protocol, first, length }) => ({ protocol, first, last: Math.min(65_535, first + length) }));

const ranges = fc.array(range, { minLength: 1, maxLength: 4 }).map((all) =>
  all.filter((a, i) => !all.some((b, j) => j < i && portsOverlap(a, b)))
);

const cidr: fc.Arbitrary<Cidr> = fc.record({ address, prefixLength: fc.integer({ min: 0, max: 32 }) }).map((cidr) => {
  const { prefixLength } = cidr;
  return { address: (cidr.address & (prefixLength === 0 ? 0 : -1 << (32 - prefixLength))) >>> 0, prefixLength };
});

const offer: fc.Arbitrary<Offer> = fc.record({
  address,
  prefixLength: fc.integer({ min: 8, max: 30 }),
  since: count,
  relay: fc.option(fc.nat(100), { nil: undefined }),
}).map(({ address, prefixLength, since, relay }) => {
  const first = (address & -1 << (32 - prefixLength)) >>> 0;
  const subnet = { address: first, prefixLength };
  const host = (n: number) => (first + 1 + n % (2 ** (32 - prefixLength) - 2)) >>> 0;
  return { subnet, address: host(address - first), since, relay: relay === undefined ? undefined : host(relay) };
}).filter((offer) => isHostOf(offer.subnet, offer.address));

const held = fc.record({ address, flows: fc.boolean() }, { noNullPrototype: true });

export const anyImport: fc.Arbitrary<ImportRecord> = ranges.chain((ports) =>
  fc.record({
    name: label,
    network,
    backends: fc.array(
      fc.record({
        host: fc.oneof(address, hostName),
        network,
        place: fc.nat(ports.length - 1),
        priority: fc.nat(255),
        weight: fc.integer({ min: 1, max: 256 }),
        firstPort: fc.nat(),
        health: fc.constantFrom("up", "down", "unknown"),
      }),
      { minLength: 1, maxLength: 4 },
    ),
    kind: fc.constantFrom("tcp", "udp", "http", "none"),
    payload: fc.string({ maxLength: 20 }),
    priority: fc.nat(255),
    weight: fc.integer({ min: 1, max: 256 }),
    subnets: fc.array(cidr, { maxLength: 3 }),
    allowLocal: fc.boolean(),
    state: fc.constantFrom("active", "draining", "revoked"),
    offers: fc.uniqueArray(offer, {
      maxLength: 3,
      selector: ({ subnet }) => `${subnet.address}/${subnet.prefixLength}`,
    }),
    holding: fc.array(held, { maxLength: 2 }),
  }).map(({ backends, kind, payload, offers, holding, ...spec }): ImportRecord => ({
    kind: "import",
    spec: {
      ...spec,
      ports,
      check: { kind, payload, intervalMs: 1_000, timeoutMs: 800, rise: 2, fall: 3 },
      backends: backends.map(({ host, network, place, priority, weight, firstPort }) => {
        const serves = ports[place]!;
        const most = 65_536 - (serves.last - serves.first + 1);
        return { host, network, serves, firstPort: 1 + firstPort % most, priority, weight };
      }),
    },
    offers,
    status: { health: backends.map(({ health }) => health), holding },
  }))
);

export const anyExport: fc.Arbitrary<ExportRecord> = fc.record({
  name: fc.oneof(label, label.map((name) => `${name}.weave.local`)),
  port: fc.option(fc.integer({ min: 1, max: 65_535 }), { nil: undefined }),
  network,
  listen: fc.record({ address: fc.oneof(fc.constant("own" as const), address), ports: range }, {
    noNullPrototype: true,
  }),
  allow: fc.option(fc.array(cidr, { maxLength: 3 }), { nil: undefined }),
  dns: fc.boolean(),
  force: fc.boolean(),
  ready: fc.boolean(),
  holding: fc.option(held, { nil: undefined }),
}).map(({ ready, holding, ...spec }): ExportRecord => ({ kind: "export", spec, status: { ready, holding } }));

export const anyRecord: fc.Arbitrary<ServiceRecord> = fc.oneof(anyImport, anyExport);

/** A delta or full list of an owner. */
export function recordsMessage(
  o: Partial<RecordsMessage> & Pick<RecordsMessage, "owner" | "records">,
): RecordsMessage {
  const seq = o.records.at(-1)?.seq ?? 0;
  return { type: "records", life: 1, since: 0, seq, check: undefined, full: false, last: false, refused: [], ...o };
}

export function numbered(seq: number, record: ServiceRecord): Numbered {
  return { seq, key: keyOf(record), record, octets: 300 };
}
