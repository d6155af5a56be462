import assert from "node:assert/strict";
// Loads libc now, not in the middle of a test.
import "../../ffi/inheritance.ts";
import {
  findRunning,
  isAlive,
  lastRecord,
  processId,
  recordRouter,
  type Running,
  startRouter,
  stopRouter,
  variableOf,
} from "./process.ts";

const RECORD = { version: "1.2.3", given: new Map([["port", ["6783"]]]), peers: ["host1"] };

Deno.test("processId() tells a process from another with its number", () => {
  const own = processId(Deno.pid)!;
  assert.ok(isAlive(own));
  assert.ok(!isAlive({ ...own, startTicks: own.startTicks - 1 }));
  assert.ok(!isAlive({ ...own, bootId: "another" }));
  assert.equal(processId(0x7fffffff), undefined);
});

Deno.test("isAlive() is false of a process that ended and was not waited for", async () => {
  // The shell becomes a program that waits for nobody.
  const parent = new Deno.Command("sh", { args: ["-c", "sh -c 'exit 0' & exec sleep 5"] }).spawn();
  try {
    const child = await waitFor(() => childrenOf(parent.pid)[0]);
    await waitFor(() => Deno.readTextFileSync(`/proc/${child}/stat`).includes(") Z "));
    assert.ok(!isAlive(processId(child)!));
  } finally {
    parent.kill("SIGKILL");
    await parent.status;
  }
});

Deno.test("findRunning() finds what was recorded and lives, lastRecord() what was recorded", async () => {
  await using place = await Place.make();
  assert.equal(await findRunning(place.runDir), undefined);
  assert.equal(await lastRecord(place.runDir), undefined);
  await recordRouter({ ...RECORD, invocation: "abc" }, place.runDir);
  const running = await findRunning(place.runDir);
  assert.deepEqual(running?.record, { ...RECORD, invocation: "abc", process: processId(Deno.pid) });
  assert.deepEqual(running?.router, running?.record);
  assert.equal(Deno.statSync(`${place.runDir}/router.json`).mode! & 0o777, 0o644, "commands of any user read it");

  const file = `${place.runDir}/router.json`;
  await Deno.writeTextFile(file, (await Deno.readTextFile(file)).replace(/"startTicks":\d+/, '"startTicks":1'));
  assert.equal(await findRunning(place.runDir), undefined);
  assert.equal((await lastRecord(place.runDir))?.version, "1.2.3");
  await Deno.writeTextFile(file, "{");
  assert.equal(await findRunning(place.runDir), undefined);
  await recordRouter(RECORD, place.runDir);
  assert.equal((await findRunning(place.runDir))?.record.version, "1.2.3");
});

Deno.test("startRouter() detaches, logs, and stopRouter() leaves no process behind", async () => {
  await using place = await Place.make();
  const started = await place.start('echo "$SECRET $0"; exec sleep 100', { restart: true });
  const loop = await place.supervisor();
  const router = await waitFor(() => childrenOf(loop)[0]);
  assert.equal(await waitFor(() => commOf(router) === "sleep" && "sleep"), "sleep");
  const { sid, ppid } = statOf(loop);
  assert.equal(sid, loop, "it leads a session of its own");
  assert.equal(ppid, Deno.pid);
  assert.equal(variableOf({ pid: router, startTicks: 0, bootId: "" }, "SECRET"), "s3cret");
  assert.doesNotMatch(Deno.readTextFileSync(`/proc/${loop}/cmdline`), /s3cret/);
  assert.equal(await started.log(), "s3cret router\n");

  const before = performance.now();
  await place.stop();
  assert.ok(performance.now() - before < 2_000, "the loop hands the signal on at once");
  assert.ok(!isThere(router) && !isThere(loop));
  assert.equal(await started.ended, 0);
  assert.equal(await findRunning(place.runDir), undefined);
});

Deno.test("startRouter() starts a router again that came up and died", async () => {
  await using place = await Place.make();
  const started = await place.start("echo started; exec sleep 100", { restart: true });
  const loop = await place.supervisor();
  const first = await waitFor(() => sleeperOf(loop));
  started.confirm();
  await new Promise((resolve) => setTimeout(resolve, 50));
  Deno.kill(first, "SIGKILL");
  const second = await waitFor(() => {
    const pid = sleeperOf(loop);
    return pid === first ? undefined : pid;
  });
  assert.match(
    await started.log(),
    /^started\nWARN: \d{4}\/\d\d\/\d\d \d\d:\d\d:\d\d\.\d{6} router ended status=137 lived_s=\d restart_in_s=0\nstarted\n$/,
  );
  // The next time it waits, and ends in the middle of that.
  Deno.kill(second, "SIGKILL");
  await waitFor(async () => (await started.log()).includes("restart_in_s=1"));
  await place.stop();
  assert.equal(await started.ended, 0);
  assert.deepEqual((await started.log()).match(/^started$/mg)?.length, 2);
});

