import assert from "node:assert/strict";
import { join } from "node:path";
import config from "../../deno.json" with { type: "json" };
import { compile } from "../../dist/compile.ts";
import { ARCHITECTURES, elfEnd, sha256Hex } from "../../dist/runtime_base.ts";
import { run } from "../netns/command.ts";
import { isThere } from "../packages.ts";
import { testUnless } from "../skip.ts";

const PROJECT = join(import.meta.dirname!, "../..");
const DIST = join(PROJECT, "dist");

Deno.test("compile() makes the same octets from another checkout", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-another-" });
  try {
    const checkout = join(folder, "deeper", "checkout");
    await Deno.mkdir(checkout, { recursive: true });
    const sources = ["deno.json", "deno.lock", "main.ts", "src", "ffi", "helper"].map((name) => join(PROJECT, name));
    await run(["cp", "-r", ...sources, checkout]);
    const said: string[] = [];
    const output = join(folder, "out");
    const made = await compile({
      architectures: ARCHITECTURES,
      project: checkout,
      output,
      say: (line) => said.push(line),
    });
    for (const [i, architecture] of ARCHITECTURES.entries()) {
      const name = `weave-${architecture.name}`;
      assert.match(said[i]!, /runtime base from /);
      assert.equal(await sha256(made[i]!), await sha256(join(DIST, name)), name);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("elfEnd() refuses what is no executable with a program behind it", () => {
  assert.throws(() => elfEnd(new Uint8Array(10)), /no ELF file/);
  assert.throws(() => elfEnd(Deno.readFileSync("/bin/true")), /no program behind/);
});

for (const architecture of ARCHITECTURES) {
  const emulator = architecture.name === "aarch64" ? ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu"] : [];
  const native = architecture.name === Deno.build.arch;
  const runnable = native || architecture.name === "aarch64" && isThere("qemu-aarch64-static");
  const reason = runnable ? undefined : `this machine is ${Deno.build.arch} and has no emulator for it`;
  testUnless(reason, `weave-${architecture.name} starts and prints its version`, async () => {
    const command = [...native ? [] : emulator, join(DIST, `weave-${architecture.name}`), "version"];
    const { stdout } = await run(command, { timeoutMs: 60_000 });
    assert.ok(stdout.includes(config.version), stdout);
  });
}

Deno.test("weave is linked with glibc and libgcc and nothing else", async () => {
  const { stdout } = await run(["ldd", join(DIST, "weave")]);
  const libraries = stdout.trim().split("\n").map((line) => line.trim().split(" ")[0]!.replace(/.*\//, ""));
  const expected = /^(linux-vdso|ld-linux|libc|libm|libdl|librt|libpthread|libgcc_s)\b/;
  assert.deepEqual(libraries.filter((library) => !expected.test(library)), []);
});

async function sha256(path: string): Promise<string> {
  return await sha256Hex(await Deno.readFile(path));
}
