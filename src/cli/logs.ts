/** `logs`: what the router has written, from its file or from the journal of the service manager that runs it. */
import { findRunning, lastRecord, LOG_FILE } from "../daemon/process.ts";
import { OperationError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import { type LOGS_OPTIONS, noWords } from "./commands.ts";
import type { Terminal } from "./terminal.ts";

const POLL_MS = 200;

export async function logs({ words, values, terminal }: Input<typeof LOGS_OPTIONS>): Promise<number> {
  noWords(words);
  const record = (await findRunning())?.record ?? await lastRecord();
  if (record?.container !== undefined) return await containerLog(record.container, values.follow);
  const invocation = record?.invocation;
  if (invocation !== undefined) return await journal(invocation, values.follow);
  const show = values.json
    ? new JsonLines(terminal)
    : { take: (octets: Uint8Array) => terminal.print(octets), end() {} };
  await readLog(LOG_FILE, { follow: values.follow, take: (octets) => show.take(octets) });
  show.end();
  return 0;
}

async function journal(invocation: string, follow: boolean): Promise<number> {
  const args = ["-o", "cat", ...follow ? ["-f", "-n", "all"] : ["--no-pager"], `_SYSTEMD_INVOCATION_ID=${invocation}`];
  const command = new Deno.Command("journalctl", { args, stdin: "null", stdout: "inherit", stderr: "inherit" });
  return (await command.output()).code;
}

async function containerLog(name: string, follow: boolean): Promise<number> {
  // A result, although the router wrote it to stderr.
  const args = ["-c", 'exec docker logs "$@" 2>&1', "sh", ...follow ? ["-f"] : [], name];
  const command = new Deno.Command("sh", { args, stdin: "null", stdout: "inherit", stderr: "inherit" });
  return (await command.output()).code;
}

export interface ReadLogOptions {
  /** Goes on for ever with what is added, also when the file is cut to nothing or another takes its place. */
  readonly follow: boolean;
  readonly take: (octets: Uint8Array) => void;
}

export async function readLog(path: string, { follow, take }: ReadLogOptions): Promise<void> {
  let file = openLog(path);
  const buffer = new Uint8Array(64 * 1024);
  try {
    for (let position = 0;;) {
      const count = file.readSync(buffer);
      if (count !== null && count > 0) {
        position += count;
        take(buffer.subarray(0, count));
        continue;
      }
      if (!follow) return;
      await new Promise((resolve) => setTimeout(resolve, POLL_MS));
      const next = nextOf(file, path, position);
      if (next === undefined) continue;
      if (next !== file) file.close();
      file = next;
      position = 0;
    }
  } finally {
    file.close();
  }
}

/** Where to read on from the start: the file that took the place of this one, or this one where it was cut; undefined: as it was. */
function nextOf(file: Deno.FsFile, path: string, position: number): Deno.FsFile | undefined {
  const held = file.statSync();
  if (held.size < position) {
    file.seekSync(0, Deno.SeekMode.Start);
    return file;
  }
  try {
    const there = Deno.statSync(path);
    return there.ino === held.ino && there.dev === held.dev ? undefined : Deno.openSync(path);
  } catch {
    return undefined;
  }
}

function openLog(path: string): Deno.FsFile {
  try {
    return Deno.openSync(path);
  } catch (error) {
    if (error instanceof Deno.errors.PermissionDenied) throw new OperationError("needs root: sudo weave logs");
    if (error instanceof Deno.errors.NotFound) {
      throw new OperationError(`There is no log at ${path}: weave was never launched`);
    }
    throw new OperationError(`Cannot read "${path}": ${(error as Error).message}`, 1, { cause: error });
  }
}

/** Each line as an object; what is one already stays as it is. */
export class JsonLines {
  readonly #decoder = new TextDecoder();
  #begun = "";

  constructor(readonly terminal: Terminal) {}

  take(octets: Uint8Array): void {
    const lines = (this.#begun + this.#decoder.decode(octets, { stream: true })).split("\n");
    this.#begun = lines.pop()!;
    for (const line of lines) this.terminal.printLine(asJson(line));
  }

  end(): void {
    if (this.#begun !== "") this.terminal.printLine(asJson(this.#begun));
  }
}

function asJson(line: string): string {
  if (line.startsWith("{")) return line;
  const [, level, date, time, message] = /^([A-Z]{4}): (\d{4}\/\d\d\/\d\d) (\S+) (.*)$/.exec(line) ?? [];
  return JSON.stringify(
    level === undefined ? { message: line } : { time: `${date!.replaceAll("/", "-")}T${time}Z`, level, message },
  );
}