Deno.test("startRouter() does not start a router again that never came up", async () => {
  await using place = await Place.make();
  const started = await place.start("echo no; exit 5", { restart: true });
  assert.equal(await started.ended, 5);
  assert.equal(await started.log(), "no\n");
  assert.equal(await findRunning(place.runDir), undefined);
});

Deno.test("startRouter() starts it once where it is not to be restarted", async () => {
  await using place = await Place.make();
  const started = await place.start("exec sleep 100", { restart: false });
  const pid = await place.supervisor();
  await waitFor(() => commOf(pid) === "sleep");
  started.confirm();
  Deno.kill(pid, "SIGKILL");
  assert.equal(await started.ended, 137);
});

Deno.test("stopRouter() kills a router that does not want to end", async () => {
  await using place = await Place.make();
  const started = await place.start('trap "" TERM; while :; do sleep 0.05; done', { restart: true });
  const loop = await place.supervisor();
  const router = await waitFor(() => childrenOf(loop)[0]);
  const { ended } = started;
  await waitFor(() => commOf(router) === "sh" && childrenOf(router).length > 0);
  await stopRouter((await findRunning(place.runDir))!, { runDir: place.runDir, graceMs: 300 });
  assert.ok(!isThere(loop));
  await waitFor(() => !isThere(router));
  assert.equal(await ended, 137);
});

Deno.test("stopRouter() signals nobody who has the number of a router that is gone", async () => {
  await using place = await Place.make();
  const other = new Deno.Command("sleep", { args: ["100"] }).spawn();
  const process = { ...processId(other.pid)!, startTicks: 1 };
  const running: Running = { router: { ...RECORD, process }, supervisor: undefined, record: { ...RECORD, process } };
  await stopRouter(running, { runDir: place.runDir });
  assert.ok(isThere(other.pid));
  other.kill("SIGKILL");
  await other.status;
});

/** A directory for records and a log. */
class Place implements AsyncDisposable {
  constructor(readonly runDir: string) {}

  static async make(): Promise<Place> {
    return new Place(await Deno.makeTempDir({ prefix: "weave-process-" }));
  }

  start(script: string, { restart }: { restart: boolean }) {
    return startRouter({
      command: ["sh", "-c", script, "router"],
      env: { PATH: Deno.env.get("PATH")!, SECRET: "s3cret" },
      logFile: `${this.runDir}/weave.log`,
      restart,
      record: RECORD,
      runDir: this.runDir,
    });
  }

  async supervisor(): Promise<number> {
    return (await findRunning(this.runDir))!.supervisor!.process.pid;
  }

  async stop(): Promise<void> {
    await stopRouter((await findRunning(this.runDir))!, { runDir: this.runDir });
  }

  async [Symbol.asyncDispose](): Promise<void> {
    const running = await findRunning(this.runDir);
    // One test is its own router.
    if (running !== undefined && running.router?.process.pid !== Deno.pid) {
      await stopRouter(running, { runDir: this.runDir, graceMs: 0 });
    }
    await Deno.remove(this.runDir, { recursive: true });
  }
}

async function waitFor<T>(ask: () => T | Promise<T>): Promise<NonNullable<T>> {
  for (const deadline = performance.now() + 5_000;;) {
    const answer = await ask();
    if (answer) return answer;
    if (performance.now() > deadline) throw new Error(`Waited in vain for ${ask}`);
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function childrenOf(pid: number): number[] {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/task/${pid}/children`).split(" ").filter(Boolean).map(Number);
  } catch {
    return [];
  }
}

function sleeperOf(loop: number): number | undefined {
  return childrenOf(loop).find((pid) => commOf(pid) === "sleep");
}

function commOf(pid: number): string | undefined {
  try {
    return Deno.readTextFileSync(`/proc/${pid}/comm`).trim();
  } catch {
    return undefined;
  }
}

function statOf(pid: number): { ppid: number; sid: number } {
  const fields = Deno.readTextFileSync(`/proc/${pid}/stat`).replace(/^.*\) /, "").split(" ");
  return { ppid: Number(fields[1]), sid: Number(fields[3]) };
}

function isThere(pid: number): boolean {
  return commOf(pid) !== undefined;
}
