import assert from "node:assert/strict";
import { formatEndpoint } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import type { PeerRecord } from "../wire/topology.ts";
import { connectionsTo, endpoint, readVector, record } from "../../test/sim/records.ts";
import { Peers } from "./peers.ts";
import {
  backOffMs,
  FIRST_INTERVAL_MS,
  type LiveConnection,
  LONGEST_INTERVAL_MS,
  nextIntervalMs,
  Targets,
  type TargetSpec,
} from "./targets.ts";

const US = 1 as PeerName;
const A = "10.0.0.2:6783";

Deno.test("nextIntervalMs() grows as in the vectors, and backOffMs() spreads over half to one and a half", () => {
  let interval = FIRST_INTERVAL_MS;
  for (const text of readVector<{ backoff_intervals: readonly string[] }>("mesh-misc").backoff_intervals) {
    assert.ok(Math.abs(interval - milliseconds(text)) < 0.001, `${interval} ${text}`);
    interval = nextIntervalMs(interval);
  }
  assert.equal(interval, LONGEST_INTERVAL_MS);
  const random = new SeededRandom(1);
  const waits = Array.from({ length: 1000 }, () => backOffMs(1000, random));
  assert.ok(waits.every((wait) => wait >= 500 && wait < 1500));
  assert.ok(Math.min(...waits) < 510 && Math.max(...waits) > 1490);
});

Deno.test("Targets dials what is configured, once", () => {
  const t = new Fixture();
  assert.ok(t.targets.connect([spec(A)], false, 0));
  assert.deepEqual(t.check(0), [`${A} direct`]);
  assert.deepEqual(t.check(0), []);
  assert.deepEqual(t.targets.status(), [{ state: "connecting", address: endpoint(A) }]);
});

Deno.test("Targets backs off after failures, and says why and until when", () => {
  const t = new Fixture();
  t.targets.connect([spec(A)], false, 0);
  let interval = FIRST_INTERVAL_MS;
  let now = 0;
  for (let i = 0; i < 20; i++) {
    assert.deepEqual(t.check(now), [`${A} direct`]);
    if (i > 0) assert.deepEqual(t.targets.status(), [{ state: "retrying", address: endpoint(A), error: "refused" }]);
    t.targets.handleFailed(endpoint(A), "refused", now);
    const next = t.targets.nextAt()!;
    assert.ok(next - now >= interval / 2 && next - now < interval * 1.5);
    assert.deepEqual(t.targets.status(), [{ state: "failed", address: endpoint(A), error: "refused", retryAt: next }]);
    assert.deepEqual(t.check(next - 1), []);
    now = next;
    interval = nextIntervalMs(interval);
  }
});

Deno.test("Targets tries at once what was stable for a minute, and later what was not", () => {
  for (const [lived, retryAtOnce] of [[59_000, false], [61_000, true]] as const) {
    const t = new Fixture();
    t.targets.connect([spec(A)], false, 0);
    t.check(0);
    t.targets.handleFailed(endpoint(A), "refused", 0);
    const due = t.targets.nextAt()!;
    t.check(due + 500);
    t.targets.handleConnected(endpoint(A), 2 as PeerName);
    assert.deepEqual(t.targets.status(), []);
    const end = due + lived;
    t.targets.handleEnded(endpoint(A), { error: "EOF", retry: "later", peer: 2 as PeerName, established: false }, end);
    assert.equal(t.targets.nextAt() === end, retryAtOnce);
    assert.equal(t.check(end).length === 1, retryAtOnce);
  }
});

Deno.test("Targets waits as for the first time after a connection that carried frames for some seconds", () => {
  for (
    const [established, lived, longestMs] of [[true, 6_000, 3_000], [false, 6_000, 45_000], [
      true,
      4_000,
      45_000,
    ]] as const
  ) {
    const t = new Fixture();
    t.targets.connect([spec(A)], false, 0);
    let now = 0;
    for (let failures = 0; failures < 7; failures++) { // the interval is beyond 20 s then
      t.check(now);
      t.targets.handleFailed(endpoint(A), "refused", now);
      now = t.targets.nextAt()!;
    }
    t.check(now);
    t.targets.handleConnected(endpoint(A), 2 as PeerName);
    now += lived;
    t.targets.handleEnded(endpoint(A), { error: "EOF", retry: "later", peer: 2 as PeerName, established }, now);
    const waits = t.targets.nextAt()! - now;
    assert.ok(waits <= longestMs && waits > (longestMs === 3_000 ? 0 : 10_000), `${waits} ms`);
  }
});

Deno.test("Targets never tries again what is ourselves, until it is configured again", () => {
  const t = new Fixture();
  t.targets.connect([spec(A)], false, 0);
  t.check(0);
  t.targets.handleEnded(endpoint(A), {
    error: "cannot connect to ourself",
    retry: "never",
    peer: undefined,
    established: false,
  }, 0);
  assert.deepEqual(t.targets.status(), [
    { state: "failed", address: endpoint(A), error: "cannot connect to ourself", retryAt: undefined },
  ]);
  assert.equal(t.targets.nextAt(), undefined);
  assert.deepEqual(t.check(1e9), []);
  assert.deepEqual(t.targets.activeTexts(), []);
  assert.ok(!t.targets.connect([spec(A)], false, 1e9), "the list is the same");
  assert.deepEqual(t.check(1e9), [`${A} direct`]);
  assert.deepEqual(t.targets.activeTexts(), [A]);
});

