import assert from "node:assert/strict";
import { otherServicesFile, type OwnServices, ownServicesFile } from "./service_store.ts";

const SERVICES: OwnServices = {
  networks: [{ id: 3, name: "plant", interfaces: ["eth1"], isolated: true, launched: false }],
  removed: ["office=eth2"],
  ids: {
    backends: [
      { service: "web", network: 2, address: 0xc0a80702, id: 17 },
      { service: "web", network: 2, address: 0xc0a80702, id: 18, port: { protocol: "udp", first: 81 } },
    ],
    lastBackend: 18,
    lastNetwork: 3,
  },
  records: undefined,
};

Deno.test("ownServicesFile() reads what it wrote", async () => {
  await inFolder(async (prefix) => {
    assert.equal(await ownServicesFile(prefix).read(), undefined);
    await ownServicesFile(prefix).write(SERVICES);
    assert.deepEqual(await ownServicesFile(prefix).read(), SERVICES);
    await otherServicesFile(prefix).write([]);
    assert.deepEqual(await otherServicesFile(prefix).read(), []);
  });
});

for (
  const [what, change] of [
    ["a number of a network that marks cannot carry", { networks: [{ ...SERVICES.networks[0], id: 63 }] }],
    ["a number of a backend that marks cannot carry", { backends: [["web", 2, "192.168.7.2", 65_536]] }],
    ["a port that is none", { backends: [["web", 2, "192.168.7.2", 1, "0"]] }],
    ["an address that is none", { backends: [["web", 2, "192.168.7", 1]] }],
    ["no list of networks", { networks: null }],
  ] as const
) {
  Deno.test(`ownServicesFile() does not understand ${what}`, async () => {
    await inFolder(async (prefix) => {
      await ownServicesFile(prefix).write(SERVICES);
      const path = `${prefix}-services.json`;
      const { version, data } = JSON.parse(await Deno.readTextFile(path));
      await Deno.writeTextFile(path, JSON.stringify({ version, data: { ...data, ...change } }));
      await assert.rejects(ownServicesFile(prefix).read(), /^OperationError: Cannot read services file /);
    });
  });
}

async function inFolder(work: (prefix: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await work(`${folder}/weave`);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}
