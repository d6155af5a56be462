import assert from "node:assert/strict";
import { planRun } from "./run.ts";

Deno.test("planRun() keeps the proxy off and names the container in the domain", () => {
  const dns = { dockerArguments: ["--dns=172.17.0.1"], domain: "weave.local." };
  const plan = (...args: string[]) => planRun(args, dns);
  const start = ["-e", "WEAVE_CIDR=none", "--dns=172.17.0.1"];
  assert.deepEqual(plan("-t", "ubuntu"), [...start, "-t", "ubuntu"]);
  assert.deepEqual(plan("--name", "a", "ubuntu"), [...start, "--hostname=a.weave.local", "--name", "a", "ubuntu"]);
  assert.deepEqual(plan("--name=a", "ubuntu"), [...start, "--hostname=a.weave.local", "--name=a", "ubuntu"]);
  for (const given of [["-h", "x"], ["-hx"], ["--hostname", "x"], ["--hostname=x"]]) {
    assert.deepEqual(plan("--name=a", ...given, "ubuntu"), [...start, "--name=a", ...given, "ubuntu"]);
  }
  assert.deepEqual(planRun(["--name=a", "ubuntu"], undefined), ["-e", "WEAVE_CIDR=none", "--name=a", "ubuntu"]);
});
