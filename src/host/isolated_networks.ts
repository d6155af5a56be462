/** All isolated networks of this host, made as a plan has them. What is wrong with one of them keeps no other from working. */
import { OperationError } from "../lib/errors.ts";
import { ensureIsolatedNetwork, listIsolatedNetworks, removeIsolatedNetwork } from "./network_namespace.ts";
import type { NetworkPlan } from "../service/plan.ts";

export class IsolatedNetworks {
  readonly #stateDir: string;
  readonly #failures = new Map<string, string>();
  readonly #warnings = new Map<string, readonly string[]>();
  #left: readonly string[] = [];

  /** @param stateDir see `ensureIsolatedNetwork()` */
  constructor(stateDir: string) {
    this.#stateDir = stateDir;
  }

  /** Why a network could not be made as it should be, when it was last tried. */
  failure(name: string): string | undefined {
    return this.#failures.get(name);
  }

  /** What is wrong with a network, its failure among it. */
  warnings(name: string): readonly string[] {
    const failure = this.#failures.get(name);
    return [...failure === undefined ? [] : [failure], ...this.#warnings.get(name) ?? []];
  }

  /** What `retain()` could not take away when it last was called. */
  get left(): readonly string[] {
    return this.#left;
  }

  /** @returns whether anything was changed */
  async ensure(networks: readonly NetworkPlan[]): Promise<boolean> {
    let changed = false;
    for (const network of networks) {
      if (!network.isolated) continue;
      try {
        const ensured = await ensureIsolatedNetwork(network, this.#stateDir);
        changed = ensured.changed || changed;
        this.#failures.delete(network.name);
        this.#warnings.set(network.name, ensured.warnings);
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        this.#failures.set(network.name, error.message);
        this.#warnings.delete(network.name);
      }
    }
    return changed;
  }

  /** Takes away those that are none of these, and gives their links back, see `left`. @returns whether anything was changed */
  async retain(networks: readonly NetworkPlan[]): Promise<boolean> {
    const wanted = new Set(networks.filter(({ isolated }) => isolated).map(({ name }) => name));
    const others = listIsolatedNetworks(this.#stateDir).filter((name) => !wanted.has(name));
    const left: string[] = [];
    for (const name of others) {
      this.#failures.delete(name);
      this.#warnings.delete(name);
      try {
        left.push(...await removeIsolatedNetwork(name, this.#stateDir));
      } catch (error) {
        if (!(error instanceof Error)) throw error;
        left.push(error.message);
      }
    }
    this.#left = left;
    return others.length > 0;
  }
}

/** @throws OperationError that says what is left */
export async function removeIsolatedNetworks(stateDir: string): Promise<void> {
  const networks = new IsolatedNetworks(stateDir);
  await networks.retain([]);
  if (networks.left.length > 0) throw new OperationError(networks.left.join("; "));
}
