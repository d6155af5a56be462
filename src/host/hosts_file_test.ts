import assert from "node:assert/strict";
import { parseIpv4 } from "../lib/ip.ts";
import { formatHosts, parseAddHost, replaceHosts } from "./hosts_file.ts";

Deno.test("formatHosts() puts each overlay address first, then what was added, then localhost", () => {
  const text = formatHosts({
    addresses: [parseIpv4("10.0.0.1")!, parseIpv4("10.100.100.100")!],
    hostname: "a",
    domainname: "weave.local.",
    addHosts: ["b:10.0.0.2", "c:fd00::1"],
  });
  assert.deepEqual(text.split("\n").filter((line) => !line.startsWith("#")).slice(0, 7), [
    "10.0.0.1        a.weave.local a",
    "10.100.100.100  a.weave.local a",
    "",
    "10.0.0.2        b",
    "fd00::1         c",
    "",
    "127.0.0.1       localhost",
  ]);
  assert.match(formatHosts({ addresses: [1], hostname: "a", domainname: "", addHosts: [] }), /^0\.0\.0\.1 {9}a$/m);
});

Deno.test("parseAddHost() refuses what would break the file", () => {
  for (const text of ["a", "a:", ":1.2.3.4", "a b:1.2.3.4", "a:1.2.3.4\n5.6.7.8 b", "a:host"]) {
    assert.throws(() => parseAddHost(text), { name: "OptionError" }, text);
  }
});

Deno.test("replaceHosts() reaches who has the old file open, and leaves a new one in its place", async () => {
  const directory = await Deno.makeTempDir();
  try {
    const path = `${directory}/hosts`;
    await Deno.writeTextFile(path, "127.0.0.1 localhost and more than the new text", { mode: 0o644 });
    using mounted = await Deno.open(path);
    const inode = (await mounted.stat()).ino;
    await replaceHosts(path, "new\n");
    assert.equal(await new Response(mounted.readable).text(), "new\n");
    assert.equal(await Deno.readTextFile(path), "new\n");
    const after = await Deno.stat(path);
    assert.notEqual(after.ino, inode);
    assert.equal(after.mode! & 0o777, 0o644);
    assert.deepEqual([...Deno.readDirSync(directory)].map((e) => e.name), ["hosts"]);
  } finally {
    await Deno.remove(directory, { recursive: true });
  }
});
