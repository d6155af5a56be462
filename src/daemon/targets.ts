/**
 * Whom the router connects with: names become addresses here, and the list outlives the router. A stored name that cannot be looked
 * up (at boot, before there is a resolver) is tried again until it can.
 */
import type { Logger } from "../lib/log.ts";
import type { Instant } from "../lib/time.ts";
import type { Mesh } from "../mesh/mesh.ts";
import type { ConnectResult } from "../api/types.ts";
import type { StoreFile } from "../host/store.ts";
import { resolveTargets } from "./resolve_targets.ts";
import { markRunning, targetsFile } from "./targets_file.ts";

export interface TargetsOptions {
  /** P of the state files `P-*`. */
  readonly prefix: string;
  /** Where a target names no port. */
  readonly port: number;
  readonly mesh: Mesh;
  /** Enters the loop. */
  readonly run: <T>(input: (now: Instant) => T) => T;
  readonly log: Logger;
}

export interface StartOptions {
  /** The last router here was not stopped. */
  readonly restarted: boolean;
  /** `--resume`. */
  readonly resume: boolean;
  /** On the command line. */
  readonly given: readonly string[];
}

const RESOLVE_AGAIN_MS = 5_000;

export class Targets {
  readonly #o: TargetsOptions;
  readonly #file: StoreFile<readonly string[]>;
  readonly #unresolved = new Set<string>();
  /** What could not be stored, and why. */
  readonly #troubles = new Map<"targets" | "marker", string>();
  #timer: number | undefined;
  #stopped = false;

  constructor(o: TargetsOptions) {
    this.#o = o;
    this.#file = targetsFile(o.prefix);
  }

  /** Targets whose names nobody knows so far. */
  get unresolved(): readonly string[] {
    return [...this.#unresolved];
  }

  /** What an operator should know, a line each. */
  get warnings(): readonly string[] {
    return [...new Set(this.#troubles.values())].map((why) => `What a restart should know is not stored: ${why}`);
  }

  /** The next start is a restart, unless somebody stops this router. */
  async markRunning(): Promise<void> {
    await this.#keep("marker", () => markRunning(this.#o.prefix));
  }

  /** Begins with the stored targets where the last router was not stopped or that is asked for, else with those given. */
  async start({ restarted, resume, given }: StartOptions): Promise<void> {
    const stored = restarted || resume ? await this.#file.read() : undefined;
    const { log } = this.#o;
    if (stored === undefined) log.info("launch detected", { value: given.join(" ") });
    else log.info("restart or resume detected", { value: stored.join(" ") });
    const { errors } = await this.#add(stored ?? given, true);
    for (const error of errors) log.warn("target cannot be dialled", { reason: error });
    await this.#write();
  }

  /** Adds those that can be used, whatever is wrong with others. */
  async connect(peers: readonly string[], replace: boolean): Promise<ConnectResult> {
    const { targets, errors } = await resolveTargets(peers, this.#o.port);
    if (replace) this.#unresolved.clear();
    if (targets.length > 0 || replace) this.#o.run((now) => this.#o.mesh.connect(targets, { replace }, now));
    await this.#write();
    return { errors };
  }

  async forget(peers: readonly string[]): Promise<void> {
    for (const peer of peers) this.#unresolved.delete(peer);
    this.#o.run((now) => this.#o.mesh.forget(peers, now));
    await this.#write();
  }

  /** Writes the list down; what fails is logged. */
  save(): void {
    this.#write();
  }

  stop(): void {
    this.#stopped = true;
    clearTimeout(this.#timer);
  }

  async #add(texts: readonly string[], keepUnknown: boolean): Promise<ConnectResult> {
    const { targets, errors, unknown } = await resolveTargets(texts, this.#o.port);
    if (this.#stopped) return { errors };
    if (keepUnknown) { for (const text of unknown) this.#unresolved.add(text); }
    if (targets.length > 0) this.#o.run((now) => this.#o.mesh.connect(targets, { replace: false }, now));
    if (this.#unresolved.size > 0) this.#timer = setTimeout(() => this.#resolveAgain(), RESOLVE_AGAIN_MS);
    return { errors };
  }

  async #resolveAgain(): Promise<void> {
    const texts = [...this.#unresolved];
    const { targets } = await resolveTargets(texts, this.#o.port);
    if (this.#stopped) return;
    // Some may have been forgotten meanwhile.
    const found = targets.filter(({ text }) => this.#unresolved.delete(text));
    if (found.length > 0) this.#o.run((now) => this.#o.mesh.connect(found, { replace: false }, now));
    if (this.#unresolved.size > 0) this.#timer = setTimeout(() => this.#resolveAgain(), RESOLVE_AGAIN_MS);
  }

  async #write(): Promise<void> {
    await this.#keep("targets", () => this.#file.write([...this.#o.mesh.targets(), ...this.#unresolved]));
  }

  /** A disk that is full or must not be written costs the next router its memory, but not this one its life. */
  async #keep(what: "targets" | "marker", write: () => Promise<void>): Promise<void> {
    try {
      await write();
      this.#troubles.delete(what);
    } catch (error) {
      const { message } = error as Error;
      this.#troubles.set(what, message);
      this.#o.log.warn("state not stored", { error: message });
    }
  }
}