Deno.test("Targets leaves a target alone while there is a connection from its address, unless it has a port", () => {
  for (const hasPort of [false, true]) {
    const t = new Fixture();
    t.connections = [{ remote: endpoint("10.0.0.2:41234"), outbound: false, peer: 2 as PeerName }];
    t.targets.connect([spec(A, hasPort)], false, 0);
    assert.deepEqual(t.check(0), hasPort ? [`${A} direct`] : []);
    t.connections = [];
    if (!hasPort) assert.deepEqual(t.check(0), [`${A} direct`]);
  }
});

Deno.test("Targets leaves a target alone while there is a connection with the peer that it found there", () => {
  const t = new Fixture();
  t.targets.connect([spec(A, true)], false, 0);
  t.check(0);
  const lost = {
    error: "Multiple connections to x added to y",
    retry: "later",
    peer: 2 as PeerName,
    established: false,
  } as const;
  t.targets.handleEnded(endpoint(A), lost, 0);
  t.connections = [{ remote: endpoint("10.0.0.2:41234"), outbound: false, peer: 2 as PeerName }];
  assert.deepEqual(t.check(60_000), []);
  assert.deepEqual(t.targets.status(), [], "suspended: no row");
  t.connections = [];
  assert.deepEqual(t.check(60_000), [`${A} direct`]);
});

Deno.test("Targets forgets and replaces by the text that was given", () => {
  const t = new Fixture();
  t.targets.connect([spec(A), { ...spec(A), text: "two" }, spec("10.0.0.3:6783")], false, 0);
  t.check(0);
  assert.ok(!t.targets.forget(["10.0.0.2"]));
  assert.ok(t.targets.forget(["two"]));
  assert.deepEqual(t.targets.texts(), [A, "10.0.0.3:6783"]);
  assert.ok(t.targets.connect([spec("10.0.0.4:6783")], true, 0));
  assert.deepEqual(t.targets.texts(), ["10.0.0.4:6783"]);
  t.targets.handleFailed(endpoint(A), "refused", 0);
  assert.deepEqual(t.check(100_000), ["10.0.0.4:6783 direct"]);
  assert.equal(t.targets.status().some((row) => formatEndpoint(row.address) === A), false);
});

Deno.test("Targets dials the addresses that others are connected with, at the port of routers", () => {
  const records = [
    record(2, {
      connections: [
        ...connectionsTo([3], { address: "10.0.0.3:7000" }),
        ...connectionsTo([4], { address: "10.0.0.4:51000", outbound: false }),
        ...connectionsTo([5], { address: "10.0.0.5:6783" }),
        ...connectionsTo([1], { address: "10.0.0.1:6783" }),
      ],
    }),
    record(4, {
      connections: [
        ...connectionsTo([6], { address: "127.0.0.1:6783" }),
        ...connectionsTo([7], { address: "nonsense" }),
        ...connectionsTo([8], { address: "224.0.0.1:6783" }),
        ...connectionsTo([9], { address: "0.0.0.0:6783" }),
        ...connectionsTo([10], { address: "10.0.0.10:0" }),
      ],
    }),
  ];
  const t = new Fixture({ discovery: true, records });
  t.connections = [
    { remote: endpoint("10.0.0.2:6783"), outbound: true, peer: 2 as PeerName },
    { remote: endpoint("10.0.0.5:41000"), outbound: false, peer: 5 as PeerName },
  ];
  assert.deepEqual(t.check(0).sort(), ["10.0.0.3:7000", "10.0.0.4:6783"]);
  assert.deepEqual(new Fixture({ records }).check(0), [], "without discovery");

  // Connected by now: forgotten. The other one failed, and is kept.
  t.targets.handleFailed(endpoint("10.0.0.3:7000"), "refused", 0);
  t.targets.handleFailed(endpoint("10.0.0.4:6783"), "refused", 0);
  t.connections.push({ remote: endpoint("10.0.0.3:45000"), outbound: false, peer: 3 as PeerName });
  t.check(0);
  assert.deepEqual(t.targets.status().map((row) => formatEndpoint(row.address)), ["10.0.0.4:6783"]);
});

Deno.test("Targets runs a limited number of attempts, and the others after them", () => {
  const t = new Fixture();
  const all = Array.from({ length: 150 }, (_, i) => `10.1.0.${i}:6783`);
  t.targets.connect(all.map((text) => spec(text)), false, 0);
  const first = t.check(0);
  assert.equal(first.length, 100);
  assert.equal(t.targets.nextAt(), undefined);
  t.targets.handleConnected(endpoint(first[0]!.split(" ")[0]!), 2 as PeerName);
  assert.equal(t.targets.nextAt(), 0);
  assert.equal(t.check(0).length, 1);
});

class Fixture {
  readonly targets: Targets;
  readonly #peers: Peers;
  connections: LiveConnection[] = [];

  constructor({ discovery = false, records = [] }: { discovery?: boolean; records?: readonly PeerRecord[] } = {}) {
    this.targets = new Targets({ port: 6783, discovery, random: new SeededRandom(1) });
    this.#peers = new Peers(record(US), new SeededRandom(1));
    this.#peers.merge(records);
  }

  check(now: number): string[] {
    const around = { ourName: US, connections: this.connections, peers: this.#peers.nodes() };
    return this.targets.check(around, now).map(({ endpoint, direct }) => {
      return formatEndpoint(endpoint) + (direct ? " direct" : "");
    });
  }
}

function spec(text: string, hasPort = true): TargetSpec {
  return { text, endpoint: endpoint(text), hasPort };
}

/** A duration as Go prints it. */
function milliseconds(text: string): number {
  const [, minutes, seconds] = /^(?:(\d+)m)?([\d.]+)s$/.exec(text)!;
  return Number(minutes ?? 0) * 60_000 + Number(seconds) * 1000;
}
