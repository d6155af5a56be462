import assert from "node:assert/strict";
import { parseCidr, parseIpv4 } from "../lib/ip.ts";
import { judgeIsolation } from "./cut_off.ts";

const ROUTES = ([
  ["0.0.0.0/0", "eth9"],
  ["172.30.0.0/24", "eth0"],
  ["172.30.0.0/16", "eth1"],
  ["10.1.0.0/16", "eth1", 200],
  ["10.1.0.0/16", "eth0", 100],
] as const).map(([destination, device, metric]) => ({
  destination: parseCidr(destination)!,
  device,
  ...metric === undefined ? {} : { metric },
}));

function refusal(device: string, ...remotes: readonly string[]): string | undefined {
  try {
    judgeIsolation(
      { name: "m", interfaces: ["eth7", device] },
      ROUTES,
      remotes.map((text) => ({ who: `target ${text}`, address: parseIpv4(text)! })),
    );
  } catch (error) {
    return (error as Error).message;
  }
  return undefined;
}

Deno.test("judgeIsolation() names the interface, and who is reached by it", () => {
  assert.equal(
    refusal("eth0", "172.30.7.7", "172.30.0.2"),
    'Cannot put interface "eth0" into network "m": target 172.30.0.2 is reached by it, and would not be any more',
  );
});

Deno.test("judgeIsolation() goes by the narrowest route, and the preferred one of these", () => {
  assert.equal(refusal("eth1", "172.30.0.2", "10.1.0.1"), undefined);
  assert.match(refusal("eth1", "172.30.7.7")!, /"eth1".*172\.30\.7\.7/);
  assert.match(refusal("eth0", "10.1.0.1")!, /"eth0".*10\.1\.0\.1/);
});

Deno.test("judgeIsolation() has nothing to say of the default route, and of networks without peers", () => {
  assert.equal(refusal("eth9", "192.0.2.1"), undefined);
  assert.equal(refusal("eth5", "172.30.0.2", "192.0.2.1"), undefined);
  assert.equal(refusal("eth0"), undefined);
});
