import assert from "node:assert/strict";
import { resolveBelow, run } from "./command.ts";

Deno.test("resolveBelow() follows links as they lead below that root", async () => {
  const root = await Deno.realPath(await Deno.makeTempDir());
  try {
    for (const folder of ["usr/sbin", "etc/alternatives"]) await Deno.mkdir(`${root}/${folder}`, { recursive: true });
    await Deno.writeTextFile(`${root}/usr/sbin/iptables-nft`, "");
    await Deno.symlink("/usr/sbin/iptables-nft", `${root}/etc/alternatives/iptables`);
    await Deno.symlink("/etc/alternatives/iptables", `${root}/usr/sbin/iptables`);
    await Deno.symlink("usr/sbin", `${root}/sbin`);
    await Deno.symlink("../../../../usr/sbin/iptables", `${root}/sbin/up`);
    const end = `${root}/usr/sbin/iptables-nft`;
    for (const path of ["/usr/sbin/iptables", "/sbin/iptables", "/sbin/up", "/../sbin/./iptables"]) {
      assert.equal(resolveBelow(root, path), end, path);
    }
    await Deno.symlink("/loop", `${root}/loop`);
    assert.throws(() => resolveBelow(root, "/loop"), /Cannot follow "\/loop": its links go in a circle/);
    assert.throws(() => resolveBelow(root, "/none"), Deno.errors.NotFound);
  } finally {
    await Deno.remove(root, { recursive: true });
  }
});

Deno.test("run() feeds a program with text or a stream, and does not mind one that does not read", async () => {
  assert.equal((await run("/bin/cat", [], { input: "text" })).stdout, "text");
  const pieces = ["a", "b", "c"].map((text) => new TextEncoder().encode(text));
  assert.equal((await run("/bin/cat", [], { input: ReadableStream.from(pieces) })).stdout, "abc");
  const large = ReadableStream.from(Array.from({ length: 64 }, () => new Uint8Array(1 << 16)));
  assert.equal((await run("/bin/true", [], { input: large })).code, 0);
  assert.equal((await run("/bin/sh", ["-c", "echo $X"], { env: { X: "y" } })).stdout, "y\n");
});
