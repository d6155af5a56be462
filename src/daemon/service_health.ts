/** Health of our own backends: every address of each is asked by itself, on the network where it means something. */
import { type ProbeResult, type ReadyWatcher, ServiceProbes } from "../host/service_probe.ts";
import { formatIpv4, type Ipv4 } from "../lib/ip.ts";
import { formatPortRange } from "../lib/ports.ts";
import type { Deadline, Instant } from "../lib/time.ts";
import { Health } from "../service/health.ts";
import type { Backend, BackendHealth, CheckSpec, ImportRecord, ImportSpec } from "../service/records.ts";
import type { NetworkTarget } from "./networks.ts";

export interface ServiceHealthOptions {
  readonly sockets: ReadyWatcher;
  /** Hands an input to the cores, and carries out what they ask for. */
  readonly run: <T>(input: (now: Instant) => T) => T;
  readonly networkOf: (name: string) => NetworkTarget | undefined;
  /** What a backend's name is right now. */
  readonly addresses: (spec: ImportSpec, backend: Backend) => readonly Ipv4[];
}

interface Watched {
  readonly backend: Backend;
  readonly address: Ipv4;
}

export class ServiceHealth {
  readonly #o: ServiceHealthOptions;
  readonly #health = new Health();
  readonly #probes: ServiceProbes;
  readonly #watched = new Map<string, Watched>();
  /** Keys of what is watched at an address of a service. */
  readonly #byAddress = new Map<string, Set<string>>();
  /** What was watched before this router's first look is only remembered. */
  #known = new Set<string>();

  constructor(o: ServiceHealthOptions) {
    this.#o = o;
    this.#probes = new ServiceProbes(o.sockets);
  }

  stop(): void {
    this.#probes[Symbol.dispose]();
  }

  /** All our imports, as they are now. */
  watch(imports: readonly ImportRecord[], now: Instant): void {
    const wanted = new Set<string>();
    this.#byAddress.clear();
    for (const { spec, status } of imports) {
      for (const [i, backend] of spec.backends.entries()) {
        if (!canBeAsked(spec.check, backend)) continue;
        for (const address of this.#o.addresses(spec, backend)) {
          const key = keyOf(spec.name, backend, address);
          wanted.add(key);
          this.#watched.set(key, { backend, address });
          const at = addressKey(spec.name, backend.network, address);
          this.#byAddress.set(at, (this.#byAddress.get(at) ?? new Set()).add(key));
          // What is remembered counts until it is known better, so that a restart changes nothing.
          const initial = this.#known.has(key) ? undefined : status.health[i];
          this.#known.add(key);
          this.#health.set(key, spec.check, now, initial);
        }
      }
    }
    this.#health.retain(wanted);
    for (const key of this.#watched.keys()) if (!wanted.has(key)) this.#watched.delete(key);
    this.#known = wanted;
  }

  of(service: string, backend: Backend, address: Ipv4): BackendHealth {
    const key = keyOf(service, backend, address);
    return this.#watched.has(key) ? this.#health.health(key) : this.#ofNeighbour(service, backend, address);
  }

  /** What cannot be asked is as well as what can at the same address, and well where there is nothing. */
  #ofNeighbour(service: string, { network }: Backend, address: Ipv4): BackendHealth {
    const others = [...this.#byAddress.get(addressKey(service, network, address)) ?? []].map((key) =>
      this.#health.health(key)
    );
    return others.length === 0 || others.includes("up") ? "up" : others.includes("unknown") ? "unknown" : "down";
  }

  /** One for each backend: up where any of its addresses is. */
  ofBackends(spec: ImportSpec): readonly BackendHealth[] {
    const { name, backends } = spec;
    return backends.map((backend) => {
      const addresses = this.#o.addresses(spec, backend);
      if (addresses.length === 0) return "down";
      const all = addresses.map((address) => this.of(name, backend, address));
      return all.includes("up") ? "up" : all.includes("unknown") ? "unknown" : "down";
    });
  }

  /** Why a backend's last probe failed. */
  reason(spec: ImportSpec, backend: Backend): string | undefined {
    const reasons = this.#o.addresses(spec, backend).map((address) =>
      this.#health.details(keyOf(spec.name, backend, address))?.reason
    );
    return reasons.find((reason) => reason !== undefined);
  }

  /** Carries out what the core asks for. @returns whether some backend is not as it was */
  drain(): boolean {
    let changed = false;
    for (let output = this.#health.poll(); output !== undefined; output = this.#health.poll()) {
      if (output.type === "changed") changed = true;
      else this.#probe(output.key, output.attempt, output.check);
    }
    return changed;
  }

  handleTimeout(now: Instant): void {
    this.#health.handleTimeout(now);
  }

  pollTimeout(): Deadline | undefined {
    return this.#health.pollTimeout();
  }

  #probe(key: string, attempt: number, check: CheckSpec): void {
    const { networkOf, run } = this.#o;
    const watched = this.#watched.get(key);
    const network = watched && networkOf(watched.backend.network);
    const tell = (failure: string | undefined) => run((now) => this.#health.handleResult(key, attempt, failure, now));
    if (watched === undefined || network === undefined) {
      queueMicrotask(() => tell("its network is not there"));
      return;
    }
    const target = {
      network: network.id,
      namespace: network.namespace,
      address: watched.address,
      port: watched.backend.firstPort,
    };
    this.#probes.probe(
      { target, check, timeoutMs: check.timeoutMs },
      (result: ProbeResult) => {
        // What this host has too few of says nothing of the backend.
        const asBefore = result.outcome === "unknown" && this.#health.health(key) === "up";
        tell(result.outcome === "up" || asBefore ? undefined : result.reason);
      },
    );
  }
}

/** A connection says nothing of a port of UDP. */
function canBeAsked({ kind }: CheckSpec, { serves }: Backend): boolean {
  return kind !== "none" && (kind === "udp") === (serves.protocol === "udp");
}

function addressKey(service: string, network: string, address: Ipv4): string {
  return `${service} ${network} ${address}`;
}

function keyOf(service: string, backend: Backend, address: Ipv4): string {
  const { serves, network, firstPort } = backend;
  return `${service} ${formatPortRange(serves)} ${network} ${formatIpv4(address)} ${firstPort}`;
}
