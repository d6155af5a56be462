/**
 * A program that runs on emulated hosts, in whose namespace it is started:
 *
 *     serve NAME tcp|udp|http|flaky PORT[-PORT]     says its name; over TCP it echoes then; flaky: HTTP that fails every other time
 *     connect ADDRESS PORT RATE SECONDS HOLD_MS PATIENCE_MS
 *                                                   so many connections a second, each held for so long, a line for each;
 *                                                   HOLD_MS "http": a request on each, instead of listening for a name
 *     talk ADDRESS PORT                             one connection: says "tick" four times a second, prints what comes back
 *     scan ADDRESS:PORT…                            which of these answer
 *
 * Everything it does is bounded in time and number.
 */

import { createSocket } from "node:dgram";

/** How long a connection may take, and an answer on it. */
let patienceMs = 1_000;
/** Of `scan`: what does not answer by then is filtered. */
const SCAN_MS = 1_500;
/** Connections of `connect` under way at most; beyond it the far end has failed anyway. */
const MOST_AT_ONCE = 5_000;

/** Of `talk`. */
const TICK_MS = 250;

const encoder = new TextEncoder(), decoder = new TextDecoder();

async function main([mode, ...args]: readonly string[]): Promise<void> {
  switch (mode) {
    case "serve": {
      const [name, kind, ports] = args as [string, string, string];
      const [first, last = first] = ports.split("-").map(Number) as [number, number?];
      for (let port = first; port <= last; port++) serve(last === first ? name : `${name}.${port}`, kind, port);
      console.log("ready");
      return;
    }
    case "connect": {
      const [address, port, rate, seconds, holdMs, patience] = args as [string, string, string, string, string, string];
      patienceMs = Number(patience);
      await connectSteadily({ hostname: address, port: Number(port) }, {
        rate: Number(rate),
        seconds: Number(seconds),
        holdMs: holdMs === "http" ? holdMs : Number(holdMs),
      });
      return;
    }
    case "talk":
      await talk({ hostname: args[0]!, port: Number(args[1]) });
      return;
    case "scan":
      console.log(JSON.stringify(Object.fromEntries(
        await Promise.all(args.map(async (target) => [target, await scan(target)])),
      )));
      Deno.exit(0); // whatever still waits
      break;
    default:
      throw new Error(`Unknown mode ${mode}`);
  }
}

function serve(name: string, kind: string, port: number): void {
  if (kind === "tcp") void serveTcp(name, port);
  else if (kind === "udp") serveUdp(name, port);
  else {
    let count = 0;
    Deno.serve({ port, onListen() {} }, () => {
      const failing = kind === "flaky" && ++count % 2 === 0;
      return new Response(`${name}\n`, { status: failing ? 503 : 200 });
    });
  }
}

async function serveTcp(name: string, port: number): Promise<void> {
  const listener = Deno.listen({ port, tcpBacklog: 4_096 });
  for (;;) {
    try {
      void greet(await listener.accept(), name).catch(() => {}); // the client's affair
    } catch (error) {
      // Whoever asks whether we are well may be gone again before he is accepted.
      if (!(error instanceof Deno.errors.NotConnected)) console.error(error);
    }
  }
}

async function greet(connection: Deno.TcpConn, name: string): Promise<void> {
  using _connection = connection;
  await connection.write(encoder.encode(`${name}\n`));
  const buffer = new Uint8Array(1_024);
  for (;;) {
    const octets = await connection.read(buffer);
    if (octets === null) return;
    await connection.write(buffer.subarray(0, octets));
  }
}

function serveUdp(name: string, port: number): void {
  const socket = createSocket("udp4");
  socket.on("message", (_, { address, port }) => socket.send(`${name}\n`, port, address));
  socket.bind(port);
}

