import assert from "node:assert/strict";
import { parseAddressToken } from "./address_book.ts";
import { planRun } from "./run.ts";

const DNS = { dockerArguments: ["--dns=172.17.0.1"], domain: "weave.local." };

Deno.test("planRun() keeps the proxy off and names the container in the domain", () => {
  const plan = (...args: string[]) => planRun(args, { dns: DNS, held: undefined });
  const start = ["-e", "WEAVE_CIDR=none", "--dns=172.17.0.1"];
  assert.deepEqual(plan("-t", "ubuntu"), [...start, "-t", "ubuntu"]);
  assert.deepEqual(plan("--name", "a", "ubuntu"), [...start, "--hostname=a.weave.local", "--name", "a", "ubuntu"]);
  for (const given of [["-h", "x"], ["-hx"], ["--hostname", "x"], ["--hostname=x"]]) {
    assert.deepEqual(plan("--name=a", ...given, "ubuntu"), [...start, "--name=a", ...given, "ubuntu"]);
  }
  const without = { dns: undefined, held: undefined };
  assert.deepEqual(planRun(["--name=a", "ubuntu"], without), ["-e", "WEAVE_CIDR=none", "--name=a", "ubuntu"]);
});

Deno.test("planRun() writes down for later starts what a container that is held was given", () => {
  const addresses = ["10.0.0.1/24", "ip:10.0.1.1/24", "net:10.2.0.0/16", "net:default"].map((text) =>
    parseAddressToken(text)!
  );
  const plan = (held: Omit<Parameters<typeof planRun>[1]["held"] & object, "addresses">) =>
    planRun(["ubuntu"], { dns: undefined, held: { addresses, ...held } }).slice(0, 4);
  const cidr = ["-e", "WEAVE_CIDR=10.0.0.1/24 10.0.1.1/24 net:10.2.0.0/16 net:default", "--label"];
  assert.deepEqual(plan({ rewriteHosts: true }), [...cidr, "works.weave.run="]);
  assert.deepEqual(plan({ withoutDns: true, rewriteHosts: false, noMulticastRoute: true }), [
    ...cidr,
    "works.weave.run=without-dns no-rewrite-hosts no-multicast-route",
  ]);
});

Deno.test("planRun() refuses a container without a network of its own", () => {
  for (const args of [["--net=host"], ["--network", "host"], ["--net", "container:a"], ["--network=container:a"]]) {
    assert.throws(() => planRun([...args, "ubuntu"], { dns: DNS, held: undefined }), /no network of its own/);
  }
  planRun(["--net=none", "ubuntu"], { dns: DNS, held: undefined });
});
