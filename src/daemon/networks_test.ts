import assert from "node:assert/strict";
import { type NetworkOption, parseNetwork } from "../config/service_options.ts";
import { Networks } from "./networks.ts";
import { ServiceIds } from "./service_ids.ts";
import type { OwnServices } from "./service_store.ts";

Deno.test("Networks have what launch names and what was added, with the same numbers again", () => {
  const first = start({ launched: ["plant=eth1"] });
  first.networks.set(option("office=eth2,eth3"));
  assert.deepEqual(shown(first.networks), ["3 plant=eth1", "4 office=eth2,eth3"]);
  const again = start({ launched: ["plant=eth9"], before: first });
  assert.deepEqual(shown(again.networks), ["3 plant=eth9", "4 office=eth2,eth3"]);
  const without = start({ before: first });
  assert.deepEqual(shown(without.networks), ["4 office=eth2,eth3"], "launch named it, and names it no more");
});

Deno.test("a network of launch that was removed stays away after a crash, and comes back with a new launch", () => {
  const first = start({ launched: ["plant=eth1"] });
  assert.equal(first.networks.remove("plant"), true);
  assert.equal(first.networks.remove("plant"), false);
  assert.deepEqual(shown(start({ launched: ["plant=eth1"], before: first, restarted: true }).networks), []);
  assert.equal(start({ launched: ["plant=eth1"], before: first }).networks.has("plant"), true);
});

Deno.test("Networks.set() refuses an interface of another network, and to isolate what is there", () => {
  const { networks } = start({ launched: ["plant=eth1"] });
  assert.throws(() => networks.set(option("office=eth2,eth1")), {
    message: 'Cannot use interface "eth1" for network "office": "plant" has it',
  });
  assert.throws(() => networks.set(option("plant=eth1:isolated")), {
    message: 'Cannot make network "plant" isolated while it is there: remove it first',
  });
  networks.set(option("plant=eth1,eth2"));
  assert.deepEqual(shown(networks), ["3 plant=eth1,eth2"]);
});

Deno.test("Networks.target() knows what every host has", () => {
  const { networks } = start({ launched: ["plant=eth1:isolated"] });
  assert.deepEqual(networks.target("weave"), { id: 1, namespace: undefined });
  assert.deepEqual(networks.target("host"), { id: 2, namespace: undefined });
  assert.equal(networks.target("plant")?.namespace, "/run/netns/weave-plant");
  assert.equal(networks.target("nowhere"), undefined);
  assert.deepEqual(networks.namespaces(), ["/run/netns/weave-plant"]);
});

Deno.test("revert() makes networks what they were, with their numbers", () => {
  const { networks } = start({ launched: ["plant=eth1"] });
  networks.set(option("lab=eth2"));
  const before = networks.stored();
  const all = shown(networks);
  networks.remove("plant");
  networks.set(option("lab=eth3"));
  networks.set(option("more=eth1"));
  networks.revert(before);
  assert.deepEqual(shown(networks), all);
  assert.deepEqual(networks.stored(), before);
});

for (
  const [text, why] of [
    ["plant", /INTERFACE/],
    ["Plant=eth1", /small letters/],
    ["host=eth1", /every host/],
    ["weave=eth1", /every host/],
    ["plant=", /no name of an interface/],
    ["plant=a/b", /no name of an interface/],
    ["plant=eth1,eth1", /twice/],
    [`plant=${"e".repeat(16)}`, /no name of an interface/],
  ] as const
) {
  Deno.test(`parseNetwork() refuses "${text}"`, () => assert.match(parseNetwork(text) as string, why));
}

interface Started {
  readonly networks: Networks;
  readonly ids: ServiceIds;
}

function start(
  o: { readonly launched?: readonly string[]; readonly before?: Started; readonly restarted?: boolean },
): Started {
  const ids = new ServiceIds(o.before?.ids.stored());
  const stored: Pick<OwnServices, "networks" | "removed"> | undefined = o.before?.networks.stored();
  const launched = (o.launched ?? []).map(option);
  return { ids, networks: new Networks({ ids, stored, launched, restarted: o.restarted ?? false }) };
}

function option(text: string): NetworkOption {
  const parsed = parseNetwork(text);
  assert.ok(typeof parsed !== "string", String(parsed));
  return parsed;
}

function shown(networks: Networks): string[] {
  return networks.all().map(({ id, name, interfaces }) => `${id} ${name}=${interfaces.join(",")}`);
}
