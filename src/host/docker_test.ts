import assert from "node:assert/strict";
import { dockerIsThere, fqdnOf, inspectContainer, runningContainers } from "./docker.ts";

Deno.test("fqdnOf() wants a domain", () => {
  assert.equal(fqdnOf({ hostname: "a", domainname: "weave.local" }), "a.weave.local");
  assert.equal(fqdnOf({ hostname: "a.weave.local", domainname: "" }), "a.weave.local");
  assert.equal(fqdnOf({ hostname: "a", domainname: "" }), undefined);
  assert.equal(fqdnOf({ hostname: "", domainname: "" }), undefined);
});

Deno.test("inspectContainer() and runningContainers() read what an engine at DOCKER_HOST answers", async (t) => {
  const directory = await Deno.makeTempDir();
  const socket = `${directory}/docker.sock`;
  const id = "0123456789ab".padEnd(64, "c");
  const container = (running: boolean) => ({
    Id: id,
    Name: "/a1",
    State: { Running: running, Pid: running ? 77 : 0 },
    HostConfig: { NetworkMode: "default" },
    Config: { Hostname: "a1", Domainname: "weave.local" },
    HostsPath: "/var/lib/docker/containers/x/hosts",
  });
  const server = Deno.serve({ path: socket, onListen() {} }, (request) => {
    const path = new URL(request.url).pathname.replace(/^\/v[\d.]+/, "");
    const answers: Record<string, [number, unknown]> = {
      "/containers/json": [200, [{ Id: id }, { Id: "gone" }, { Id: "stopped" }]],
      [`/containers/${id}/json`]: [200, container(true)],
      "/containers/a1/json": [200, container(true)],
      "/containers/stopped/json": [200, container(false)],
      "/containers/01/json": [400, { message: "multiple IDs found with provided prefix: 01" }],
      "/containers/strange/json": [200, { Name: 5 }],
    };
    const [status, body] = answers[path] ?? [404, { message: `No such container: ${path}` }];
    return Response.json(body, { status });
  });
  const before = Deno.env.get("DOCKER_HOST");
  Deno.env.set("DOCKER_HOST", `unix://${socket}`);
  try {
    await t.step("by name", async () => {
      assert.equal(dockerIsThere(), true);
      assert.deepEqual(await inspectContainer("a1"), {
        id,
        name: "a1",
        running: true,
        exitCode: 0,
        pid: 77,
        networkMode: "default",
        hostname: "a1",
        domainname: "weave.local",
        hostsPath: "/var/lib/docker/containers/x/hosts",
      });
      assert.equal((await inspectContainer("stopped")).running, false);
    });
    await t.step("all that run", async () => {
      assert.deepEqual((await runningContainers()).map((c) => c.id), [id]);
    });
    await t.step("with Weave's words where there is none", async () => {
      const message = "unable to inspect container nope: No such container: nope";
      await assert.rejects(inspectContainer("nope"), { name: "OperationError", message, exitStatus: 1 });
    });
    await t.step("with the engine's words otherwise", async () => {
      await assert.rejects(inspectContainer("01"), /unable to inspect container 01: multiple IDs found/);
      await assert.rejects(inspectContainer("strange"), /the answer has no id/);
    });
    await server.shutdown();
    await Deno.remove(socket).catch(() => {});
    await t.step("with the address where nobody answers", async () => {
      await assert.rejects(inspectContainer("a1"), {
        message: `unable to inspect container a1: Cannot reach the Docker engine at unix://${socket}: ENOENT`,
      });
      assert.equal(dockerIsThere(), false);
    });
  } finally {
    if (before === undefined) Deno.env.delete("DOCKER_HOST");
    else Deno.env.set("DOCKER_HOST", before);
    await Deno.remove(directory, { recursive: true });
  }
});
