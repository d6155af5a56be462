/** Asks a DNS server for the addresses of a name, for commands: over TCP, where nothing is cut off and nobody else can answer. */
import { decodeDns, encodeQuery } from "../wire/dns.ts";
import { OperationError } from "../lib/errors.ts";
import { type Endpoint, formatEndpoint, formatIpv4 } from "../lib/ip.ts";

const TIMEOUT_MS = 15_000;

/** Addresses as text, in the order of the answer; none where there is no such name. */
export async function queryAddresses(server: Endpoint, name: string): Promise<readonly string[]> {
  const failed = (why: string) => new OperationError(`Cannot ask ${formatEndpoint(server)} for "${name}": ${why}`);
  let message: ReturnType<typeof decodeDns>;
  try {
    message = decodeDns(await exchange(server, encodeQuery(1, name, "A")));
  } catch (error) {
    throw failed((error as Error).message);
  }
  const { rcode, answers } = message;
  if (rcode !== "NOERROR" && rcode !== "NXDOMAIN") throw failed(`it answers ${rcode}`);
  return answers.flatMap(({ type, data }) => type === "A" ? [String(data)] : []);
}

async function exchange({ address, port }: Endpoint, query: Uint8Array): Promise<Uint8Array> {
  using connection = await Deno.connect({ hostname: formatIpv4(address), port });
  const timer = setTimeout(() => connection.close(), TIMEOUT_MS);
  try {
    await writeAll(connection, Uint8Array.from([query.length >>> 8, query.length, ...query]));
    const length = await readAll(connection, 2);
    return await readAll(connection, length[0]! << 8 | length[1]!);
  } finally {
    clearTimeout(timer);
  }
}

async function writeAll(connection: Deno.Conn, octets: Uint8Array): Promise<void> {
  for (let at = 0; at < octets.length;) at += await connection.write(octets.subarray(at));
}

async function readAll(connection: Deno.Conn, count: number): Promise<Uint8Array> {
  const octets = new Uint8Array(count);
  for (let at = 0; at < count;) {
    const got = await connection.read(octets.subarray(at));
    if (got === null) throw new Error("the connection was closed");
    at += got;
  }
  return octets;
}
