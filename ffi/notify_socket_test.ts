import assert from "node:assert/strict";
import { check, SysError } from "./errno.ts";
import { DescriptorTrace, type Fd } from "./fd.ts";
import { C, sockaddr_un } from "./layout.ts";
import { libc } from "./libc.ts";
import { notifyServiceManager } from "./notify_socket.ts";
import { openSocket } from "./socket.ts";

Deno.test("notifyServiceManager() sends words to a path and to a name that is in no directory", async () => {
  using trace = new DescriptorTrace();
  const folder = await Deno.makeTempDir({ prefix: "weave-notify-" });
  for (const path of [`${folder}/notify`, `@weave-notify-${crypto.randomUUID()}`]) {
    using manager = listen(path);
    notifyServiceManager(path, "READY=1\nSTATUS=two");
    assert.equal(receive(manager), "READY=1\nSTATUS=two");
  }
  assert.throws(
    () => notifyServiceManager(`${folder}/missing`, "READY=1"),
    (error) => error instanceof SysError && error.errnoName === "ENOENT",
  );
  assert.throws(() => notifyServiceManager("relative", "READY=1"), RangeError);
  assert.throws(() => notifyServiceManager("/" + "a".repeat(107), "READY=1"), RangeError);
  await Deno.remove(folder, { recursive: true });
  assert.deepEqual(trace.left(), []);
});

/** The other end, by the letter of unix(7). */
function listen(path: string): Fd {
  const fd = openSocket("manager", C.AF_UNIX, C.SOCK_DGRAM);
  const name = sockaddr_un.make({ sun_family: C.AF_UNIX });
  name.set(new TextEncoder().encode(path.replace("@", "\0")), 2);
  const octets = 2 + path.length + (path.startsWith("@") ? 0 : 1);
  check("bind", () => libc.bind(fd.raw, name, octets));
  return fd;
}

function receive(fd: Fd): string {
  const buffer = new Uint8Array(256);
  const got = check("recvfrom", () => libc.recvfrom(fd.raw, buffer, 256n, 0, null, null));
  return new TextDecoder().decode(buffer.subarray(0, got));
}
