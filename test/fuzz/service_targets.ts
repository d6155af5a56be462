/** Services: what gateways gossip, octet by octet and field by field, into decoder and catalogue; and what people and files ask for. */

import assert from "node:assert/strict";
import { exportOf, importOf, numbered } from "../service_records.ts";
import { ProtocolError, WireError } from "../../src/lib/errors.ts";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { type Random, SeededRandom } from "../../src/lib/random.ts";
import { checkDesired, configOf, DesiredError, differenceOf, renderChanges } from "../../src/service/apply.ts";
import { Catalogue, checkStored, encodeStored } from "../../src/service/catalogue.ts";
import { electHolder, importCandidates, sharesOf } from "../../src/service/election.ts";
import { virtualAddresses } from "../../src/service/records.ts";
import {
  decodeService,
  encodeForget,
  encodeHeads,
  encodeRecords,
  encodeWant,
  keyOf,
  MAX_MESSAGE_OCTETS,
} from "../../src/wire/service.ts";
import { decodes, makeInput, pick } from "./inputs.ts";
import { InputError, type Target } from "./target.ts";

const [OURS, THEM, THIRD] = [0x02aa_0000_0001, 0x02bb_0000_0002, 0x02cc_0000_0003] as [PeerName, PeerName, PeerName];
const LIFE = 1_800_000_000_000;
const CONTEXT = { domain: "weave.local.", networks: ["site"] };

const FILE = {
  networks: { site: "eth1", far: { interfaces: ["eth2"], isolated: true } },
  services: [
    {
      name: "db",
      import: { to: ["10.0.0.1:5432", { target: "a1.weave.local:5432", weight: 2 }], check: "http:/,rise=3" },
    },
    {
      name: "db2",
      export: [{ listen: "10.0.0.7:80-90/udp", port: 7, network: "site", allow: "10.0.0.0/8", dns: true }],
    },
  ],
};

export const SERVICE_TARGETS: readonly Target[] = [
  {
    name: "services",
    takes,
    prepare() {
      const known = payloads();
      known.forEach(takes);
      return (random) => tried(varied(random, known), takes);
    },
  },
  { name: "gossip of services", weight: 2, prepare: prepareGossip },
  {
    name: "service file",
    prepare: () => (random) => {
      const file = random.below(2) === 0 ? changed(random, FILE) : changed(random, changed(random, FILE));
      tried(new TextEncoder().encode(JSON.stringify(file)), () => apply(file));
    },
  },
];

function takes(octets: Uint8Array): void {
  const message = decodes(octets, () => decodeService(octets), [WireError]);
  if (message === undefined) return;
  assert.ok(octets.length <= MAX_MESSAGE_OCTETS);
  switch (message.type) {
    case "records": {
      for (const { key, record } of message.records) if (record !== undefined) assert.equal(keyOf(record), key);
      for (const { what, reason } of message.refused) assert.ok(what.length + reason.length < 1_000);
      // What was understood is understood again.
      const again = encodeRecords(message).map((payload) => decodeService(payload));
      const records = again.flatMap((part) => part.type === "records" ? part.records : []);
      assert.deepEqual(records.map(({ seq, key, record }) => ({ seq, key, record })), message.records.map(plain));
      return;
    }
    case "heads":
      assert.deepEqual(
        encodeHeads(message.by, message.heads).map((payload) => decodeService(payload))[0] ?? message,
        message,
      );
      return;
    case "want":
      return assert.deepEqual(decodeService(encodeWant({ ...message, seq: message.since })), message);
    case "forget":
      return assert.deepEqual(decodeService(encodeForget(message.owner, message.life)), message);
    default:
      message satisfies never;
  }
}

function plain({ seq, key, record }: { seq: number; key: string; record: unknown }) {
  return { seq, key, record };
}

function tried(octets: Uint8Array, work: (octets: Uint8Array) => void): void {
  try {
    work(octets);
  } catch (error) {
    throw new InputError(octets, error);
  }
}

function payloads(): Uint8Array[] {
  const told = (owner: PeerName, seq: number, full: boolean) =>
    encodeRecords({
      owner,
      life: LIFE,
      since: full ? 0 : seq,
      seq: seq + 3,
      check: 7,
      full,
      records: [
        numbered(seq + 1, importOf("db", { health: ["up", "down"], holding: [[0x0a20_0005, true]] })),
        numbered(seq + 2, exportOf("a1.weave.local", { allow: [{ address: 0x0a00_0000, prefixLength: 8 }], port: 80 })),
        { seq: seq + 3, key: "import gone", record: undefined, octets: 11 },
      ],
    });
  const heads = [OURS, THEM, THIRD].map((owner, i) => ({ owner, life: LIFE + i, seq: 5, check: 9 }));
  return [
    ...told(THEM, 0, false),
    ...told(THEM, 3, false),
    ...told(THIRD, 9, true),
    ...told(OURS, 2, true),
    ...encodeHeads(THEM, heads),
    encodeWant({ owner: OURS, life: LIFE, seq: 0, check: 0 }),
    encodeForget(THIRD, LIFE + 9),
  ];
}

/** Well-formed JSON with something else in it, mostly; else octets. */
function varied(random: Random, known: readonly Uint8Array[]): Uint8Array {
  if (random.below(3) === 0) return makeInput(random, known);
  let value: unknown = JSON.parse(new TextDecoder().decode(pick(random, known)));
  for (let n = random.below(4); n > 0; n--) value = changed(random, value);
  return new TextEncoder().encode(JSON.stringify(value));
}

