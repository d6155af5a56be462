import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { SysError } from "./errno.ts";
import { DescriptorTrace } from "./fd.ts";
import { createNetns, openNetns, removeNetns, withNetns, withNewNetns } from "./netns.ts";

const HERE = "/proc/thread-self/ns/net";

Deno.test("openNetns() throws SysError for a path that leads nowhere", () => {
  assert.throws(() => openNetns("/nowhere"), (error) => error instanceof SysError && error.errnoName === "ENOENT");
  assert.throws(() => openNetns("/proc/self/ns/net\0"), RangeError);
});

inOwnNamespace(import.meta.url, () => {
  Deno.test("withNetns() works there and comes back, also when the work throws", () => {
    using trace = new DescriptorTrace();
    shell("ip netns add a; ip netns add b");
    const home = here(), a = inode("/run/netns/a"), b = inode("/run/netns/b");
    assert.equal(new Set([home, a, b]).size, 3);
    assert.equal(withNetns("/run/netns/a", here), a);
    assert.equal(here(), home);
    assert.throws(() =>
      withNetns("/run/netns/a", () => {
        throw new Error("thrown");
      }), { message: "thrown" });
    assert.equal(here(), home);
    const nested = withNetns("/run/netns/a", () => [withNetns("/run/netns/b", here), here()]);
    assert.deepEqual(nested, [b, a]);
    assert.equal(here(), home);
    assert.deepEqual(trace.left(), []);
  });

  Deno.test("withNetns() takes along what is started and opened inside", async () => {
    const child = withNetns(
      "/run/netns/a",
      () => new Deno.Command("readlink", { args: ["/proc/self/ns/net"], stdout: "piped" }).spawn(),
    );
    const { stdout } = await child.output();
    assert.equal(new TextDecoder().decode(stdout), `net:[${inode("/run/netns/a")}]\n`);
    using fd = withNetns("/run/netns/a", () => openNetns(HERE));
    assert.equal(inode(`/proc/self/fd/${fd.raw}`), inode("/run/netns/a"));
  });

  Deno.test("withNetns() refuses what is no namespace, and work that waits", () => {
    using trace = new DescriptorTrace();
    const home = here();
    assert.throws(() => withNetns("/etc/passwd", here), (error) => error instanceof SysError && error.call === "setns");
    assert.throws(() => withNetns("/run/netns/a", () => Promise.resolve(1)), TypeError);
    assert.equal(here(), home);
    assert.deepEqual(trace.left(), []);
  });

  Deno.test("withNewNetns() works in an empty one", () => {
    const home = here();
    const { there, links } = withNewNetns(() => ({ there: here(), links: shell("ip -o link").trim().split("\n") }));
    assert.notEqual(there, home);
    assert.deepEqual(links.map((line) => line.split(":")[1]!.trim()), ["lo"]);
    assert.equal(here(), home);
  });

  Deno.test("createNetns() makes what `ip netns` knows, and removeNetns() takes it away", () => {
    using trace = new DescriptorTrace();
    const home = here(), path = "/run/netns/made";
    Deno.writeTextFileSync(path, ""); // as somebody left it who was killed half-way
    createNetns(path);
    assert.equal(here(), home);
    assert.notEqual(withNetns(path, here), home);
    assert.equal(shell("ip netns exec made readlink /proc/self/ns/net").trim(), `net:[${inode(path)}]`);
    removeNetns(path);
    removeNetns(path);
    assert.doesNotMatch(shell("ip netns"), /made/);
    assert.throws(() => Deno.statSync(path), Deno.errors.NotFound);
    createNetns("/run/elsewhere/made");
    removeNetns("/run/elsewhere/made");
    assert.doesNotMatch(Deno.readTextFileSync("/proc/self/mounts"), /made/);
    assert.deepEqual(trace.left(), []);
  });

  Deno.test("a process that cannot come back ends", async () => {
    const module = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
    const script = `
      import { withNetns } from ${module("./netns.ts")};
      // What makes setns(2) possible is given away inside.
      const { symbols } = Deno.dlopen("libc.so.6", { setresuid: { parameters: ["u32", "u32", "u32"], result: "i32" } });
      try { withNetns("/run/netns/a", () => symbols.setresuid(65534, 65534, 65534)); } finally { console.log("went on"); }`;
    const args = ["eval", "--no-lock", script];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), { args }).output();
    assert.equal(code, 71);
    assert.equal(new TextDecoder().decode(stdout), "");
    assert.match(new TextDecoder().decode(stderr), /^Cannot leave network namespace: setns: EPERM/);
  });
});

function here(): number {
  return inode(HERE);
}

function inode(path: string): number {
  return Deno.statSync(path).ino!;
}

function shell(script: string): string {
  const { success, stdout, stderr } = new Deno.Command("sh", { args: ["-ec", script] }).outputSync();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
