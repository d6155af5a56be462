/** Services that move while a thousand clients a second come, and what becomes of connections when one is drained or revoked. */

import assert from "node:assert/strict";
import { Lab } from "./lab.ts";
import { attachNew, waitEstablished } from "./mesh.ts";
import {
  ask,
  type Attempt,
  Clients,
  type Machine,
  serveMany,
  serveName,
  service,
  show,
  talk,
  tally,
  waitAnswer,
  waitKnown,
  waitShown,
} from "./services.ts";
import { delay, measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

const RATE = 1_000, SECONDS = 20;

/** How long each client stays: 0.5 to 1.5 times that. */
const HOLD_MS = 1_000;

/** A busy machine may lose a packet, which is no failure: TCP sends it again after 1 s, 3 s and 7 s. */
const PATIENCE_MS = 15_000;

/** From `revoke` to the last connection's end. */
const REVOKE_MS = 1_000;

/**
 *     site: two machines ── exporter ══ mesh ══ importer ── old, new
 *                           └ c1, c2 (containers)
 */
async function setting(lab: Lab) {
  const [exporter, importer] = [await lab.host("exporter"), await lab.host("importer")];
  const [m1, m2] = [await lab.host("m1"), await lab.host("m2")];
  const [before, after] = [await lab.host("before"), await lab.host("after")];
  await lab.link(exporter, importer);
  await lab.switch([exporter, m1, m2], ["192.168.50.1", "192.168.50.10", "192.168.50.11"]);
  await lab.switch([importer, before, after], ["192.168.50.1", "192.168.50.10", "192.168.50.11"]);
  await importer.weave("launch");
  await exporter.weave("launch", importer.address(exporter));
  await waitEstablished(importer, [exporter]);
  const [c1, c2] = [await attachNew(exporter, "c1"), await attachNew(exporter, "c2")];
  for (const machine of [before, after]) await serveMany(machine, 7000);
  const address = await service(importer, "import", "db", "--to", `${before.address()}:7000`);
  await waitKnown(exporter, "db");
  await service(exporter, "export", "db", "--listen", "8000");
  await waitAnswer(c1, address, 7000, "before", { witnesses: [exporter, importer] });
  await waitAnswer(m1, "192.168.50.1", 8000, "before");
  const virtual = { address, port: 7000 }, exported = { address: "192.168.50.1", port: 8000 };
  const clients: readonly (readonly [Machine, typeof virtual])[] = [
    [c1, virtual],
    [c2, virtual],
    [m1, exported],
    [m2, exported],
  ];
  return { exporter, importer, before, after, c1, m1, address, clients };
}

testAsRoot(
  "bind under load: no connection fails, none is cut, and the old place may go when it is drained",
  async () => {
    await using lab = new Lab();
    const { importer, after, clients } = await setting(lab);
    await using running = new AsyncDisposableStack();
    const load = clients.map(([machine, to]) =>
      running.use(
        new Clients(machine, to, {
          rate: RATE / clients.length,
          seconds: SECONDS,
          holdMs: HOLD_MS,
          patienceMs: PATIENCE_MS,
        }),
      )
    );
    await delay(SECONDS / 2 * 1_000);
    const bound = await measure(() => service(importer, "bind", "db", `${after.address()}:7000`));
    const atBind = Date.now();
    const attempts = (await Promise.all(load.map((one) => one.finished(60_000)))).flat();

    const bad = attempts.filter(({ ok }) => !ok);
    const late = attempts.filter(({ started, server }) => started > atBind && server === "before");
    console.log(`${attempts.length} connections: ${JSON.stringify(tally(attempts))}; bind took ${bound} ms`);
    assert.deepEqual(bad.slice(0, 10), [], `${bad.length} of ${attempts.length} failed`);
    assert.ok(attempts.length >= RATE * SECONDS * 0.95, `${attempts.length} connections`);
    assert.ok(Object.keys(tally(attempts)).length === 2);
    // Whoever began before the command ended may be at the old place, nobody after it.
    assert.deepEqual(late.slice(0, 10), []);
    assert.ok(longest(attempts.filter(({ server }) => server === "before")) > HOLD_MS / 2);
  },
);

/** The longest that a connection lasted, in milliseconds. */
function longest(attempts: readonly Attempt[]): number {
  return attempts.reduce((most, { started, ended }) => Math.max(most, ended - started), 0);
}

testAsRoot("bind lets a connection finish where it is, and revoke ends all within a second", async () => {
  await using lab = new Lab();
  const { exporter, importer, before, after, c1, m1, address } = await setting(lab);
  const talkers = [talk(c1, address, 7000), talk(m1, "192.168.50.1", 8000)];
  for (const talker of talkers) await waitFor("an echo", () => talker.stdout.includes("tick"), 5_000);

  await service(importer, "bind", "db", `${after.address()}:7000`);
  await waitAnswer(c1, address, 7000, "after", { deadlineMs: 3_000 });
  await waitAnswer(m1, "192.168.50.1", 8000, "after", { deadlineMs: 3_000 });
  for (const talker of talkers) {
    const length = talker.stdout.length;
    await waitFor("the old connection to go on", () => talker.stdout.length > length + 20, 3_000);
    assert.match(talker.stdout, /^before\n/);
  }

  const more = [talk(c1, address, 7000), talk(m1, "192.168.50.1", 8000)];
  for (const talker of more) await waitFor("an echo", () => talker.stdout.includes("tick"), 5_000);
  const all = [...talkers, ...more];
  const server = () => Promise.all([before, after].map((one) => one.sh("ss -Htn state established sport = :7000")));
  assert.ok((await server()).every((text) => text !== ""));
  // A program that starts takes its time where others want the processor too.
  const starting = await measure(() => importer.weave("version"));
  const took = await measure(async () => {
    await service(importer, "revoke", "db");
    await waitFor("the end of all connections", () => all.every(({ ended }) => ended), 5_000);
    await waitFor("their end at the servers", async () => (await server()).join("") === "", 5_000);
  });
  console.log(`revoked in ${took} ms, of which the command took ${starting} ms to start`);
  assert.ok(took - starting < REVOKE_MS, `${took} ms`);
  for (const talker of all) assert.match((await talker.finished()).stderr, /reset by peer/i, "told by a reset");

  // Refused at once, not left to wait.
  const refused = await measure(async () => assert.equal(await ask(c1, address, 7000), ""));
  assert.ok(refused < 1_000, `${refused} ms`);
  assert.equal(await ask(m1, "192.168.50.1", 8000), "");
  await service(importer, "bind", "db", `${before.address()}:7000`);
  await waitAnswer(c1, address, 7000, "before", { deadlineMs: 3_000, witnesses: [importer, exporter] });
  await waitAnswer(m1, "192.168.50.1", 8000, "before", { deadlineMs: 3_000 });
});

testAsRoot("bind to another port of the same machine tells how many are still at the former one", async () => {
  await using lab = new Lab();
  const { importer, before, c1, address } = await setting(lab);
  await serveMany(before, 7001);
  const old = talk(c1, address, 7000);
  await waitFor("an echo", () => old.stdout.includes("tick"), 5_000);
  await service(importer, "bind", "db", `${before.address()}:7001`);
  const moved = (flows: number, former: number) =>
    waitShown(importer, "db", `moved, with ${flows} flows and ${former} former ones`, ({ imports, warnings }) => {
      const { target, flows: now } = imports[0]!.backends[0]!;
      const still = warnings.find((line) => line.startsWith("Connections that are still where "));
      return target.endsWith(":7001") && now === flows && (still?.endsWith(`: ${former}`) ?? former === 0);
    });
  await moved(0, 1);
  const now = talk(c1, address, 7000);
  await waitFor("an echo", () => now.stdout.includes("tick"), 5_000);
  await moved(1, 1);
  const length = old.stdout.length;
  await waitFor("the old connection to go on", () => old.stdout.length > length + 20, 3_000);
  old.signal("SIGTERM");
  await moved(1, 0);
  const again = talk(c1, address, 7000);
  await waitFor("an echo", () => again.stdout.includes("tick"), 5_000);
  await service(importer, "bind", "db", `${before.address()}:7000`);
  await waitShown(importer, "db", "back", ({ warnings }) => warnings.some((line) => line.endsWith("before: 2")));
  await service(importer, "revoke", "db");
  await waitFor("the end of all at the former port", () => now.ended && again.ended, 5_000);
});

testAsRoot("revoke under load ends all within a second", async () => {
  await using lab = new Lab();
  const { importer, clients } = await setting(lab);
  await using running = new AsyncDisposableStack();
  const load = clients.map(([machine, to]) =>
    running.use(
      new Clients(machine, to, { rate: RATE / clients.length, seconds: 8, holdMs: HOLD_MS, patienceMs: PATIENCE_MS }),
    )
  );
  await delay(5_000);
  const starting = await measure(() => importer.weave("version"));
  const revoked = Date.now() + starting;
  await service(importer, "revoke", "db");
  const attempts = (await Promise.all(load.map((one) => one.finished(60_000)))).flat();
  const cut = attempts.filter(({ text }) => text.startsWith("cut"));
  const last = Math.max(...cut.map(({ ended }) => ended)) - revoked;
  console.log(`${attempts.length} connections, ${cut.length} cut, the last after ${last} ms`);
  assert.ok(last < REVOKE_MS, `${last} ms`);
  assert.ok(cut.length > RATE * HOLD_MS / 1_000 / 3, `${cut.length} cut`);
  assert.deepEqual(attempts.filter(({ ok, started }) => ok && started > revoked + REVOKE_MS).slice(0, 5), []);
  const stuck = attempts.filter(({ ended, text }) => text.startsWith("cut") && ended > revoked + REVOKE_MS);
  assert.deepEqual(stuck.slice(0, 5), []);
  assert.equal((await show(importer, "db")).imports[0]!.backends.reduce((sum, { flows }) => sum + (flows ?? 0), 0), 0);
});

testAsRoot("drain takes no new connections and shows how many are left", async () => {
  await using lab = new Lab();
  const { importer, c1, address } = await setting(lab);
  const talker = talk(c1, address, 7000);
  await waitFor("an echo", () => talker.stdout.includes("tick"), 5_000);
  const printed = await service(importer, "drain", "db");
  assert.match(printed, /\b1\b/);
  assert.equal(await ask(c1, address, 7000), "");
  const length = talker.stdout.length;
  await waitFor("the connection to go on", () => talker.stdout.length > length + 20, 3_000);
  assert.equal((await show(importer, "db")).imports[0]!.backends[0]!.flows, 1);
  talker.signal("SIGTERM");
  await waitShown(importer, "db", "drained", ({ imports }) => imports[0]!.backends[0]!.flows === 0);
  await service(importer, "bind", "db", "192.168.50.10:7000");
  await waitAnswer(c1, address, 7000, "before", { deadlineMs: 3_000 });
});

testAsRoot("a backend that a container's name stands for moves with the container", async () => {
  await using lab = new Lab();
  const { exporter, importer, m1 } = await setting(lab);
  const first = await importer.container("web1");
  await importer.weave("attach", "--hostname", "web.weave.local", first.reference);
  await serveName(first, 80);
  await service(exporter, "export", "web.weave.local:80", "--listen", "81");
  await waitAnswer(m1, "192.168.50.1", 81, "web1", { witnesses: [exporter, importer] });
  const second = await exporter.container("web2");
  await exporter.weave("attach", "--hostname", "web.weave.local", second.reference);
  await serveName(second, 80);
  await importer.weave("detach", first.reference);
  await first.remove();
  await waitAnswer(m1, "192.168.50.1", 81, "web2", { deadlineMs: 10_000, witnesses: [exporter] });
});
