/**
 * Small JSON files that survive crashes: written to a temporary file, synced, renamed over the old one, and the directory synced.
 * Whatever fails on the way (a full disk too) leaves the old file as it was.
 *
 *     {"version":"1.2","data":…}
 *
 * A minor version adds; a newer major version is refused and never written over, so that going back to an old executable
 * destroys nothing.
 */
import { dirname } from "node:path";
import { OperationError } from "../lib/errors.ts";

export interface StoreFormat<T> {
  /** What the file is, for messages: `attachments`. */
  readonly what: string;
  readonly major: number;
  readonly minor: number;
  /** Octets of the file at most, for reading and writing; 16 MiB where nothing is said. */
  readonly sizeLimit?: number;
  /** Turns parsed JSON of this major version into a value; throws an Error that says what is wrong. */
  check(data: unknown): T;
  /** Where the value cannot be said in JSON as it is. */
  encode?(value: T): unknown;
}

/** The file was written by a newer version of this program. */
export class NewerVersionError extends OperationError {}

/** More than most of our files should ever hold; a larger one is not read into memory. */
const SIZE_LIMIT = 16 * 1024 * 1024;

/** One file. Writes of one object are done in order; of several that wait, only the last is written. */
export class StoreFile<T> {
  #waiting: { value: T; promise: Promise<void> } | undefined;
  #running: Promise<void> = Promise.resolve();
  /** The file on disk was seen to be ours to write. */
  #checked = false;

  constructor(readonly path: string, readonly format: StoreFormat<T>) {}

  /** undefined where there is no file. Throws `NewerVersionError`, or `OperationError` where it cannot be understood. */
  async read(): Promise<T | undefined> {
    const text = await readBounded(this.path, this.#sizeLimit);
    if (text === undefined) {
      this.#checked = true;
      return undefined;
    }
    const data = this.#open(text);
    this.#checked = true;
    try {
      return this.format.check(data);
    } catch (error) {
      throw this.#unreadable((error as Error).message, error);
    }
  }

  /** Resolves when this value, or a later one, is on disk. */
  write(value: T): Promise<void> {
    if (this.#waiting !== undefined) {
      this.#waiting.value = value;
      return this.#waiting.promise;
    }
    const next = this.#running.catch(() => {}).then(() => {
      const latest = this.#waiting!.value;
      this.#waiting = undefined;
      return this.#write(latest);
    });
    this.#waiting = { value, promise: next };
    this.#running = next;
    return next;
  }

  /** No file is no error. */
  async remove(): Promise<void> {
    await this.#running.catch(() => {});
    await removeIfThere(this.path);
  }

  async #write(value: T): Promise<void> {
    if (!this.#checked) {
      const text = await readBounded(this.path, this.#sizeLimit);
      if (text !== undefined) this.#refuseNewer(text);
      this.#checked = true;
    }
    const { major, minor, encode } = this.format;
    const data = encode === undefined ? value : encode(value);
    const text = JSON.stringify({ version: `${major}.${minor}`, data }) + "\n";
    // What could not be read again is not written.
    if (text.length > this.#sizeLimit) {
      throw new OperationError(`Cannot write "${this.path}": it would have more than ${this.#sizeLimit} octets`);
    }
    await writeAtomically(this.path, text);
  }

  get #sizeLimit(): number {
    return this.format.sizeLimit ?? SIZE_LIMIT;
  }

  /** @returns the data of a file whose version we understand */
  #open(text: string): unknown {
    let envelope: unknown;
    try {
      envelope = JSON.parse(text);
    } catch (error) {
      throw this.#unreadable("not JSON", error);
    }
    const { version, data } = (envelope ?? {}) as { version?: unknown; data?: unknown };
    const major = typeof version === "string" ? /^(\d{1,9})\.\d{1,9}$/.exec(version)?.[1] : undefined;
    if (major === undefined) throw this.#unreadable("it has no version");
    if (Number(major) > this.format.major) {
      throw new NewerVersionError(
        `Cannot use ${this.format.what} file "${this.path}": its version is ${version}, at most ${this.format.major}.x is understood`,
      );
    }
    if (Number(major) < this.format.major) throw this.#unreadable(`version ${version} is too old`);
    return data;
  }

  /** A damaged file may be written over, a newer one may not. */
  #refuseNewer(text: string): void {
    try {
      this.#open(text);
    } catch (error) {
      if (error instanceof NewerVersionError) throw error;
    }
  }

  #unreadable(why: string, cause?: unknown): OperationError {
    return new OperationError(`Cannot read ${this.format.what} file "${this.path}": ${why}`, 1, { cause });
  }
}

/** The text of a file; undefined where there is none. Rejects where it has more than `limit` octets. */
export async function readBounded(path: string, limit: number): Promise<string | undefined> {
  try {
    using file = await Deno.open(path);
    const chunks: Uint8Array[] = [];
    let total = 0;
    const buffer = new Uint8Array(64 * 1024);
    for (;;) {
      const count = await file.read(buffer);
      if (count === null) break;
      total += count;
      if (total > limit) throw new OperationError(`Cannot read "${path}": it has more than ${limit} octets`);
      chunks.push(buffer.slice(0, count));
    }
    return await new Blob(chunks as BlobPart[]).text();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return undefined;
    if (error instanceof OperationError) throw error;
    throw new OperationError(`Cannot read "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

/** Replaces a file, readable by its owner only; makes its directory where missing. */
export async function writeAtomically(path: string, text: string): Promise<void> {
  const directory = dirname(path);
  // One name, so that a crash leaves at most one, which the next write takes over. Whoever writes holds the lock of the file.
  const temporary = `${path}.new`;
  try {
    await Deno.mkdir(directory, { recursive: true, mode: 0o755 });
    {
      using file = await Deno.open(temporary, { create: true, truncate: true, write: true, mode: 0o600 });
      const octets = new TextEncoder().encode(text);
      for (let at = 0; at < octets.length;) at += await file.write(octets.subarray(at));
      await file.sync();
    }
    await Deno.rename(temporary, path);
    using opened = await Deno.open(directory);
    await opened.sync();
  } catch (error) {
    await removeIfThere(temporary).catch(() => {});
    throw new OperationError(`Cannot write "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

export async function removeIfThere(path: string): Promise<void> {
  try {
    await Deno.remove(path);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  }
}
