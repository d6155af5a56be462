import assert from "node:assert/strict";
import { EventFd } from "./eventfd.ts";
import { DescriptorTrace } from "./fd.ts";
import { Poller } from "./poller.ts";

const READ = { readable: true, writable: false };

Deno.test("Poller tells of what becomes ready while it waits, also of what was added meanwhile", async () => {
  using trace = new DescriptorTrace();
  {
    const poller = new Poller();
    using first = new EventFd(), second = new EventFd();
    const told: string[] = [];
    poller.watch(first.fd, READ, (ready) => {
      first.drain();
      told.push(`first ${ready.readable} ${ready.writable}`);
    });
    await delay(10);
    poller.watch(second.fd, READ, () => {
      second.drain();
      told.push("second");
    });
    second.signal();
    await until(() => told.length === 1);
    first.signal();
    await until(() => told.length === 2);
    assert.deepEqual(told, ["second", "first true false"]);
    await poller.stop();
    await poller.stop();
  }
  assert.deepEqual(trace.left(), []);
});

Deno.test("Poller tells again of what was left undone, and no more after change() or remove()", async () => {
  const poller = new Poller();
  using event = new EventFd();
  let told = 0;
  const watch = poller.watch(event.fd, READ, () => void told++);
  event.signal();
  await until(() => told >= 3);
  watch.change(false, false);
  await delay(10);
  const paused = told;
  await delay(20);
  assert.equal(told, paused);
  watch.change(true, false);
  await until(() => told > paused);
  watch.remove();
  await delay(10);
  const removed = told;
  watch.change(true, false);
  await delay(20);
  assert.equal(told, removed);
  await poller.stop();
});

Deno.test("Poller never calls back for what another callback of the same round removed", async () => {
  const poller = new Poller();
  using a = new EventFd(), b = new EventFd();
  const told: string[] = [];
  const both = [a, b].map((event, i) =>
    poller.watch(event.fd, READ, () => {
      told.push(`${i}`);
      for (const watch of both) watch.remove();
    })
  );
  a.signal();
  b.signal();
  await until(() => told.length > 0);
  await delay(20);
  assert.equal(told.length, 1);
  await poller.stop();
});

Deno.test("Poller serves more descriptors than fit into one round", async () => {
  const poller = new Poller();
  const events = Array.from({ length: 300 }, () => new EventFd());
  let told = 0;
  for (const event of events) {
    poller.watch(event.fd, READ, () => {
      if (event.drain()) told++;
    });
    event.signal();
  }
  await until(() => told === 300);
  await poller.stop();
  for (const event of events) event.fd.close();
});

Deno.test("an error in a callback is reported, and the others are served all the same", async () => {
  const poller = new Poller();
  using bad = new EventFd(), good = new EventFd();
  const reported: string[] = [];
  const listener = (event: ErrorEvent) => {
    event.preventDefault();
    reported.push(event.message);
  };
  addEventListener("error", listener);
  let told = 0;
  poller.watch(bad.fd, READ, () => {
    bad.drain();
    throw new Error("thrown");
  });
  poller.watch(good.fd, READ, () => {
    good.drain();
    told++;
  });
  bad.signal();
  await until(() => reported.length === 1);
  good.signal();
  await until(() => told === 1);
  removeEventListener("error", listener);
  assert.match(reported[0]!, /thrown/);
  await poller.stop();
});

Deno.test("a process ends with a poller that waits, when it is told to or dies", async () => {
  const poller = JSON.stringify(new URL("./poller.ts", import.meta.url).href);
  const event = JSON.stringify(new URL("./eventfd.ts", import.meta.url).href);
  const start = `import { Poller } from ${poller}; import { EventFd } from ${event};
    const poller = new Poller(); poller.watch(new EventFd().fd, { readable: true, writable: false }, () => {});
    await new Promise((resolve) => setTimeout(resolve, 20));`;
  for (
    const [end, status] of [["Deno.exit(3)", 3], ["throw new Error('thrown')", 1], ["await poller.stop()", 0]] as const
  ) {
    const child = new Deno.Command(Deno.execPath(), { args: ["eval", "--no-lock", `${start} ${end}`], stderr: "null" })
      .spawn();
    const timer = setTimeout(() => child.kill("SIGKILL"), 5000);
    assert.equal((await child.status).code, status, end);
    clearTimeout(timer);
  }
});

function delay(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}

async function until(done: () => boolean): Promise<void> {
  for (const limit = performance.now() + 5000; performance.now() < limit;) {
    if (done()) return;
    await delay(1);
  }
  assert.fail("did not come to pass within 5 s");
}
