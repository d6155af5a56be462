/** Where a command speaks: results on stdout, everything else on stderr. */

export interface Terminal {
  /** Text of a result, as it is. Throws `ReaderGoneError` where nobody reads any more. */
  print(text: string): void;
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
  print: (text) => write(Deno.stdout, text),
  printLine: (line) => write(Deno.stdout, `${line}\n`),
  warn(line) {
    try {
      write(Deno.stderr, `${line}\n`);
    } catch {
      // Nobody listens, or there is no room: there is no one left to tell.
    }
  },
};

function write(to: { writeSync(octets: Uint8Array): number }, text: string): void {
  const octets = new TextEncoder().encode(text);
  try {
    for (let at = 0; at < octets.length;) at += to.writeSync(octets.subarray(at));
  } catch (error) {
    throw error instanceof Deno.errors.BrokenPipe ? new ReaderGoneError() : error;
  }
}
