import assert from "node:assert/strict";
import { TAR_BLOCK, TAR_END_OCTETS, type TarEntry, tarHeader, tarPadding } from "./tar.ts";

Deno.test("tarHeader() is what tar reads, with files in between", async () => {
  const content = new TextEncoder().encode("hello\n");
  const entries: TarEntry[] = [
    { type: "directory", name: "lib", mode: 0o755 },
    { type: "file", name: "lib/a", mode: 0o640, octets: content.length },
    { type: "symlink", name: "lib64", target: "lib" },
  ];
  const pieces: Uint8Array<ArrayBuffer>[] = [];
  for (const entry of entries) {
    pieces.push(tarHeader(entry));
    if (entry.type === "file") pieces.push(content, new Uint8Array(tarPadding(entry.octets)));
  }
  pieces.push(new Uint8Array(TAR_END_OCTETS));
  const folder = await Deno.makeTempDir();
  try {
    const path = `${folder}/a.tar`;
    await Deno.writeFile(path, new Uint8Array(await new Blob(pieces).arrayBuffer()));
    const tar = async (...args: string[]) => {
      const { success, stdout, stderr } = await new Deno.Command("tar", { args, env: { TZ: "UTC" } }).output();
      assert.ok(success, new TextDecoder().decode(stderr));
      return new TextDecoder().decode(stdout);
    };
    assert.equal(
      (await tar("--numeric-owner", "-tvf", path)).replace(/ +/g, " "),
      "drwxr-xr-x 0/0 0 1970-01-01 00:00 lib/\n" +
        "-rw-r----- 0/0 6 1970-01-01 00:00 lib/a\n" +
        "lrwxrwxrwx 0/0 0 1970-01-01 00:00 lib64 -> lib\n",
    );
    assert.equal(await tar("-xOf", path, "lib/a"), "hello\n");
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("tarHeader() refuses a name that does not fit", () => {
  assert.throws(() => tarHeader({ type: "directory", name: "x".repeat(100), mode: 0o755 }), RangeError);
});

Deno.test("tarPadding() fills up a block", () => {
  for (const [octets, padding] of [[0, 0], [1, 511], [511, 1], [TAR_BLOCK, 0], [513, 511]] as const) {
    assert.equal(tarPadding(octets), padding);
  }
});
