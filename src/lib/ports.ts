/** Ports of TCP and UDP, as people write them: `6379`, `5060/udp`, `10000-20000/udp`. */

export type Protocol = "tcp" | "udp";

/** From `first` to `last`, both of them in it. */
export interface PortRange {
  readonly protocol: Protocol;
  readonly first: number;
  readonly last: number;
}

export const MAX_PORT = 65_535;

/** `80`, `80/tcp`, `5060/udp`, `10000-20000/udp`; undefined where the text is anything else, port 0 and ranges that go down included. */
export function parsePortRange(text: string): PortRange | undefined {
  const m = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(text);
  if (m === null) return undefined;
  const first = Number(m[1]);
  const last = m[2] === undefined ? first : Number(m[2]);
  if (first < 1 || last > MAX_PORT || last < first) return undefined;
  return { protocol: m[3] === "udp" ? "udp" : "tcp", first, last };
}

/** What `parsePortRange()` reads; TCP goes without saying. */
export function formatPortRange({ protocol, first, last }: PortRange): string {
  return `${first}${last === first ? "" : `-${last}`}${protocol === "udp" ? "/udp" : ""}`;
}

export function portCount({ first, last }: PortRange): number {
  return last - first + 1;
}

export function portsOverlap(a: PortRange, b: PortRange): boolean {
  return a.protocol === b.protocol && a.first <= b.last && b.first <= a.last;
}

export function samePorts(a: PortRange, b: PortRange): boolean {
  return a.protocol === b.protocol && a.first === b.first && a.last === b.last;
}
