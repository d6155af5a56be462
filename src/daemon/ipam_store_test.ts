import assert from "node:assert/strict";
import { Life } from "../../test/ipam_life.ts";
import { SILENT } from "../lib/log.ts";
import { parseIpv4 } from "../lib/ip.ts";
import type { PeerName } from "../lib/mac.ts";
import { readVectors } from "../../test/ipam_vectors.ts";
import type { StoredIpam } from "../ipam/stored.ts";
import { elapsedSince, IpamStore } from "./ipam_store.ts";

const MOMENT = { boot: "b1", uptimeMs: 5_000, wallMs: 1_000_000 };
const EMPTY: StoredIpam = {
  name: 1 as PeerName,
  range: { address: parseIpv4("10.32.0.0")!, prefixLength: 12 },
  seeds: [],
  entries: [],
  held: [],
  reclaim: undefined,
};

Deno.test("elapsedSince() goes by the uptime within one boot, else by the wall clock as far as that can be believed", () => {
  assert.deepEqual(elapsedSince(MOMENT, { boot: "b1", uptimeMs: 7_000, wallMs: 0 }), { ms: 2_000, exact: true });
  assert.deepEqual(elapsedSince(MOMENT, { boot: "b2", uptimeMs: 10, wallMs: 1_060_000 }), { ms: 60_000, exact: false });
  assert.deepEqual(elapsedSince(MOMENT, { boot: "b2", uptimeMs: 10, wallMs: 0 }), { ms: Infinity, exact: false });
  assert.deepEqual(elapsedSince({ ...MOMENT, boot: "" }, { boot: "", uptimeMs: 0, wallMs: 1_000_001 }), {
    ms: 1,
    exact: false,
  });
});

Deno.test("IpamStore writes the last of what changed meanwhile, and reads it", async () => {
  await using directory = await temporaryDirectory();
  const store = new IpamStore(`${directory.path}/p`, SILENT);
  assert.equal(await store.read(), undefined);
  let revision = 0;
  const taken: number[] = [];
  const done: number[] = [];
  const ended = Promise.withResolvers<void>();
  const take = () => {
    taken.push(revision);
    return { revision, stored: { ...EMPTY, seeds: [revision as PeerName] } };
  };
  const isDone = (stored: number) => {
    done.push(stored);
    if (stored === 9) ended.resolve();
  };
  for (revision = 1; revision < 10; revision++) store.write(take, isDone);
  revision = 9;
  await ended.promise;
  await store.stop();
  assert.deepEqual(taken, [1, 9]);
  assert.deepEqual(done, [1, 9]);
  const again = await new IpamStore(`${directory.path}/p`, SILENT).read();
  assert.deepEqual(again?.stored.seeds, [9]);
  assert.equal(again?.elapsed.exact, true);
});

Deno.test("IpamStore goes on trying where it cannot write, and says why", async () => {
  await using directory = await temporaryDirectory();
  const prefix = `${directory.path}/not-a-directory/p`;
  await Deno.writeTextFile(`${directory.path}/not-a-directory`, "");
  const store = new IpamStore(prefix, SILENT);
  store.write(() => ({ revision: 1, stored: EMPTY }), () => assert.fail("it is not written"));
  await store.stop();
  assert.match(store.trouble!, /Cannot (read|write)/);
});

Deno.test("IpamStore refuses a file that it does not understand, as others may use what it holds", async () => {
  await using directory = await temporaryDirectory();
  const path = `${directory.path}/p-ipam.json`;
  const reading = () => new IpamStore(`${directory.path}/p`, SILENT).read();
  for (
    const [text, message] of [
      ["{", /not JSON/],
      ['{"version":"1.0","data":{}}', /when it was written/],
      ['{"version":"2.0","data":{}}', /at most 1\.x is understood/],
    ] as const
  ) {
    await Deno.writeTextFile(path, text);
    await assert.rejects(reading(), message);
  }
});

