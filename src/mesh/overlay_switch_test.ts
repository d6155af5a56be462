import assert from "node:assert/strict";
import { readVector } from "../../test/sim/records.ts";
import { SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { Mesh, type MeshOutput } from "./mesh.ts";

Deno.test("Mesh finds the carriers in common that the vectors have, or closes for the want of one", () => {
  interface Case {
    readonly ours: readonly string[];
    readonly their_feature?: string;
    readonly their_feature_absent?: boolean;
    readonly result_as_computed?: readonly string[];
    readonly error?: string;
  }
  const { cases } = readVector<{ cases: readonly Case[] }>("overlay-switch");
  assert.ok(cases.length >= 8);
  for (const c of cases) {
    const outputs = introduce(c.ours, c.their_feature?.split(" "));
    const confirmed = outputs.find((output) => output.type === "confirmed");
    const closed = outputs.find((output) => output.type === "close");
    assert.equal(closed?.reason, c.error);
    assert.deepEqual(confirmed?.overlays, c.their_feature_absent ? ["sleeve"] : c.result_as_computed);
    if (confirmed) assert.equal(confirmed.legacyOverlay, c.their_feature_absent ?? false);
  }
});

function introduce(ours: readonly string[], theirs: readonly string[] | undefined): MeshOutput[] {
  const mesh = new Mesh({
    name: 1 as PeerName,
    nickName: "us",
    uid: 1n,
    shortId: 1,
    port: 6783,
    overlays: ours,
    extensions: [],
    discovery: false,
    connectionLimit: 0,
    trustedSubnets: [],
    random: new SeededRandom(1),
    log: SILENT,
  }, 0);
  const id = mesh.handleAccepted({ address: 0x0a00_0002, port: 50_000 }, 0)!;
  mesh.featuresFor(id, 0);
  const features = { name: 2 as PeerName, nickName: "them", uid: 2n, connectionId: 2n, shortId: 2, trusted: false };
  mesh.handleIntroduced(id, { ...features, overlays: theirs, extensions: [] }, undefined, 0);
  const outputs: MeshOutput[] = [];
  for (let output = mesh.poll(); output; output = mesh.poll()) outputs.push(output);
  return outputs;
}