/** Lines `START END NAME ok`, `START END - failed: WHY`, `START END NAME cut: WHY`; both times in milliseconds since 1970. */
async function connectSteadily(
  to: { hostname: string; port: number },
  { rate, seconds, holdMs }: { rate: number; seconds: number; holdMs: number | "http" },
): Promise<void> {
  const begun = performance.now();
  const running = new Set<Promise<void>>();
  let opened = 0;
  while (opened < rate * seconds) {
    const due = Math.min(rate * seconds, Math.floor((performance.now() - begun) / 1_000 * rate) + 1);
    for (; opened < due; opened++) {
      if (running.size >= MOST_AT_ONCE) throw new Error(`${MOST_AT_ONCE} connections are under way`);
      const one = connectOnce(to, holdMs).then((line) => console.log(line)).finally(() => running.delete(one));
      running.add(one);
    }
    await delay(Math.max(1, (opened / rate) * 1_000 - (performance.now() - begun)));
  }
  await Promise.all(running);
}

async function connectOnce(to: { hostname: string; port: number }, holdMs: number | "http"): Promise<string> {
  const started = Date.now();
  const line = (rest: string) => `${started} ${Date.now()} ${rest}`;
  let connection: Deno.TcpConn | undefined;
  let name: string | undefined;
  try {
    connection = await Deno.connect({ ...to, signal: AbortSignal.timeout(patienceMs) });
    if (holdMs === "http") {
      name = await request(connection);
      return line(`${name} ok`);
    }
    name = (await readLine(connection)).trim();
    if (holdMs > 0) {
      const holding = holdMs * (0.5 + Math.random());
      // Listened for all the time, so that a connection that is cut is told of when it is.
      const answer = readLine(connection, holding + patienceMs);
      await Promise.race([delay(holding), answer]);
      await connection.write(encoder.encode("ping\n"));
      const echo = await answer;
      if (echo !== "ping\n") throw new Error(`it says ${JSON.stringify(echo)}`);
    }
    return line(`${name} ok`);
  } catch (error) {
    const why = (error as Error).message.replaceAll("\n", " ");
    return line(name === undefined ? `- failed: ${why}` : `${name} cut: ${why}`);
  } finally {
    if (connection !== undefined) end(connection);
  }
}

/** Closes it, unless it is. */
function end(connection: Deno.TcpConn): void {
  try {
    connection.close();
  } catch {
    // closed already
  }
}

/** The body of a good answer. */
async function request(connection: Deno.TcpConn): Promise<string> {
  await connection.write(encoder.encode("GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"));
  const buffer = new Uint8Array(1_024);
  let text = "";
  const late = setTimeout(() => end(connection), patienceMs);
  try {
    for (;;) {
      const octets = await connection.read(buffer);
      if (octets === null) break;
      text += decoder.decode(buffer.subarray(0, octets));
    }
  } finally {
    clearTimeout(late);
  }
  const [status, body] = [text.split(" ")[1], text.trim().split("\r\n\r\n")[1]];
  if (status !== "200" || body === undefined) throw new Error(`status ${status}`);
  return body.trim();
}

/** Until the connection ends. @throws what ended it, unless it was its proper end */
async function talk(to: { hostname: string; port: number }): Promise<void> {
  using connection = await Deno.connect({ ...to, signal: AbortSignal.timeout(patienceMs) });
  const talking = setInterval(() => void connection.write(encoder.encode("tick\n")).catch(() => {}), TICK_MS);
  try {
    const buffer = new Uint8Array(1_024);
    for (;;) {
      const octets = await connection.read(buffer);
      if (octets === null) return;
      await Deno.stdout.write(buffer.subarray(0, octets));
    }
  } finally {
    clearInterval(talking);
  }
}

async function readLine(connection: Deno.TcpConn, patience = patienceMs): Promise<string> {
  const buffer = new Uint8Array(256);
  let text = "";
  const late = setTimeout(() => end(connection), patience);
  try {
    while (!text.endsWith("\n")) {
      const octets = await connection.read(buffer);
      if (octets === null) throw new Error("it ended the connection");
      text += decoder.decode(buffer.subarray(0, octets));
    }
  } finally {
    clearTimeout(late);
  }
  return text;
}

/** `open`, `refused`, or `filtered`. */
async function scan(target: string): Promise<string> {
  const [hostname, port] = target.split(":") as [string, string];
  try {
    using _connection = await Deno.connect({
      hostname,
      port: Number(port),
      signal: AbortSignal.timeout(SCAN_MS),
    });
    return "open";
  } catch (error) {
    return error instanceof Deno.errors.ConnectionRefused ? "refused" : "filtered";
  }
}

function delay(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds));
}

if (import.meta.main) await main(Deno.args);
