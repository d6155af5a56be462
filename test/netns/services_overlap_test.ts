/** Equal addresses in several networks of one gateway: ranges, gateways, clients and backends, even the gateway's own. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, waitEstablished } from "./mesh.ts";
import { ask, type Machine, scan, serveMany, serveName, service, waitAnswer, waitKnown } from "./services.ts";
import { testAsRoot } from "../skip.ts";

/** A gateway with a leg in two LANs, and another peer with a container. */
async function twoLans(
  lab: Lab,
  { own, red, blue }: { own: readonly [string, string]; red: readonly string[]; blue: readonly string[] },
): Promise<{ gateway: EmulatedHost; far: EmulatedHost; reds: EmulatedHost[]; blues: EmulatedHost[] }> {
  const [gateway, far] = [await lab.host("gateway"), await lab.host("far")];
  const [reds, blues]: [EmulatedHost[], EmulatedHost[]] = [[], []];
  for (const [name, members, addresses] of [["red", reds, red], ["blue", blues, blue]] as const) {
    for (const address of addresses) members.push(await lab.host(`${name}${address.split(".")[3]}`));
    await lab.switch([gateway, ...members], [own[members === reds ? 0 : 1], ...addresses]);
  }
  await lab.link(gateway, far);
  return { gateway, far, reds, blues };
}

async function launch(gateway: EmulatedHost, far: EmulatedHost, ...networks: readonly string[]): Promise<void> {
  await far.weave("launch");
  await gateway.weave("launch", ...networks.flatMap((network) => ["--network", network]), far.address(gateway));
  await waitEstablished(gateway, [far]);
}

testAsRoot("two networks of one range and one gateway address, and the same flow from both at once", async () => {
  await using lab = new Lab();
  const lans = ["192.168.1.10", "192.168.1.20"];
  const { gateway, far, reds, blues } = await twoLans(lab, {
    own: ["192.168.1.1", "192.168.1.1"],
    red: lans,
    blue: lans,
  });
  await launch(gateway, far, "red=eth0", "blue=eth1");
  for (const machine of [reds[0]!, blues[0]!]) {
    await serveMany(machine, 80);
    await serveName(machine, 53, "udp");
  }
  const container = await attachNew(far, "c1");
  const near = await attachNew(gateway, "c2");
  for (const network of ["red", "blue"]) {
    const to = ["--to", "192.168.1.10:80", "--to", "192.168.1.10:53/udp"];
    await service(gateway, "import", `${network}-web`, "--network", network, ...to);
  }
  for (const network of ["red", "blue"]) {
    const address = await waitKnown(far, `${network}-web`);
    for (const from of [container, near, gateway]) {
      await waitAnswer(from, address, 80, `${network}10`, { witnesses: [gateway, far] });
      await waitAnswer(from, address, 53, `${network}10`, { transport: "udp" });
    }
  }

  // Each network is offered the other's service, at the address that the gateway has in both.
  await service(gateway, "export", "red-web:80", "--network", "blue", "--listen", "8080");
  await service(gateway, "export", "blue-web:80", "--network", "red", "--listen", "8080");
  for (const red of reds) await waitAnswer(red, "192.168.1.1", 8080, "blue10", { witnesses: [gateway] });
  for (const blue of blues) await waitAnswer(blue, "192.168.1.1", 8080, "red10", { witnesses: [gateway] });
  const held = await Promise.all([reds[0]!, blues[0]!].map((one) => holdFrom(one, 40_000, "192.168.1.1", 8080)));
  assert.deepEqual(held, ["blue10\nstill here", "red10\nstill here"]);
  // And from others, in the other order, while entries of the first are there yet.
  const again = await Promise.all([blues[1]!, reds[1]!].map((one) => holdFrom(one, 40_000, "192.168.1.1", 8080)));
  assert.deepEqual(again, ["red10\nstill here", "blue10\nstill here"]);
});

testAsRoot("a network that overlaps the mesh's range, with a backend and a client of one address", async (t) => {
  for (const isolated of [false, true]) {
    await t.step(isolated ? "isolated" : "in the host's namespace", async () => {
      await using lab = new Lab();
      const { gateway, far, reds } = await twoLans(lab, {
        own: ["10.32.0.200", "192.168.1.1"],
        red: ["10.32.0.10", "10.32.0.11"],
        blue: [],
      });
      await launch(gateway, far, `red=eth0${isolated ? ":isolated" : ""}`);
      await serveName(reds[0]!, 80);
      const client = await attachNew(far, "c1", "10.32.0.10/12");
      const near = await attachNew(gateway, "c2", "10.32.0.11/12");
      await service(gateway, "import", "web", "--network", "red", "--to", "10.32.0.10:80");
      const address = await waitKnown(far, "web");
      await waitAnswer(client, address, 80, "red10", { witnesses: [gateway, far] });
      await waitAnswer(near, address, 80, "red10");
      await waitAnswer(gateway, address, 80, "red10");
      // A container's address is not the machine's: what is asked of it is answered by the container, and the other way round.
      await serveName(client, 99);
      await waitAnswer(near, "10.32.0.10", 99, "c1");
      assert.equal(await ask(reds[1]!, "10.32.0.10", 80), "red10");
      // The machine with the container's address uses the container's service.
      await service(far, "import", "back", "--to", `${await ownService(far)}:77`);
      await waitKnown(gateway, "back");
      await service(gateway, "export", "back:77", "--network", "red", "--listen", "8077");
      for (const red of reds) await waitAnswer(red, "10.32.0.200", 8077, "plain", { witnesses: [gateway, far] });
    });
  }
});

