import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import { formatMac, type PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { findPeerName } from "./identity.ts";

const MACHINE = "0123456789abcdef0123456789abcdef\n";
const UUID = "4C4C4544-0042-3510-8054-B4C04F4E4331\n";

Deno.test("findPeerName() takes the name that is given before all else", async () => {
  await using host = await makeHost({ "/etc/machine-id": MACHINE });
  assert.equal(formatMac(await host.name(0x02aa_0000_0001 as PeerName)), "02:aa:00:00:00:01");
});

Deno.test("findPeerName() derives a name from both ids of the machine as Weave Net does", async () => {
  await using host = await makeHost({ "/etc/machine-id": MACHINE, "/sys/class/dmi/id/product_uuid": UUID });
  assert.equal(formatMac(await host.name()), derived(MACHINE + UUID));
});

Deno.test("findPeerName() makes do with one id, from its second place too", async () => {
  await using dbus = await makeHost({ "/var/lib/dbus/machine-id": MACHINE });
  assert.equal(formatMac(await dbus.name()), derived(MACHINE));
  await using xen = await makeHost({ "/sys/hypervisor/uuid": UUID });
  assert.equal(formatMac(await xen.name()), derived(UUID));
});

Deno.test("findPeerName() keeps the MAC of a bridge that is there", async () => {
  await using host = await makeHost({ "/etc/machine-id": MACHINE }, 0x0600_0000_0007);
  assert.equal(formatMac(await host.name()), "06:00:00:00:00:07");
});

Deno.test("findPeerName() remembers the name it makes up where nothing identifies the machine", async () => {
  await using host = await makeHost({});
  const name = await host.name();
  assert.match(formatMac(name), /^[0-9a-f][26ae]:/);
  assert.equal(await host.name(undefined, 2), name);
});

Deno.test("findPeerName() forgets a stored name when the machine has ids, as a clone of it has others", async () => {
  await using host = await makeHost({});
  const made = await host.name();
  await host.write("/etc/machine-id", MACHINE);
  assert.notEqual(await host.name(), made);
  assert.equal(formatMac(await host.name()), derived(MACHINE));
});

Deno.test("findPeerName() keeps a stored name that came from the hardware alone", async () => {
  await using host = await makeHost({ "/etc/machine-id": MACHINE, "/sys/class/dmi/id/product_uuid": UUID });
  const name = derived(UUID);
  await host.write("/state-identity.json", JSON.stringify({ version: "1.0", data: { name } }));
  assert.equal(formatMac(await host.name()), name);
});

function derived(id: string): string {
  const octets = createHash("sha256").update("9oBJ0Jmip-" + id).digest().subarray(0, 6);
  octets[0] = (octets[0]! & 0xfe) | 2;
  return octets.toString("hex").match(/../g)!.join(":");
}

async function makeHost(files: Readonly<Record<string, string>>, bridgeMac?: number) {
  const root = await Deno.makeTempDir({ prefix: "weave-identity-" });
  const write = async (path: string, text: string) => {
    await Deno.mkdir((root + path).replace(/\/[^/]*$/, ""), { recursive: true });
    await Deno.writeTextFile(root + path, text);
  };
  for (const [path, text] of Object.entries(files)) await write(path, text);
  const bridge = bridgeMac === undefined ? undefined : { mac: bridgeMac, kind: "bridge" };
  return {
    write,
    name: (name?: PeerName, seed = 1) =>
      findPeerName({
        name,
        links: { find: () => bridge as never },
        bridge: "weave",
        statePrefix: `${root}/state`,
        random: new SeededRandom(seed),
        root,
      }),
    [Symbol.asyncDispose]: () => Deno.remove(root, { recursive: true }),
  };
}
