/** The control API as any user of the host reaches it: over a socket, with the router behind it replaced. */

import assert from "node:assert/strict";
import { serveApi } from "../../src/api/routes.ts";
import type { RouterControl } from "../../src/api/types.ts";
import { REPORT_VIEWS } from "../../src/daemon/status.ts";
import type { Fields } from "../../src/lib/log.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { Random } from "../../src/lib/random.ts";
import { busyReport } from "../example_report.ts";
import { makeInput, pick } from "./inputs.ts";
import { InputError, type Target } from "./target.ts";

export const API_TARGETS: readonly Target[] = [{ name: "control API", prepare: prepareApi }];

const PATHS = [
  "/status",
  "/status/targets",
  "/status/connections",
  "/status/dns?x=%zz",
  "/report?format=%7b%7b.Version%7d%7d",
  "/metrics",
  "/connect?peer=a&peer=b%3a1&replace=true",
  "/forget?peer=a",
  "/expose/10.0.0.1/24?skipNAT=true",
  "/peer/02:aa:00:00:00:01",
  "/peer/%2e%2e/%00",
  "/",
  "//a",
];

function prepareApi() {
  const problems: string[] = [];
  const note = (event: string, fields?: Fields) => void problems.push(`${event} ${JSON.stringify(fields)}`);
  const { httpAddr } = serveApi({
    control: CONTROL,
    views: REPORT_VIEWS,
    log: { ...SILENT, error: note, warn: note },
    httpAddr: { transport: "tcp", hostname: "127.0.0.1", port: 0 },
    statusAddr: undefined,
    metricsAddr: undefined,
  });
  assert.ok(httpAddr?.transport === "tcp");
  const { port } = httpAddr;
  return async (random: Random) => {
    const octets = anyRequest(random);
    try {
      const answer = await ask(port, octets);
      const status = Number(/^HTTP\/1\.1 (\d{3}) /.exec(answer)?.[1]);
      assert.ok(answer === "" || status >= 100, answer.slice(0, 200));
      // What a template meets in the report is the one thing that answers 500, with HEAD without saying so.
      const isHead = answer.endsWith("\r\n\r\n");
      assert.ok(status !== 500 || isHead || answer.includes("template: "), answer.slice(0, 500));
      assert.deepEqual(problems, []);
    } catch (error) {
      throw new InputError(octets, error);
    }
  };
}

const CONTROL: RouterControl = {
  report: () => busyReport(),
  connect: (peers) => Promise.resolve({ errors: peers.filter((peer) => peer.length > 5) }),
  forget: () => Promise.resolve(),
  expose: () => Promise.resolve(),
  leave: () => Promise.resolve(),
  removePeer: (id) => Promise.resolve(id.length > 3 ? 7 : undefined),
};

function anyRequest(random: Random): Uint8Array {
  const path = random.below(3) ? pick(random, PATHS) : latin1(makeInput(random, PATHS.map(octetsOf)).slice(0, 300));
  const body = random.below(3)
    ? ""
    : latin1(makeInput(random, [octetsOf("peer=a&peer=%41&replace=true")]).slice(0, 500));
  const lines = [
    `${pick(random, ["GET", "POST", "PUT", "DELETE", "HEAD", "get"])} ${path} HTTP/1.1`,
    `Host: ${pick(random, ["localhost", "127.0.0.1:6784", "[::1]", "evil.example", ""])}`,
    ...random.below(5) === 0 ? ["Origin: http://evil.example"] : [],
    ...random.below(2) ? ["Accept: application/json"] : [],
    ...body === "" ? [] : [`Content-Length: ${body.length}`, "Content-Type: application/x-www-form-urlencoded"],
  ];
  const whole = octetsOf(`${lines.join("\r\n")}\r\n\r\n${body}`);
  return random.below(3) ? whole : makeInput(random, [whole]);
}

/** Sends it all and reads to the end; "" where the connection is closed without a word. */
async function ask(port: number, octets: Uint8Array): Promise<string> {
  using connection = await Deno.connect({ hostname: "127.0.0.1", port });
  let answer = "";
  try {
    for (let at = 0; at < octets.length;) at += await connection.write(octets.subarray(at));
    await connection.closeWrite();
    const buffer = new Uint8Array(65_536);
    for (let got = await connection.read(buffer); got !== null; got = await connection.read(buffer)) {
      answer += latin1(buffer.subarray(0, got));
    }
  } catch (error) {
    // Refused before it was read to its end.
    if (!(error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe)) throw error;
  }
  return answer;
}

function octetsOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function latin1(octets: Uint8Array): string {
  return new TextDecoder("latin1").decode(octets);
}
