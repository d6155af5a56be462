import assert from "node:assert/strict";
import { withNetns } from "../../ffi/netns.ts";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { run } from "./command.ts";
import { NftError, NftGeneration, readNftTable, runNft } from "./nft.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("runNft() does a script wholly or not at all, and says in one line what is wrong with it", async () => {
    assert.equal(await readNftTable("ours"), undefined);
    await runNft("add table ip ours\nadd chain ip ours one\n");
    await assert.rejects(runNft("add chain ip ours two\nadd rule ip ours one goto three\n"), (error) => {
      assert.ok(error instanceof NftError);
      assert.match(error.message, /^Cannot change packet filter: nft: .+ in "add rule ip ours one goto three"$/);
      return true;
    });
    const objects = (await readNftTable("ours"))!;
    assert.deepEqual(objects.filter(({ chain }) => chain !== undefined).map(({ chain }) => chain!.name), ["one"]);
    await runNft("delete table ip ours\n");
  });

  Deno.test("runNft() works in another namespace, and leaves this one alone", async () => {
    await run("/bin/ip", ["netns", "add", "other"]);
    const within = <T>(start: () => T): T => withNetns("/run/netns/other", start);
    await runNft("add table ip ours\n", { within });
    assert.equal(await readNftTable("ours"), undefined);
    assert.notEqual(await readNftTable("ours", { within }), undefined);
    await run("/bin/ip", ["netns", "delete", "other"]);
  });

  Deno.test("NftGeneration grows by one with every change, by whomever", async () => {
    using generation = new NftGeneration();
    const first = generation.read()!;
    assert.equal(generation.read(), first);
    await runNft("add table ip ours\nadd chain ip ours one\n");
    assert.equal(generation.read(), first + 1);
    await readNftTable("ours");
    assert.equal(generation.read(), first + 1);
    await run("/usr/bin/env", ["nft", "delete", "table", "ip", "ours"]);
    assert.equal(generation.read(), first + 2);
  });
});