/** A plain machine next to a host, with a server on port 77. */
async function ownService(host: EmulatedHost): Promise<string> {
  await host.sh(
    "ip netns add plain; ip link add plain0 type veth peer name eth0 netns plain; ip address add 172.16.9.1/24 dev plain0; ip link set plain0 up; ip -n plain address add 172.16.9.2/24 dev eth0; ip -n plain link set eth0 up",
  );
  const listen = ["socat", "TCP4-LISTEN:77,fork,reuseaddr", "SYSTEM:echo plain"];
  host.spawn(["ip", "netns", "exec", "plain", ...listen]);
  return "172.16.9.2";
}

testAsRoot("a backend and a client whose address is the gateway's own in another network", async () => {
  await using lab = new Lab();
  const { gateway, far, reds, blues } = await twoLans(lab, {
    own: ["192.168.1.1", "192.168.1.254"],
    red: ["192.168.1.10"],
    blue: ["192.168.1.1", "192.168.1.10"],
  });
  await launch(gateway, far, "red=eth0", "blue=eth1");
  await serveName(reds[0]!, 80);
  await serveName(blues[0]!, 80);
  const container = await attachNew(far, "c1");
  await service(gateway, "import", "red-web", "--network", "red", "--to", "192.168.1.10:80");

  // In the host's namespace the kernel cannot tell the machine from the gateway.
  const refused = await gateway.attemptWeave(
    "service",
    "import",
    "blue-web",
    "--network",
    "blue",
    "--to",
    "192.168.1.1:80",
  );
  assert.notEqual(refused.code, 0);
  assert.match(refused.stderr, /^Cannot import blue-web: .*192\.168\.1\.1.*isolated\n/);

  const before = await legOf(gateway, "eth1");
  await gateway.weave("network", "rm", "blue");
  await gateway.weave("network", "add", "blue=eth1", "--isolated");
  assert.match(await gateway.weave("network", "ls"), /blue +eth1 +isolated/);
  assert.equal(await gateway.sh("ip -o link show eth1 2>/dev/null || true"), "", "it has a namespace of its own");
  await service(gateway, "import", "blue-web", "--network", "blue", "--to", "192.168.1.1:80");
  const address = await waitKnown(far, "blue-web");
  await waitAnswer(container, address, 80, "blue1", { witnesses: [gateway, far] });
  await waitAnswer(gateway, address, 80, "blue1");
  await service(gateway, "export", "red-web:80", "--network", "blue", "--listen", "8080");
  for (const blue of blues) await waitAnswer(blue, "192.168.1.254", 8080, "red10", { witnesses: [gateway] });
  await service(gateway, "export", "blue-web:80", "--network", "red", "--listen", "8080");
  await waitAnswer(reds[0]!, "192.168.1.1", 8080, "blue1");
  assert.deepEqual(await scan(blues[1]!, ["192.168.1.254:8080", "192.168.1.254:8081", "192.168.1.254:6784"]), {
    "192.168.1.254:8080": "open",
    "192.168.1.254:8081": "refused",
    "192.168.1.254:6784": "refused",
  });

  // A router that starts again takes up what is there.
  await gateway.weave("stop");
  await waitAnswer(reds[0]!, "192.168.1.1", 8080, "blue1");
  await gateway.weave("launch", "--network", "red=eth0", "--network", "blue=eth1:isolated", far.address(gateway));
  await waitEstablished(gateway, [far], 20_000);
  await waitAnswer(container, address, 80, "blue1", { witnesses: [gateway, far] });

  await service(gateway, "rm", "blue-web");
  await service(gateway, "rm", "red-web");
  await gateway.weave("network", "rm", "blue");
  assert.equal(await legOf(gateway, "eth1"), before, "the interface is back with all it had");
});

/** A connection from a chosen port that stays for two seconds; what arrives on it. */
async function holdFrom(from: Machine, sourcePort: number, address: string, port: number): Promise<string> {
  const script = `(sleep 2; echo still here; sleep 0.5) | nc -N -w 5 -p ${sourcePort} ${address} ${port}`;
  return await from.sh(script);
}

async function legOf(host: EmulatedHost, device: string): Promise<string> {
  return await host.sh(
    `ip -o -4 address show ${device} | sed 's/ valid_lft.*//;s/^[0-9]*: //'; ip route show dev ${device}`,
  );
}
