/** Services beside rules that drop what nobody has allowed, as ufw, firewalld and administrators write them. */

import assert from "node:assert/strict";
import { join } from "node:path";
import { dig } from "./dns.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, waitEstablished } from "./mesh.ts";
import { ask, serveName, service, show, waitAnswer, waitKnown } from "./services.ts";
import { testAsRoot } from "../skip.ts";

const FIXTURES = join(import.meta.dirname!, "../fixtures/firewalls");

/** What lets routers find each other: what an administrator does before he starts one. */
const OPEN_MESH = [
  "iptables -I INPUT -p tcp --dport 6783 -j ACCEPT",
  "iptables -I INPUT -p udp --dport 6783:6784 -j ACCEPT",
].join("; ");

/** Prints all rules. */
const RULES = "iptables -S; iptables -t nat -S; nft -s list ruleset | grep -ci weave || true";

interface Setting {
  readonly gateway: EmulatedHost;
  readonly far: EmulatedHost;
  readonly site: EmulatedHost;
  /** Rules of the gateway before it had a router. */
  readonly before: string;
}

/** A gateway with a firewall between a site and the mesh. */
async function setting(lab: Lab, firewall: string): Promise<Setting> {
  const [gateway, far, site] = [await lab.host("gateway"), await lab.host("far"), await lab.host("site")];
  await lab.switch([gateway, site], ["192.168.7.1", "192.168.7.2"]);
  await lab.link(gateway, far);
  await gateway.sh(firewall);
  const before = await gateway.sh(RULES);
  await far.weave("launch");
  await gateway.weave("launch", "--network", "plant=eth0", far.address(gateway));
  await waitEstablished(gateway, [far]);
  await serveName(site, 5432);
  return { gateway, far, site, before };
}

/** Both ways through the gateway, and names, which lead to the gateway itself. */
async function waitServed({ gateway, far, site }: Setting): Promise<void> {
  const container = await attachNew(far, "c1");
  await serveName(container, 80);
  const [address] = /\d+(\.\d+){3}/.exec(await container.sh("ip -4 -br addr show ethwe"))!;
  await service(gateway, "import", "db", "--to", "192.168.7.2:5432", "--network", "plant");
  await service(far, "import", "web", "--to", `${address}:80`, "--network", "weave");
  await waitKnown(gateway, "web");
  await service(gateway, "export", "web", "--listen", "8080", "--network", "plant", "--dns");
  await waitAnswer(container, await waitKnown(far, "db"), 5432, "site", { witnesses: [gateway, far] });
  await waitAnswer(site, "192.168.7.1", 8080, "c1", { witnesses: [gateway, far] });
  await waitAnswer(gateway, "192.168.7.1", 8080, "c1", { witnesses: [gateway, far] });
  assert.deepEqual((await dig(site, "192.168.7.1", "-q", "web", "-t", "A")).answers, ["192.168.7.1"]);
}

testAsRoot("services pass ufw, which drops everything else as before", async () => {
  await using lab = new Lab();
  const made = await setting(lab, `iptables-restore < ${FIXTURES}/ufw.save; ${OPEN_MESH}`);
  const { gateway, site, before } = made;
  await serveName(gateway, 99);
  assert.equal(await ask(site, "192.168.7.1", 99), "");
  await waitServed(made);
  assert.equal(await ask(site, "192.168.7.1", 99), "", "what the host has besides stays closed");
  for (const name of ["db", "web"]) assert.deepEqual((await show(gateway, name)).warnings, []);
  assert.match(await gateway.sh("iptables -S | grep ^-P"), /-P INPUT DROP\n-P FORWARD DROP/);
  await gateway.weave("reset", "--force");
  assert.equal(await gateway.sh(RULES), before);
});

testAsRoot("services pass firewalld, which refuses everything else as before", async () => {
  await using lab = new Lab();
  // And what he does for containers, where frames on bridges pass these rules as well: weave in zone "trusted".
  const open = "nft insert rule inet firewalld filter_INPUT tcp dport 6783 accept; " +
    "nft insert rule inet firewalld filter_INPUT udp dport 6783-6784 accept; " +
    "nft insert rule inet firewalld filter_FORWARD iifname weave oifname weave accept";
  const made = await setting(lab, `nft -f ${FIXTURES}/firewalld.nft; ${open}`);
  const { gateway, site } = made;
  await serveName(gateway, 99);
  await waitServed(made);
  assert.equal(await ask(site, "192.168.7.1", 99), "");
  for (const name of ["db", "web"]) assert.deepEqual((await show(gateway, name)).warnings, []);
});

testAsRoot("weave service show names the rule of another table that blocks", async () => {
  await using lab = new Lab();
  const { gateway, far } = await setting(lab, "true");
  const client = await attachNew(far, "c1");
  await service(gateway, "import", "db", "--to", "192.168.7.2:5432", "--network", "plant");
  const address = await waitKnown(far, "db");
  await waitAnswer(client, address, 5432, "site", { witnesses: [gateway, far] });
  assert.deepEqual((await show(gateway, "db")).warnings, []);

  const advice = "drops what goes to 192.168.7.2:5432: let pass there what has ct mark & 0x00800000 != 0";
  const onBridge = "drops frames on the bridge weave: let pass there what comes in by weave and goes out by weave";
  const bridged = await gateway.sh("cat /proc/sys/net/bridge/bridge-nf-call-iptables || echo 0") === "1";
  const policy = "The policy of chain forward of table inet mine";
  await gateway.sh(`nft -f - <<END
table inet mine {
  chain forward {
    type filter hook forward priority 10; policy drop;
    ct state established,related accept
    tcp dport 5432 counter reject
  }
}
END`);
  assert.equal(await ask(client, address, 5432), "");
  const [warning = "", ...others] = (await show(gateway, "db")).warnings;
  const rule = /^Rule "tcp dport 5432 counter packets \d+ bytes \d+ reject" in chain forward of table inet mine (.*)$/;
  assert.equal(rule.exec(warning)?.[1], advice);
  assert.equal(others.length, bridged ? 1 : 0);
  assert.ok((await gateway.weave("service", "show", "db")).includes("chain forward of table inet mine"));

  await gateway.sh("nft flush chain inet mine forward");
  const expected = [`${policy} ${advice}`, ...bridged ? [`${policy} ${onBridge}`] : []];
  assert.deepEqual((await show(gateway, "db")).warnings, expected);
  // What it advises helps.
  await gateway.sh(`nft add rule inet mine forward 'ct mark & 0x00800000 != 0 accept'`);
  assert.deepEqual((await show(gateway, "db")).warnings, expected.slice(1));
  await gateway.sh("nft add rule inet mine forward iifname weave oifname weave accept");
  assert.deepEqual((await show(gateway, "db")).warnings, []);
  await waitAnswer(client, address, 5432, "site");
  await gateway.sh("nft delete table inet mine; iptables-legacy -P FORWARD DROP");
  const left = (await show(gateway, "db")).warnings;
  assert.match(left[0] ?? "", /^The policy of chain FORWARD of table filter of iptables-legacy drops what goes to/);
});
