/** The mesh core and sleeve, told whatever a peer that is part of the mesh may say. */

import assert from "node:assert/strict";
import { SILENT } from "../../src/lib/log.ts";
import type { PeerName } from "../../src/lib/mac.ts";
import { type Random, SeededRandom } from "../../src/lib/random.ts";
import type { Instant } from "../../src/lib/time.ts";
import { type ConnectionId, Mesh, type MeshOutput } from "../../src/mesh/mesh.ts";
import { Sleeve } from "../../src/overlay/sleeve.ts";
import { WireError } from "../../src/lib/errors.ts";
import { decodeMessage, type Features, type Message } from "../../src/wire/control.ts";
import { messages, topologies } from "./corpus.ts";
import { decodes, makeInput, pick, randomOctets } from "./inputs.ts";
import type { Target } from "./target.ts";

export const MESH_TARGETS: readonly Target[] = [
  { name: "mesh", weight: 2, prepare: prepareMesh },
  { name: "sleeve", prepare: () => attemptSleeve },
];

const NAMES = [0x02aa_0000_0001, 0x02bb_0000_0002, 0x02cc_0000_0003, 0x0200_0000_0001, 1] as PeerName[];
const US = NAMES[0]!;
/** What we may say in answer to one message: to everybody who is connected, on every channel, and a little more. */
const OUTPUTS_LIMIT = 200;

function prepareMesh() {
  const known = messages();
  const updates = topologies();
  return (random: Random) => {
    let now: Instant = 0;
    const mesh = new Mesh({
      name: US,
      nickName: "alpha",
      uid: 1n,
      shortId: 1,
      port: 6783,
      overlays: ["sleeve"],
      extensions: ["probe", "digest"],
      discovery: random.below(2) === 0,
      connectionLimit: 4,
      trustedSubnets: [],
      random: new SeededRandom(random.u32()),
      log: SILENT,
    }, now);
    const ids: ConnectionId[] = [];
    for (let n = 100; n > 0; n--) {
      const outputs = pollAll(mesh);
      for (const output of outputs) if (output.type === "dial") ids.push(output.id);
      now += random.below(4) === 0 ? random.below(20_000) : random.below(50);
      switch (random.below(12)) {
        case 0: {
          const id = mesh.handleAccepted({ address: random.u32(), port: 1 + random.below(65_535) }, now);
          if (id !== undefined) ids.push(id);
          break;
        }
        case 1:
          mesh.handleTimeout(now);
          break;
        case 2:
          if (ids.length > 0) mesh.handleClosed(pick(random, ids), "gone", now);
          break;
        case 6:
          if (ids.length > 0) mesh.handleSessionFailed(pick(random, ids), "rubbish", now);
          break;
        case 3:
          if (ids.length > 0) mesh.handleCarrierEstablished(pick(random, ids), now);
          break;
        case 4:
        case 5:
          if (ids.length > 0) introduce(mesh, pick(random, ids), random, now);
          break;
        default: {
          const message = anyMessage(random, known, updates);
          if (message && ids.length > 0) mesh.handleMessage(pick(random, ids), message, now);
        }
      }
    }
    assert.ok(mesh.peers().length < 2000);
    assert.ok(mesh.turnedAway(now).length <= 16);
    mesh.handleTimeout(now + 200_000);
  };
}

function introduce(mesh: Mesh, id: ConnectionId, random: Random, now: Instant): void {
  try {
    mesh.featuresFor(id, now);
  } catch (error) {
    if (error instanceof RangeError) return; // it has ended
    throw error;
  }
  const features: Features = {
    name: pick(random, NAMES),
    nickName: "x".repeat(random.below(20)),
    uid: BigInt(1 + random.below(3)),
    connectionId: random.u64(),
    shortId: random.below(3) ? random.below(4096) : undefined,
    trusted: random.below(2) === 0,
    overlays: pick(random, [undefined, ["sleeve"], ["fastdp", "sleeve"], []]),
    extensions: pick(random, [[], ["probe"], ["probe", "digest"]]),
  };
  mesh.handleIntroduced(id, features, random.below(2) ? new Uint8Array(32) : undefined, now);
}

function anyMessage(random: Random, known: readonly Uint8Array[], updates: readonly Uint8Array[]): Message | undefined {
  if (random.below(3) === 0) {
    const payload = makeInput(random, updates);
    const channel = pick(random, ["topology", "topology", "IPallocation", "nobody knows"]);
    const [source, destination] = [pick(random, NAMES), pick(random, NAMES)];
    return pick<Message>(random, [
      { type: "gossip", channel, sender: source, payload },
      { type: "broadcast", channel, source, payload },
      { type: "unicast", channel, source, destination, payload },
    ]);
  }
  const octets = makeInput(random, known);
  return decodes(octets, () => decodeMessage(octets), [WireError]);
}

function pollAll(mesh: Mesh): MeshOutput[] {
  const outputs: MeshOutput[] = [];
  for (let output = mesh.poll(); output; output = mesh.poll()) {
    outputs.push(output);
    assert.ok(outputs.length <= OUTPUTS_LIMIT, "one message makes it say more and more");
  }
  return outputs;
}

/** Any order of inputs, at any times. */
function attemptSleeve(random: Random): void {
  const remote = { address: 1, port: 6783 };
  const sleeve = new Sleeve({
    uid: 5n,
    outbound: random.below(2) === 0,
    remote,
    encrypted: true,
    fast: random.below(2) === 0,
  });
  let now = 0, sent = 0, failed = false;
  for (let n = 300; n > 0; n--) {
    now += random.below(3) === 0 ? random.below(70_000) : random.below(30);
    const from = { address: random.below(3), port: 6783 };
    switch (random.below(9)) {
      case 0:
        sleeve.handleConfirmed(now);
        break;
      case 1:
        sleeve.handleHeartbeat(BigInt(random.below(10)), from, now);
        break;
      case 2:
        sleeve.handleFragmentationTest(now);
        break;
      case 3:
        sleeve.handleProbe(random.below(65_536), now);
        break;
      case 4:
      case 5:
        sleeve.handleControl(random.below(6), randomOctets(random, random.below(4)), now);
        break;
      case 6:
        sleeve.handleTooBig(random.below(3) ? 500 + random.below(9000) : random.u32(), now);
        break;
      default:
        sleeve.handleTimeout(now);
    }
    for (let output = sleeve.poll(); output; output = sleeve.poll()) {
      assert.ok(!failed, "nothing comes after the failure");
      if (output.type === "failed") failed = true;
      if (output.type === "special") {
        sent++;
        assert.ok(output.frameOctets >= 22 && output.frameOctets <= 65_463);
      }
    }
    const { mtu, maxPayload } = sleeve.state;
    assert.ok(mtu >= 68 && mtu <= 65_535 && maxPayload <= 65_507 && (mtu === 65_535 || maxPayload === mtu + 58));
    const due = sleeve.pollTimeout();
    assert.ok(due === undefined || Number.isFinite(due.at));
  }
  assert.ok(sent <= 2000, `${sent} packets for 300 inputs`);
}
