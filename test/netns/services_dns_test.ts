/** `weave service export … --dns`: names of services, asked for by machines of the network that they are exported to. */

import assert from "node:assert/strict";
import { dig, startResolver } from "./dns.ts";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { waitEstablished } from "./mesh.ts";
import { serveName, service, waitAnswer, waitKnown } from "./services.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** A gateway with a leg in a LAN, a machine there, and a service `db` that another gateway imports. */
async function siteAndService(lab: Lab, ...args: readonly string[]) {
  const [gateway, far, machine] = [await lab.host("gateway"), await lab.host("far"), await lab.host("machine")];
  await lab.switch([gateway, machine], ["192.168.1.1", "192.168.1.10"]);
  await lab.link(gateway, far);
  await far.weave("launch");
  await gateway.weave("launch", ...args, far.address(gateway));
  await waitEstablished(gateway, [far]);
  const container = await far.container("c1");
  await far.weave("attach", "--hostname", "c1.weave.local", container.reference);
  await serveName(container, 5432);
  await service(far, "import", "db", "--to", "c1.weave.local:5432");
  await waitKnown(gateway, "db");
  return { gateway, far, machine, container };
}

/** Waits until a name is answered like that. */
async function waitDug(from: EmulatedHost, server: string, name: string, wanted: string): Promise<void> {
  await waitFor(`${name} to be ${wanted} at ${server}`, async () => {
    const { status, answers } = await dig(from, server, "-q", name, "-t", "A");
    const got = status === "NOERROR" ? answers.toSorted().join() : status;
    if (got !== wanted) throw new Error(`it is ${got}`);
    return true;
  }, 10_000);
}

testAsRoot("a site asks its gateway for the names of what is exported to it, and for nothing else", async (t) => {
  for (const network of ["host", "plant=eth0", "plant=eth0:isolated"]) {
    await t.step(network, async () => {
      await using lab = new Lab();
      const named = network !== "host";
      const { gateway, machine } = await siteAndService(lab, ...named ? ["--network", network] : []);
      const where = named ? ["--network", "plant"] : [];
      await service(gateway, "export", "db", "--listen", "8080", ...where, "--dns");
      for (const name of ["db", "db.weave.local", "DB.Weave.Local"]) {
        await waitDug(machine, "192.168.1.1", name, "192.168.1.1");
      }
      await waitAnswer(machine, "192.168.1.1", 8080, "c1", { witnesses: [gateway] });
      assert.deepEqual((await dig(machine, "192.168.1.1", "-q", "db", "-t", "A", "+tcp")).answers, ["192.168.1.1"]);
      const { status, answers, flags } = await dig(machine, "192.168.1.1", "-q", "db", "-t", "AAAA");
      assert.deepEqual([status, answers, flags.includes("aa"), flags.includes("ra")], ["NOERROR", [], true, false]);
      for (const name of ["c1", "c1.weave.local", "weave.local", "example.com", "1.1.168.192.in-addr.arpa", "."]) {
        assert.equal((await dig(machine, "192.168.1.1", "-q", name, "-t", "A")).status, "REFUSED", name);
      }

      if (named) {
        // At an address that nobody has; names of the network are answered there as well.
        await service(gateway, "export", "db", "--listen", "192.168.1.9:80", ...where, "--dns");
        for (
          const [server, wanted] of [["192.168.1.9", "192.168.1.1,192.168.1.9"], [
            "192.168.1.1",
            "192.168.1.1,192.168.1.9",
          ]] as const
        ) {
          await waitDug(machine, server, "db", wanted);
        }
        await service(gateway, "rm", "db", "--export", "192.168.1.9:80");
      }
      await service(gateway, "rm", "db", "--export");
      await delay(100);
      const left = await machine.attempt(["dig", "@192.168.1.1", "+tries=1", "+time=1", "db"]);
      assert.match(left.stdout, /refused|timed out/);
    });
  }
});

testAsRoot(
  "names are not answered where the host itself is asked for names, nor to whom the service is not for",
  async () => {
    await using lab = new Lab();
    const { gateway, far, machine, container } = await siteAndService(lab);
    await using _ = await startResolver(gateway, "192.168.1.1", ["address=/example.test/192.168.1.77"]);
    const args = ["export", "db", "--listen", "8080", "--dns"];
    const refused = await gateway.attemptWeave("service", ...args);
    assert.equal(refused.code, 1);
    assert.match(
      refused.stderr,
      /^Cannot answer the name of db at 192\.168\.1\.1: the host itself listens on port 53\S* ?.*--force.*\n$/,
    );
    assert.deepEqual((await dig(machine, "192.168.1.1", "-q", "example.test", "-t", "A")).answers, ["192.168.1.77"]);
    await service(gateway, ...args, "--force");
    await waitDug(machine, "192.168.1.1", "db", "192.168.1.1");
    assert.equal((await dig(machine, "192.168.1.1", "-q", "example.test", "-t", "A")).status, "REFUSED");

    // At an address where it leads, and only there; when it leads nowhere, there is no such name.
    await far.weave("detach", container.reference);
    await waitDug(machine, "192.168.1.1", "db", "REFUSED");
    await service(gateway, "rm", "db", "--export");
    await waitFor("the host's own server again", async () => {
      return (await dig(machine, "192.168.1.1", "-q", "example.test", "-t", "A")).answers.join() === "192.168.1.77";
    }, 5_000);
    await service(gateway, ...args, "--force", "--allow", "192.168.1.99");
    const other = await machine.attempt(["dig", "@192.168.1.1", "+tries=1", "+time=2", "db"]);
    assert.match(other.stdout, /connection refused/);
  },
);
