import assert from "node:assert/strict";
import { findOwner, kernelAddress, socketOwner } from "./socket_owner.ts";

Deno.test("socketOwner() says who connected, and nobody once that socket is closed", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const client = await Deno.connect({ hostname: "127.0.0.1", port: listener.addr.port });
  using accepted = await listener.accept();
  const ends = [accepted.remoteAddr as Deno.NetAddr, accepted.localAddr as Deno.NetAddr] as const;
  assert.equal(socketOwner(...ends), Deno.uid());
  // Not the other way round: that is our own socket, and another's address is nobody's.
  assert.equal(socketOwner({ ...ends[0], port: 1 }, ends[1]), undefined);
  client.close();
  assert.equal(socketOwner(...ends), undefined);
});

Deno.test("findOwner() does not take a closed socket for root's", () => {
  const local = kernelAddress({ hostname: "127.0.0.1", port: 43210 })!;
  const remote = kernelAddress({ hostname: "127.0.0.1", port: 6784 })!;
  const line = (state: string, uid: number, inode: number) =>
    `   1: ${local} ${remote} ${state} 00000000:00000000 00:00000000 00000000  ${uid}        0 ${inode} 1 0 20 4 30 10 -1`;
  assert.equal(findOwner(line("01", 0, 4711), local, remote), 0);
  assert.equal(findOwner(line("01", 1000, 4711), local, remote), 1000);
  assert.equal(findOwner(line("04", 0, 0), local, remote), undefined);
  assert.equal(findOwner(line("01", 0, 0), local, remote), undefined);
  assert.equal(findOwner("", local, remote), undefined);
});

Deno.test("kernelAddress() has no word for what is no IPv4 address", () => {
  assert.equal(kernelAddress({ hostname: "::1", port: 1 }), undefined);
  assert.equal(kernelAddress({ hostname: "1.2.3.400", port: 1 }), undefined);
});
