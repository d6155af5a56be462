/**
 * Structured log. A line is a constant event and fields; values never stand in the event's text.
 * Text form: `INFO: 2026/11/24 10:49:00.123456 event key=value`, the level cut to four letters, as Weave Net 2.8 prints it.
 */

/** The fields a line may have; one list, so that the same thing has the same name everywhere. */
export interface Fields {
  readonly peer?: string;
  readonly connection?: string;
  readonly address?: string;
  readonly target?: string;
  readonly carrier?: string;
  readonly container?: string;
  readonly interface?: string;
  readonly mac?: string;
  readonly subnet?: string;
  readonly zone?: string;
  readonly service?: string;
  readonly channel?: string;
  readonly reason?: string;
  readonly error?: string;
  readonly errno?: string;
  readonly duration_ms?: number;
  readonly count?: number;
  readonly mtu?: number;
  readonly version?: string;
  readonly name?: string;
  readonly value?: string;
}

export type Level = "trace" | "debug" | "info" | "warn" | "error";

export interface Logger {
  trace(event: string, fields?: Fields): void;
  debug(event: string, fields?: Fields): void;
  info(event: string, fields?: Fields): void;
  warn(event: string, fields?: Fields): void;
  error(event: string, fields?: Fields): void;
}

const LEVELS: readonly Level[] = ["trace", "debug", "info", "warn", "error"];
const PREFIX: Record<Level, string> = { trace: "TRAC", debug: "DEBU", info: "INFO", warn: "WARN", error: "ERRO" };

export interface LogOptions {
  readonly level: Level;
  readonly format: "text" | "json";
  /** Takes one line without its line end. */
  readonly write: (line: string) => void;
  /** Wall clock; microseconds come from its fraction of a millisecond. */
  readonly wallClockMs: () => number;
}

/** A logger that formats and hands lines to `write`. Lines below `level` cost one comparison. */
export function makeLogger(options: LogOptions): Logger {
  const threshold = LEVELS.indexOf(options.level);
  const at = (level: Level) => {
    if (LEVELS.indexOf(level) < threshold) return () => {};
    return (event: string, fields: Fields = {}) => options.write(formatLine(level, event, fields, options));
  };
  return { trace: at("trace"), debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error") };
}

/** A logger that says nothing. */
export const SILENT: Logger = { trace() {}, debug() {}, info() {}, warn() {}, error() {} };

function formatLine(level: Level, event: string, fields: Fields, options: LogOptions): string {
  const now = options.wallClockMs();
  if (options.format === "json") {
    return JSON.stringify({ time: new Date(now).toISOString(), level, event, ...fields });
  }
  const stamp = new Date(now).toISOString();
  const micros = String(Math.floor((now % 1) * 1000)).padStart(3, "0");
  let line = `${PREFIX[level]}: ${stamp.slice(0, 10).replaceAll("-", "/")} ${stamp.slice(11, 23)}${micros} ${event}`;
  for (const [key, value] of Object.entries(fields)) {
    if (value === undefined) continue;
    const text = String(value);
    // Control characters and quotes may come from a peer: a value never breaks out of its line.
    line += ` ${key}=${/^[\x21\x23-\x7e\u00a1-\uffff]+$/.test(text) ? text : JSON.stringify(text)}`;
  }
  return line;
}
