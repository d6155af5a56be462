/** From what a user calls a peer to where it is dialled. */
// Not node:dns/promises, which complains on stderr about a module that it uses itself.
import { lookup } from "node:dns";
import { parseIpv4 } from "../lib/ip.ts";
import type { TargetSpec } from "../mesh/mesh.ts";

export interface ResolvedTargets {
  readonly targets: readonly TargetSpec[];
  /** A line for each text that is none, or whose name is not known. */
  readonly errors: readonly string[];
  /** Texts that are right, but whose names cannot be looked up now. */
  readonly unknown: readonly string[];
}

/** Looks names up, all at once. @param port where a text has none */
export async function resolveTargets(texts: readonly string[], port: number): Promise<ResolvedTargets> {
  const results = await Promise.all(texts.map((text) => resolveTarget(text, port)));
  return {
    targets: results.flatMap(({ target }) => target ?? []),
    errors: results.flatMap(({ error }) => error ?? []),
    unknown: results.flatMap(({ unknown }) => unknown ?? []),
  };
}

interface Resolved {
  readonly target?: TargetSpec;
  readonly error?: string;
  readonly unknown?: string;
}

async function resolveTarget(text: string, defaultPort: number): Promise<Resolved> {
  const [, host, digits] = /^([^:\s/]+)(?::(\d{1,5}))?$/.exec(text) ?? [];
  const port = digits === undefined ? defaultPort : Number(digits);
  if (host === undefined || port < 1 || port > 65535) {
    return { error: `invalid peer name ${JSON.stringify(text)}, should be host[:port]` };
  }
  const hasPort = digits !== undefined;
  const address = parseIpv4(host);
  if (address !== undefined) return { target: { text, endpoint: { address, port }, hasPort } };
  try {
    const found = parseIpv4(await lookUp(host));
    if (found !== undefined) return { target: { text, endpoint: { address: found, port }, hasPort } };
  } catch {
    // Said below.
  }
  return { error: `Cannot resolve peer name "${host}": no IPv4 address is known for it`, unknown: text };
}

function lookUp(host: string): Promise<string> {
  return new Promise((resolve, reject) => {
    lookup(host, { family: 4 }, (error, address) => error === null ? resolve(address) : reject(error));
  });
}
