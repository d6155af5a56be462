/** How a backend is found to be healthy, as people write it: `tcp`, `http:/healthz,interval=5s,fall=3`. */
import type { PortRange } from "../lib/ports.ts";
import { MAX_COUNT, MAX_INTERVAL_MS, MAX_PAYLOAD, MIN_INTERVAL_MS } from "../wire/service.ts";
import type { CheckSpec } from "./records.ts";
import { parseWhole, SpecError, splitAt } from "./spec_words.ts";

export const DEFAULT_CHECK: CheckSpec = {
  kind: "tcp",
  payload: "",
  intervalMs: 1_000,
  timeoutMs: 800,
  rise: 2,
  fall: 2,
};

/** TCP can be asked without knowing what the service is; UDP cannot. */
export function defaultCheckOf(ports: readonly PortRange[]): CheckSpec {
  return ports.some(({ protocol }) => protocol === "tcp") ? DEFAULT_CHECK : { ...DEFAULT_CHECK, kind: "none" };
}

export function checkCheckable({ kind }: CheckSpec, ports: readonly PortRange[]): void {
  if (kind === "none") return;
  const needed = kind === "udp" ? "udp" : "tcp";
  if (ports.some(({ protocol }) => protocol === needed)) return;
  throw new SpecError("check", `Cannot check by ${kind}: the service has no port of ${needed.toUpperCase()}`);
}

const CHECK_FORM = "tcp, none, http:PATH or udp:PAYLOAD, and then ,interval=, ,timeout=, ,rise= or ,fall=, is expected";

/** @throws SpecError */
export function parseCheck(text: string): CheckSpec {
  const options: [string, string][] = [];
  // A payload may have commas: only what looks like an option at the end is one.
  let rest = text;
  for (let m = CHECK_OPTION.exec(rest); m !== null; m = CHECK_OPTION.exec(rest)) {
    options.unshift([m[1]!, m[2]!]);
    rest = rest.slice(0, m.index);
  }
  const [kind, payload = ""] = splitAt(rest, ":");
  const known = kind === "tcp" || kind === "none" ? !rest.includes(":") : kind === "http" || kind === "udp";
  if (!known) throw new SpecError("check", `Cannot check by "${text}": ${CHECK_FORM}`);
  const check = { ...DEFAULT_CHECK, kind: kind as CheckSpec["kind"], payload: checkPayload(kind, payload, text) };
  let timeoutMs: number | undefined;
  for (const [key, value] of options) {
    if (key === "interval") check.intervalMs = parseDuration(key, value, MIN_INTERVAL_MS);
    else if (key === "timeout") timeoutMs = parseDuration(key, value, 10);
    else if (key === "rise") check.rise = parseWhole("check", value, 1, MAX_COUNT, key);
    else check.fall = parseWhole("check", value, 1, MAX_COUNT, key);
  }
  check.timeoutMs = timeoutMs ?? defaultTimeout(check.intervalMs);
  if (check.timeoutMs > check.intervalMs) {
    throw new SpecError(
      "check",
      `Cannot check by "${text}": the timeout of ${check.timeoutMs} ms is longer than the interval of ${check.intervalMs} ms`,
    );
  }
  return check;
}

const CHECK_OPTION = /,(interval|timeout|rise|fall)=([^,=]*)$/;

/** What `parseCheck()` reads. */
export function formatCheck({ kind, payload, intervalMs, timeoutMs, rise, fall }: CheckSpec): string {
  return [
    kind === "http" || kind === "udp" ? `${kind}:${payload}` : kind,
    ...intervalMs === DEFAULT_CHECK.intervalMs ? [] : [`interval=${formatDuration(intervalMs)}`],
    ...timeoutMs === defaultTimeout(intervalMs) ? [] : [`timeout=${formatDuration(timeoutMs)}`],
    ...rise === DEFAULT_CHECK.rise ? [] : [`rise=${rise}`],
    ...fall === DEFAULT_CHECK.fall ? [] : [`fall=${fall}`],
  ].join();
}

/** An answer that takes longer than most of an interval is none. */
function defaultTimeout(intervalMs: number): number {
  return Math.min(5_000, Math.floor(intervalMs * 4 / 5));
}

function checkPayload(kind: string, payload: string, text: string): string {
  if (payload.length > MAX_PAYLOAD) {
    throw new SpecError(
      "check",
      `Cannot check by a payload of ${payload.length} characters: at most ${MAX_PAYLOAD} may be`,
    );
  }
  if (kind === "http" && !/^\/[\x21-\x7e]*$/.test(payload)) {
    throw new SpecError("check", `Cannot check by "${text}": a path such as http:/healthz is expected, without blanks`);
  }
  if (kind === "udp" && payload === "") {
    throw new SpecError("check", `Cannot check by "${text}": what to send is missing, such as udp:ping`);
  }
  return payload;
}

/** `2s`, `500ms`, `1m`; a number alone is seconds. */
function parseDuration(what: string, text: string, least: number): number {
  const m = /^(\d{1,7}(?:\.\d{1,3})?)(ms|s|m)?$/.exec(text);
  const unit = { ms: 1, s: 1_000, m: 60_000 }[m?.[2] ?? "s"]!;
  const ms = m === null ? NaN : Math.round(Number(m[1]) * unit);
  if (!(ms >= least && ms <= MAX_INTERVAL_MS)) {
    throw new SpecError("check", `Cannot use ${what} "${text}": a time from ${least}ms to 60m is expected, such as 2s`);
  }
  return ms;
}

function formatDuration(ms: number): string {
  if (ms % 60_000 === 0) return `${ms / 60_000}m`;
  return ms % 1_000 === 0 ? `${ms / 1_000}s` : `${ms}ms`;
}