Deno.test("what Weave Net 2.8 stores can be stored and read again", async () => {
  await using directory = await temporaryDirectory();
  interface Vector {
    key: string;
    value: Record<string, { IsContainer: boolean; Cidrs: { Addr: string; PrefixLen: number }[] }>;
  }
  const owned = readVectors<{ values: Vector[] }>("persistence.json").values.filter(({ key }) =>
    key === "ownedAddresses"
  );
  assert.ok(owned.length > 1);
  for (const [i, { value }] of owned.entries()) {
    const held = Object.entries(value).map(([id, { IsContainer, Cidrs }]) =>
      [id, {
        isContainer: IsContainer,
        cidrs: Cidrs.map(({ Addr, PrefixLen }) => ({ address: parseIpv4(Addr)!, prefixLength: PrefixLen })),
      }] as const
    );
    const stored = { ...EMPTY, held };
    const store = new IpamStore(`${directory.path}/v${i}`, SILENT);
    await new Promise<void>((resolve) => store.write(() => ({ revision: 1, stored }), () => resolve()));
    await store.stop();
    assert.deepEqual((await store.read())?.stored, stored);
  }
});

Deno.test("no address is given out twice, whatever a process is killed before while it stores", async () => {
  await using directory = await temporaryDirectory();
  let points = 0;
  for (let ended = false; !ended;) {
    const some = [1, 2, 3, 4].map((i) => points + i);
    const lives = await Promise.all(some.map((point) => liveAndDie(`${directory.path}/${point}`, point)));
    for (const [i, lines] of lives.entries()) {
      await checkNextLife(`${directory.path}/${some[i]}`, lines, `killed at point ${some[i]}`);
    }
    points += some.length;
    ended = lives.some((lines) => lines.at(-1) === "END");
  }
  console.log(`about ${points} points`);
  assert.ok(points > 50);
});

/** What it said before it was killed. */
async function liveAndDie(prefix: string, point: number): Promise<string[]> {
  const script = new URL("../../test/ipam_life.ts", import.meta.url).pathname;
  const args = ["run", "--quiet", "--allow-all", "--no-prompt", "--no-check", script, prefix, String(point)];
  const { stdout, stderr, signal, code } = await new Deno.Command(Deno.execPath(), { args }).output();
  assert.ok(signal === "SIGKILL" || code === 0, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout).split("\n").filter((line) => line !== "");
}

/** Whatever the next life gives out, nobody has it, and it is not the other peer's. */
async function checkNextLife(prefix: string, said: readonly string[], note: string): Promise<void> {
  const inUse = new Map<string, string>();
  const theirs: [number, number][] = [];
  for (const [word, a, b] of said.map((line) => line.split(" "))) {
    if (word === "GOT") inUse.set(a!, b!);
    else if (word === "FREED") inUse.delete(a!);
    else if (word === "GAVE") theirs.push([parseIpv4(a!)!, parseIpv4(b!)!]);
  }
  const life = new Life(prefix, () => {});
  await life.start();
  const given: string[] = [];
  for (let i = 0; i < 20; i++) {
    const cidr = await Promise.race([life.allocate(`next${i}`), later()]);
    if (cidr === undefined) break;
    assert.ok(
      !theirs.some(([start, end]) => cidr.address >= start && cidr.address < end),
      `${note}: it was given away`,
    );
    given.push(`${[24, 16, 8, 0].map((shift) => cidr.address >>> shift & 0xff).join(".")}/26`);
  }
  await life.stop();
  const all = [...inUse.values(), ...given];
  assert.equal(new Set(all).size, all.length, `${note}: ${all}`);
}

/** Space may be used up: then an allocation waits. */
function later(): Promise<undefined> {
  return new Promise((resolve) => setTimeout(() => resolve(undefined), 200));
}

async function temporaryDirectory(): Promise<AsyncDisposable & { path: string }> {
  const path = await Deno.makeTempDir();
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path, { recursive: true }) };
}
