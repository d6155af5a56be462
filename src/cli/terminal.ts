/** Where a command speaks: results on stdout, everything else on stderr. */

export interface Terminal {
  /** A result as it is, text or octets. Throws `ReaderGoneError` where nobody reads any more. */
  print(result: string | Uint8Array): void;
  /** A line of a result. */
  printLine(line: string): void;
  /** A line for people, without its end. */
  warn(line: string): void;
}

/** Whoever read our results has heard enough: no reason to complain. */
export class ReaderGoneError extends Error {
  override readonly name = "ReaderGoneError";
}

export const TERMINAL: Terminal = {
  print: (result) => write(Deno.stdout, typeof result === "string" ? encode(result) : result),
  printLine: (line) => write(Deno.stdout, encode(`${line}\n`)),
  warn(line) {
    try {
      write(Deno.stderr, encode(`${harmless(line)}\n`));
    } catch {
      // Nobody listens, or there is no room: there is no one left to tell.
    }
  },
};

/** What controls a terminal, or turns text around, is written as `\u001b`: lines repeat what somebody else may have chosen. */
export function harmless(line: string): string {
  // deno-lint-ignore no-control-regex
  const controls = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200e\u200f\u202a-\u202e\u2066-\u2069]/g;
  return line.replace(controls, (each) => `\\u${each.charCodeAt(0).toString(16).padStart(4, "0")}`);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function write(to: { writeSync(octets: Uint8Array): number }, octets: Uint8Array): void {
  try {
    for (let at = 0; at < octets.length;) at += to.writeSync(octets.subarray(at));
  } catch (error) {
    throw error instanceof Deno.errors.BrokenPipe ? new ReaderGoneError() : error;
  }
}
