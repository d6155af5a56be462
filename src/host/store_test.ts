import assert from "node:assert/strict";
import { OperationError } from "../lib/errors.ts";
import { NewerVersionError, readBounded, StoreFile, type StoreFormat, writeAtomically } from "./store.ts";

Deno.test("StoreFile.read() returns what write() was given, and undefined before", () =>
  inDirectory(async (directory) => {
    const file = new StoreFile(`${directory}/deeper/thing.json`, FORMAT);
    assert.equal(await file.read(), undefined);
    await file.write({ names: ["a", "b"] });
    assert.deepEqual(await new StoreFile(file.path, FORMAT).read(), { names: ["a", "b"] });
    assert.deepEqual([...Deno.readDirSync(`${directory}/deeper`)].map((e) => e.name), ["thing.json"]);
    assert.equal(Deno.statSync(file.path).mode! & 0o777, 0o600);
  }));

Deno.test("StoreFile.write() keeps the order and skips what a later value replaces", () =>
  inDirectory(async (directory) => {
    const file = new StoreFile(`${directory}/thing.json`, FORMAT);
    await Promise.all(Array.from({ length: 50 }, (_, i) => file.write({ names: [String(i)] })));
    assert.deepEqual(await file.read(), { names: ["49"] });
  }));

Deno.test("StoreFile refuses a newer major version and never rewrites it", () =>
  inDirectory(async (directory) => {
    const text = '{"version":"2.0","data":{"names":7}}';
    Deno.writeTextFileSync(`${directory}/thing.json`, text);
    await assert.rejects(new StoreFile(`${directory}/thing.json`, FORMAT).read(), NewerVersionError);
    await assert.rejects(new StoreFile(`${directory}/thing.json`, FORMAT).write({ names: [] }), NewerVersionError);
    assert.equal(Deno.readTextFileSync(`${directory}/thing.json`), text);
  }));

Deno.test("StoreFile.read() takes a newer minor version", () =>
  inDirectory(async (directory) => {
    Deno.writeTextFileSync(`${directory}/thing.json`, '{"version":"1.9","data":{"names":["x"],"more":1}}');
    assert.deepEqual(await new StoreFile(`${directory}/thing.json`, FORMAT).read(), { names: ["x"] });
  }));

Deno.test("StoreFile.read() names the file and what is wrong with it", () =>
  inDirectory(async (directory) => {
    const path = `${directory}/thing.json`;
    const cases: [string, string][] = [
      ["", "not JSON"],
      ["{", "not JSON"],
      ["null", "it has no version"],
      ['{"version":1,"data":{}}', "it has no version"],
      ['{"version":"0.1","data":{}}', "version 0.1 is too old"],
      ['{"version":"1.0","data":{}}', "names are missing"],
    ];
    for (const [text, why] of cases) {
      Deno.writeTextFileSync(path, text);
      await assert.rejects(new StoreFile(path, FORMAT).read(), {
        name: "OperationError",
        message: `Cannot read thing file "${path}": ${why}`,
      });
    }
  }));

Deno.test("readBounded() does not read more than it was told", () =>
  inDirectory(async (directory) => {
    Deno.writeTextFileSync(`${directory}/a`, "x".repeat(100));
    assert.equal((await readBounded(`${directory}/a`, 100))?.length, 100);
    await assert.rejects(readBounded(`${directory}/a`, 99), OperationError);
    await assert.rejects(readBounded("/dev/zero", 200_000), OperationError);
    assert.equal(await readBounded(`${directory}/b`, 99), undefined);
  }));

Deno.test({
  name: "writeAtomically() leaves the old file and no other when the disk is full",
  ignore: Deno.uid() !== 0, // mounting a file system of one page needs root
  fn: () =>
    inDirectory(async (directory) => {
      await mustRun("mount", "-t", "tmpfs", "-o", "size=8k", "none", directory);
      try {
        await writeAtomically(`${directory}/a`, "old");
        await assert.rejects(writeAtomically(`${directory}/a`, "new".repeat(100_000)), OperationError);
        assert.equal(Deno.readTextFileSync(`${directory}/a`), "old");
        assert.deepEqual([...Deno.readDirSync(directory)].map((e) => e.name), ["a"]);
      } finally {
        await mustRun("umount", directory);
      }
    }),
});

const FORMAT: StoreFormat<{ names: string[] }> = {
  what: "thing",
  major: 1,
  minor: 2,
  check(data) {
    const names = (data as { names?: unknown }).names;
    if (!Array.isArray(names)) throw new Error("names are missing");
    return { names: names.map(String) };
  },
};

async function inDirectory(test: (directory: string) => Promise<void>): Promise<void> {
  const directory = await Deno.makeTempDir();
  try {
    await test(directory);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
}

async function mustRun(program: string, ...args: string[]): Promise<void> {
  const { success, stderr } = await new Deno.Command(program, { args }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
}
