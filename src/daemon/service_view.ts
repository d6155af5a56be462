/** Services as the API shows them. */
import type { BackendJson, ExportJson, ImportJson, NetworkJson, ServiceJson } from "../api/service_types.ts";
import { formatCidr, formatIpv4 } from "../lib/ip.ts";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { formatPortRange } from "../lib/ports.ts";
import { cut } from "../service/planner.ts";
import {
  type BackendHealth,
  type ExportRecord,
  type ImportRecord,
  type Known,
  virtualAddresses,
} from "../service/records.ts";
import { formatBackend, formatCheck } from "../service/spec.ts";
import { formatListen } from "../wire/service.ts";
import type { Services } from "./services.ts";
import type { ServicesReport } from "./status.ts";

const STATES = { active: "active", draining: "drained", revoked: "revoked" } as const;

/** undefined: nobody imports or exports it. */
export function serviceJson(services: Services, name: string): ServiceJson | undefined {
  const { catalogue } = services;
  const imports = catalogue.imports(name);
  const exports = catalogue.exports(name);
  if (imports.length + exports.length === 0) return undefined;
  return {
    name,
    ports: cut(imports.flatMap(({ record }) => record.spec.ports)).map(formatPortRange),
    addresses: virtualAddresses(imports).map(({ subnet, address }) => {
      const holder = imports.find(({ reachable, record }) =>
        reachable && record.status.holding.some((held) => held.address === address)
      );
      return {
        subnet: formatCidr(subnet),
        address: formatIpv4(address),
        holder: holder === undefined ? null : formatMac(holder.owner),
      };
    }),
    imports: imports.map((known) => importJson(services, known)),
    exports: exports.map((known) => exportJson(services, known)),
    warnings: warningsOf(services, name),
  };
}

export function servicesReport(services: Services): ServicesReport {
  const { catalogue, networks, planned, unable, warnings } = services;
  const own = catalogue.own();
  const imports = own.filter((record) => record.kind === "import");
  const healths = imports.flatMap(({ status }) => status.health);
  const count = (wanted: BackendHealth) => healths.filter((health) => health === wanted).length;
  return {
    Unable: unable ?? "",
    Networks: networks.all().map(({ name, interfaces, isolated }) => ({
      Name: name,
      Interfaces: interfaces,
      Isolated: isolated,
    })),
    Imports: imports.length,
    Exports: own.length - imports.length,
    Backends: { Up: count("up"), Down: count("down"), Unknown: count("unknown") },
    Holding: (planned?.plan.answered ?? []).map(({ address }) => formatIpv4(address)),
    Known: catalogue.size,
    Rejections: catalogue.rejections().map(({ peer, what, reason, count }) => ({
      Peer: formatMac(peer),
      NickName: services.nickName(peer),
      What: what,
      Reason: reason,
      Count: count,
    })),
    Warnings: warnings,
  };
}

export function networksJson(services: Services): NetworkJson[] {
  const { networks, o } = services;
  const bridge = { name: "weave", interfaces: [o.plumbing.host.bridge], isolated: false, warnings: [] };
  const host = { name: "host", interfaces: [], isolated: false, warnings: [] };
  return [
    bridge,
    host,
    ...networks.all().map(({ name, interfaces, isolated }) => ({
      name,
      interfaces,
      isolated,
      warnings: services.networkWarnings(name),
    })),
  ];
}

function importJson(services: Services, { owner, reachable, record }: Known<ImportRecord>): ImportJson {
  const { spec } = record;
  const ours = owner === services.o.ourName;
  return {
    ...peerJson(services, owner, reachable),
    priority: spec.priority,
    weight: spec.weight,
    backends: spec.backends.map((backend, i): BackendJson => {
      const addresses = services.backendAddresses(spec, backend);
      const reason = ours ? services.backendFailure(spec, backend) ?? services.health.reason(spec, backend) : undefined;
      return {
        target: formatBackend(backend, backend.network),
        network: backend.network,
        health: record.status.health[i] ?? "unknown",
        flows: ours && services.networks.has(backend.network) ? services.flowsOf(spec.name, backend, addresses) : null,
        ...reason === undefined ? {} : { reason },
      };
    }),
    check: formatCheck(spec.check),
    state: STATES[spec.state],
  };
}

function exportJson(services: Services, { owner, reachable, record }: Known<ExportRecord>): ExportJson {
  const { spec, status } = record;
  const { address, ports } = spec.listen;
  const port = spec.port === undefined
    ? undefined
    : { ...ports, first: spec.port, last: spec.port + ports.last - ports.first };
  const ours = owner === services.o.ourName;
  // Of others nobody knows which addresses are their own: what they hold, and what every address of theirs is.
  const own = address === "own" || ours && services.ownAddresses(spec.network).includes(address);
  return {
    ...peerJson(services, owner, reachable),
    network: spec.network,
    port: port === undefined ? null : formatPortRange(port),
    listen: formatListen(spec.listen),
    allow: spec.allow?.map(formatCidr) ?? [],
    dns: spec.dns,
    answers: reachable && status.ready && (own || status.holding !== undefined),
  };
}

function warningsOf(services: Services, name: string): readonly string[] {
  const { unable, trouble, planned, catalogue } = services;
  const ours = catalogue.ownImport(name) !== undefined || catalogue.ownExports(name).length > 0;
  if (!ours) return [];
  const former = services.formerFlows(name);
  return [
    ...unable === undefined ? [] : [`Nothing is offered here: ${unable}`],
    ...trouble === undefined ? [] : [trouble],
    ...services.storeWarnings,
    ...planned?.warnings.get(name) ?? [],
    ...former === 0 ? [] : [`Connections that are still where the service was before: ${former}`],
  ];
}

function peerJson(services: Services, owner: PeerName, reachable: boolean) {
  return { owner: formatMac(owner), nickname: services.nickName(owner), reachable };
}
