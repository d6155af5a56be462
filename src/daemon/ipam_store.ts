/**
 * Where addresses are kept while the router does not run: one small file, written as often as they change. Of what changes while it
 * is being written only the last state is written next.
 */
import { encodeStored, type StoredIpam } from "../ipam/stored.ts";
import { checkStored } from "../ipam/stored.ts";
import type { Elapsed } from "../ipam/reclaim.ts";
import { type Moment, momentNow } from "../host/clock.ts";
import { StoreFile } from "../host/store.ts";
import type { Logger } from "../lib/log.ts";

/** What is written, and when it was. */
interface Written {
  readonly stored: StoredIpam;
  readonly at: Moment;
}

export interface Snapshot {
  readonly revision: number;
  readonly stored: StoredIpam;
}

/** A disk that is full may have room again. */
const RETRY_MS = 5_000;
/** A quarter of a million addresses, and as many ranges, with room to spare. */
const SIZE_LIMIT = 128 * 1024 * 1024;

export class IpamStore {
  readonly #file: StoreFile<Written>;
  readonly #log: Logger;
  #running = false;
  #wanted = false;
  #writtenRevision = -1;
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stopped = false;
  #trouble: string | undefined;

  /** Something could not be written, for this reason. It is tried again, sooner or later. */
  onFailed: (reason: string) => void = () => {};

  constructor(statePrefix: string, log: Logger) {
    this.#file = new StoreFile(`${statePrefix}-ipam.json`, FORMAT);
    this.#log = log;
  }

  /** undefined: there is none. Rejects where it cannot be understood: what it holds may be in use by others. */
  async read(): Promise<{ readonly stored: StoredIpam; readonly elapsed: Elapsed } | undefined> {
    const written = await this.#file.read();
    return written && { stored: written.stored, elapsed: elapsedSince(written.at, momentNow()) };
  }

  /** Writes what `take` gives, again as long as it is asked for meanwhile; `done` hears what is on disk. */
  write(take: () => Snapshot, done: (revision: number) => void): void {
    this.#wanted = true;
    if (!this.#running) void this.#run(take, done);
  }

  /** Why nothing can be written, if so: answers wait. */
  get trouble(): string | undefined {
    return this.#trouble;
  }

  /** What is being written is finished, and nothing more is begun. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    while (this.#running) await new Promise((resolve) => setTimeout(resolve, 1));
  }

  async #run(take: () => Snapshot, done: (revision: number) => void): Promise<void> {
    this.#running = true;
    while (this.#wanted && !this.#stopped) {
      this.#wanted = false;
      const { revision, stored } = take();
      if (revision === this.#writtenRevision) continue;
      try {
        await this.#file.write({ stored, at: momentNow() });
      } catch (error) {
        // Who asked meanwhile is not told how an attempt ended that began before: there may be room by now.
        if (this.#wanted) continue;
        this.#fail((error as Error).message, take, done);
        break;
      }
      this.#writtenRevision = revision;
      this.#trouble = undefined;
      done(revision);
    }
    this.#running = false;
  }

  #fail(message: string, take: () => Snapshot, done: (revision: number) => void): void {
    if (this.#trouble !== message) this.#log.error("addresses cannot be stored, nobody gets any", { error: message });
    this.#trouble = message;
    clearTimeout(this.#timer);
    if (!this.#stopped) this.#timer = setTimeout(() => this.write(take, done), RETRY_MS);
    this.onFailed(message);
  }
}

/** How long ago it was: by a clock that never jumps within one boot, else by the wall clock, which may have been set back. */
export function elapsedSince(then: Moment, now: Moment): Elapsed {
  if (then.boot !== "" && then.boot === now.boot) return { ms: Math.max(0, now.uptimeMs - then.uptimeMs), exact: true };
  const ms = now.wallMs - then.wallMs;
  return { ms: ms < 0 ? Infinity : ms, exact: false };
}

const FORMAT = {
  what: "addresses",
  major: 1,
  minor: 0,
  sizeLimit: SIZE_LIMIT,
  check(data: unknown): Written {
    const { at, ...rest } = (data ?? {}) as { at?: Partial<Moment> };
    const { boot, uptimeMs, wallMs } = at ?? {};
    if (typeof boot !== "string" || typeof uptimeMs !== "number" || typeof wallMs !== "number") {
      throw new Error("it does not say when it was written");
    }
    return { stored: checkStored(rest), at: { boot, uptimeMs, wallMs } };
  },
  encode: ({ stored, at }: Written) => ({ at, ...encodeStored(stored) as object }),
};
