import assert from "node:assert/strict";
import { SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { Mesh } from "../mesh/mesh.ts";
import { resolveTargets } from "./resolve_targets.ts";
import { Targets } from "./targets.ts";

Deno.test("resolveTargets() reads addresses and names, with and without a port", async () => {
  const { targets, errors, unknown } = await resolveTargets(["192.0.2.1", "192.0.2.2:7000", "localhost"], 6783);
  assert.deepEqual(targets, [
    { text: "192.0.2.1", endpoint: { address: 0xc0000201, port: 6783 }, hasPort: false },
    { text: "192.0.2.2:7000", endpoint: { address: 0xc0000202, port: 7000 }, hasPort: true },
    { text: "localhost", endpoint: { address: 0x7f000001, port: 6783 }, hasPort: false },
  ]);
  assert.deepEqual([errors, unknown], [[], []]);
});

Deno.test("resolveTargets() says of each text what is wrong with it, and uses the others", async () => {
  const { targets, errors, unknown } = await resolveTargets(
    ["a:b", "192.0.2.1:0", "no.such.host.invalid", "10.0.0.1"],
    1,
  );
  assert.deepEqual(targets.map(({ text }) => text), ["10.0.0.1"]);
  assert.deepEqual(errors, [
    'invalid peer name "a:b", should be host[:port]',
    'invalid peer name "192.0.2.1:0", should be host[:port]',
    'Cannot resolve peer name "no.such.host.invalid": no IPv4 address is known for it',
  ]);
  assert.deepEqual(unknown, ["no.such.host.invalid"]);
});

Deno.test("Targets starts with those given, and with the stored ones after a crash or when told to resume", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-targets-" });
  try {
    const given = ["192.0.2.1"];
    await using first = await start(folder, { restarted: false, resume: false, given });
    await first.targets.connect(["192.0.2.2"], false);
    assert.deepEqual(first.mesh.targets(), ["192.0.2.1", "192.0.2.2"]);
    await using crashed = await start(folder, { restarted: true, resume: false, given });
    assert.deepEqual(crashed.mesh.targets(), ["192.0.2.1", "192.0.2.2"]);
    await crashed.targets.forget(["192.0.2.1"]);
    await using resumed = await start(folder, { restarted: false, resume: true, given: [] });
    assert.deepEqual(resumed.mesh.targets(), ["192.0.2.2"]);
    await using launched = await start(folder, { restarted: false, resume: false, given: ["192.0.2.9"] });
    assert.deepEqual(launched.mesh.targets(), ["192.0.2.9"]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Targets keeps a name that nobody knows yet, and does not store what connect refused", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-targets-" });
  try {
    const given = ["no.such.host.invalid", "192.0.2.1"];
    await using one = await start(folder, { restarted: false, resume: false, given });
    assert.deepEqual(one.targets.unresolved, ["no.such.host.invalid"]);
    const { errors } = await one.targets.connect(["other.host.invalid", "192.0.2.2"], false);
    assert.equal(errors.length, 1);
    const stored = JSON.parse(await Deno.readTextFile(`${folder}/weave-targets.json`));
    assert.deepEqual(stored.data, ["192.0.2.1", "192.0.2.2", "no.such.host.invalid"]);
    await one.targets.connect([], true);
    assert.deepEqual([one.targets.unresolved, one.mesh.targets()], [[], []]);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("Targets goes on where nothing can be stored, and says so until something can", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-targets-" });
  try {
    await Deno.mkdir(`${folder}/weave-targets.json/in-the-way`, { recursive: true });
    await using one = await start(folder, { restarted: false, resume: false, given: ["192.0.2.1"] });
    await one.targets.markRunning();
    assert.deepEqual(one.mesh.targets(), ["192.0.2.1"]);
    assert.match(one.targets.warnings.join(), /^What a restart should know is not stored: .*weave-targets\.json/);
    await Deno.remove(`${folder}/weave-targets.json`, { recursive: true });
    await one.targets.connect(["192.0.2.2"], false);
    assert.deepEqual(one.targets.warnings, []);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

async function start(folder: string, options: { restarted: boolean; resume: boolean; given: readonly string[] }) {
  const mesh = new Mesh({
    name: 1 as PeerName,
    nickName: "a",
    uid: 1n,
    shortId: 1,
    port: 6783,
    overlays: ["sleeve"],
    extensions: [],
    discovery: true,
    connectionLimit: 0,
    trustedSubnets: [],
    random: new SeededRandom(1),
    log: SILENT,
  }, 0);
  const run = <T>(input: (now: number) => T): T => input(0);
  const targets = new Targets({ prefix: `${folder}/weave`, port: 6783, mesh, run, log: SILENT });
  await targets.start(options);
  return { mesh, targets, [Symbol.asyncDispose]: () => Promise.resolve(targets.stop()) };
}
