import assert from "node:assert/strict";
import { check } from "./errno.ts";
import { DescriptorTrace, Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { cString, libc } from "./libc.ts";

Deno.test("Fd closes its descriptor once, and lends its number no longer", () => {
  const fd = openNull();
  const { raw } = fd;
  assert.ok(isOpen(raw));
  fd.close();
  assert.ok(!isOpen(raw));
  assert.equal(fd.closed, true);
  assert.throws(() => fd.raw, { message: "Cannot use null device: it is closed" });
  using other = openNull(); // takes the same number
  assert.equal(other.raw, raw);
  fd.close();
  assert.ok(isOpen(raw));
});

Deno.test("Fd closes at the end of `using`, also when it throws", () => {
  let raw = -1;
  assert.throws(() => {
    using fd = openNull();
    raw = fd.raw;
    throw new Error("thrown");
  }, { message: "thrown" });
  assert.ok(!isOpen(raw));
});

Deno.test("DescriptorTrace names what was left open, and where it was opened", () => {
  const before = openNull();
  using trace = new DescriptorTrace();
  const left = openNull();
  openNull().close();
  before.close();
  assert.equal(trace.left().length, 1);
  assert.match(trace.left()[0]!, /^null device, opened at openNull .*fd_test\.ts/);
  left.close();
  assert.deepEqual(trace.left(), []);
});

function openNull(): Fd {
  const path = cString("/dev/null");
  return new Fd(check("open", () => libc.open(path, C.O_RDONLY | C.O_CLOEXEC)), "null device");
}

function isOpen(raw: number): boolean {
  try {
    return Deno.lstatSync(`/proc/self/fd/${raw}`).isSymlink;
  } catch {
    return false;
  }
}
