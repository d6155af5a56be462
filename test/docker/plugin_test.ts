import assert from "node:assert/strict";
import { waitName } from "../netns/dns.ts";
import type { EmulatedHost } from "../netns/host.ts";
import { Lab } from "../netns/lab.ts";
import { waitEstablished } from "../netns/mesh.ts";
import { waitFor } from "../netns/wait.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { testAsRoot } from "../skip.ts";

const DNS = "172.17.0.1";

testAsRoot("containers in Docker's network weave reach each other by name, on two hosts", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const [host1, host2] = [await lab.host("host1"), await lab.host("host2")];
  await lab.link(host1, host2);
  await using engine1 = await DockerEngine.start(host1);
  await using engine2 = await DockerEngine.start(host2);
  await host1.weave("launch");
  await host2.weave("launch", host1.address());
  await waitEstablished(host1, [host2]);
  assert.match(await host1.weave("status"), /^ +Service: plugin \(legacy\)\n +DriverName: weave$/m);

  const args1 = (await host1.weave("dns-args")).split(" ");
  const args2 = (await host2.weave("dns-args")).split(" ");
  const one = ["--name=c1", "--hostname=c1.weave.local", "--network-alias=first"];
  await engine1.docker("run", "-d", "--net=weave", ...args1, ...one, IMAGE, "sleep", "1000");
  const two = ["--name=c2", "--hostname=two.weave.local"];
  await engine2.docker("run", "-d", "--net=weave", ...args2, ...two, IMAGE, "sleep", "1000");
  const [address1, address2] = [await addressOf(engine1, "c1"), await addressOf(engine2, "c2")];
  assert.match(await engine1.docker("exec", "c1", "ip", "-4", "address", "show", "ethwe0"), /10\.\d+\.\d+\.\d+\/12/);
  assert.match(await engine1.docker("exec", "c1", "ip", "route"), /^224\.0\.0\.0\/4 dev ethwe0/m);
  for (const host of lab.hosts) {
    for (const name of ["c1.weave.local", "first.weave.local"]) {
      await waitName(host, DNS, name, [address1], 10_000, lab.hosts);
    }
    for (const name of ["c2.weave.local", "two.weave.local"]) await waitName(host, DNS, name, [address2]);
  }
  for (const name of ["two", "c2", "two.weave.local"]) {
    assert.ok(await engine1.succeeds("c1", "ping", "-c", "1", "-W", "2", name), name);
  }
  for (const name of ["c1", "first"]) assert.ok(await engine2.succeeds("c2", "ping", "-c", "1", "-W", "2", name), name);
  assert.match((await host1.weave("ps")).split("\n")[1]!, new RegExp(`^\\S{12} \\S{17} ${address1}/12$`));

  await engine1.docker("rm", "-f", "c1");
  for (const host of lab.hosts) await waitName(host, DNS, "first.weave.local", [], 5_000, lab.hosts);
  assert.deepEqual(await held(host1), []);
  await waitFor("its veth to go", async () => !(await host1.sh("ip -br link")).includes("vethwl"), 2_000);
});

/** What Docker says. */
async function addressOf(engine: DockerEngine, container: string): Promise<string> {
  return await engine.docker(
    "inspect",
    "-f",
    "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}",
    container,
  );
}

/** All addresses that are held on a host, as the API says. */
async function held(host: EmulatedHost): Promise<string[]> {
  const { owned } = JSON.parse(await host.sh("curl -sf http://127.0.0.1:6784/ip"));
  return (owned ?? []).flatMap(({ addrs }: { addrs: string[] }) => addrs);
}
