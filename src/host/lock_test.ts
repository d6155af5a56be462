import assert from "node:assert/strict";
import { withLock } from "./lock.ts";

Deno.test("withLock() lets one in at a time, in this process and from others", async () => {
  const directory = await Deno.makeTempDir();
  try {
    let inside = 0;
    const path = `${directory}/run/lock`;
    const one = () =>
      withLock(path, async () => {
        assert.equal(++inside, 1);
        await new Promise((resolve) => setTimeout(resolve, 5));
        inside--;
      });
    await Promise.all([one(), one(), one()]);
    const other = () => new Deno.Command("flock", { args: ["--nonblock", path, "true"] }).output();
    await withLock(path, async () => assert.equal((await other()).code, 1));
    assert.equal((await other()).code, 0);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("withLock() keeps others out when its holder removes the file", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/run/lock`;
    const order: string[] = [];
    const first = withLock(path, async () => {
      await new Promise((resolve) => setTimeout(resolve, 30));
      order.push("first");
      await Deno.remove(`${directory}/run`, { recursive: true });
    });
    await new Promise((resolve) => setTimeout(resolve, 10));
    const later = ["second", "third"].map((name) =>
      withLock(path, () => {
        order.push(name);
      })
    );
    await Promise.all([first, ...later]);
    assert.equal(order[0], "first");
    assert.equal(order.length, 3);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("withLock() leaves the work under it its threads, however many wait", async () => {
  const directory = await Deno.makeTempDir();
  try {
    let done = 0;
    // More than a runtime has threads for.
    const all = Array.from({ length: 200 }, () =>
      withLock(`${directory}/lock`, async () => {
        await Deno.writeTextFile(`${directory}/count`, String(++done));
      }));
    await Promise.all(all);
    assert.equal(await Deno.readTextFile(`${directory}/count`), "200");
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});

Deno.test("withLock() lets go when the work fails", async () => {
  const directory = await Deno.makeTempDir();
  try {
    await assert.rejects(withLock(`${directory}/lock`, () => Promise.reject(new Error("broken"))), /broken/);
    assert.equal(await withLock(`${directory}/lock`, () => 7), 7);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