const STRANGE: readonly unknown[] = [
  null,
  true,
  false,
  "",
  0,
  -1,
  -0,
  0.5,
  1e300,
  2 ** 52,
  2 ** 53,
  256,
  65_535,
  65_536,
  [],
  {},
  "x".repeat(40_000),
  "import ",
  "10.0.0.0/33",
  "10.32.0.5",
  "0-0",
  "1-65535/udp",
  "a.b.c",
  "http:/",
  "UPPER",
  "ä",
  "\u0000",
  "02:bb:00:00:00:02",
  "__proto__",
  "weave",
  Array.from({ length: 100 }, () => 1),
];

/** A value that differs in one place. */
function changed(random: Random, value: unknown): unknown {
  if (typeof value !== "object" || value === null || random.below(8) === 0) return pick(random, STRANGE);
  if (Array.isArray(value)) {
    if (value.length === 0) return [pick(random, STRANGE)];
    const at = random.below(value.length);
    switch (random.below(5)) {
      case 0:
        return value.toSpliced(at, 1);
      case 1:
        return value.toSpliced(at, 0, ...Array.from({ length: 1 + random.below(20) }, () => value[at]));
      default:
        return value.with(at, changed(random, value[at]));
    }
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return { [String(pick(random, STRANGE))]: pick(random, STRANGE) };
  const [key, item] = pick(random, entries);
  const rest = entries.filter(([other]) => other !== key);
  switch (random.below(6)) {
    case 0:
      return Object.fromEntries(rest);
    case 1:
      return Object.fromEntries([...entries, [String(pick(random, STRANGE)), pick(random, STRANGE)]]);
    default:
      return Object.fromEntries([...rest, [key, changed(random, item)]]);
  }
}

/** Whatever peers say in whatever order: nothing throws, ours stay, and what is told to others is well formed. */
function prepareGossip() {
  const known = payloads();
  const bench = new SeededRandom(1);
  return (random: Random) => {
    const reachable = new Set([THEM, THIRD].filter(() => random.below(4) > 0));
    const catalogue = new Catalogue({
      ourName: OURS,
      domain: "weave.local.",
      isReachable: (peer) => reachable.has(peer),
      unixMs: () => LIFE,
      random: bench,
      log: SILENT,
      stored: undefined,
      others: [],
    }, 0);
    catalogue.set(importOf("ours"), 0);
    catalogue.handlePersisted(catalogue.snapshot().revision, 0);
    let now = 0;
    for (let n = 1 + random.below(12); n > 0; n--) {
      const octets = varied(random, known);
      tried(octets, () => {
        const source = pick(random, [THEM, THIRD, OURS, 0 as PeerName]);
        const told = decodes(octets, () => {
          const way = random.below(3);
          if (way === 0) return catalogue.handleGossip(octets, now, source);
          if (way === 1) return catalogue.handleBroadcast(source, octets, now);
          return catalogue.handleUnicast(source, octets, now) as undefined;
        }, [ProtocolError]);
        for (const payload of told?.encode() ?? []) decodeService(payload as Uint8Array);
      });
      if (random.below(4) === 0) {
        const peer = pick(random, [THEM, THIRD]);
        if (!reachable.delete(peer)) reachable.add(peer);
        catalogue.handleTopology(now);
        if (random.below(3) === 0) catalogue.removePeer(peer, now);
      }
      now += random.below(3_000);
      catalogue.handleTimeout(now);
      drain(catalogue);
    }
    catalogue.checkInvariants();
    assert.ok(catalogue.imports("ours").some(({ owner }) => owner === OURS), "what is ours nobody takes away");
    assert.deepEqual(
      checkStored(JSON.parse(JSON.stringify(encodeStored(catalogue.others())))).length,
      catalogue.others().length,
    );
    // What others say goes into the choices of this host.
    for (const name of catalogue.names()) {
      const imports = catalogue.imports(name);
      for (const { address } of virtualAddresses(imports)) electHolder(name, importCandidates(imports, address));
      for (const { record } of imports) {
        for (const ports of record.spec.ports) {
          for (const { weight } of sharesOf(imports, ports)) assert.ok(weight >= 1 && weight <= 256);
        }
      }
    }
    assert.ok(catalogue.rejections().length <= 64);
  };
}

function drain(catalogue: Catalogue): void {
  let outputs = 0;
  for (let output = catalogue.poll(); output; output = catalogue.poll()) {
    if (output.type === "unicast") decodeService(output.payload);
    if ("data" in output) { for (const payload of output.data.encode()) decodeService(payload as Uint8Array); }
    assert.ok(++outputs < 100, "it comes to rest");
  }
}

/** A file is taken, and then it is no change any more; or it is refused in one line. */
function apply(file: unknown): void {
  let desired;
  try {
    desired = checkDesired(JSON.parse(JSON.stringify(file)), CONTEXT);
  } catch (error) {
    if (!(error instanceof DesiredError)) throw error;
    assert.ok(!error.message.includes("\n"), error.message);
    return;
  }
  const nothing = { networks: [], imports: [], exports: [] };
  renderChanges(differenceOf(nothing, desired));
  const there = [{ name: "site", interfaces: ["eth1"], isolated: false }];
  const state = { networks: desired.networks ?? there, ...desired.services ?? { imports: [], exports: [] } };
  assert.deepEqual(differenceOf(state, checkDesired(JSON.parse(JSON.stringify(configOf(state))), CONTEXT)), []);
}
