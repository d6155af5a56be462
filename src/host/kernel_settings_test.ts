import assert from "node:assert/strict";
import { inOwnNamespace } from "../../test/own_namespace.ts";
import { run } from "./command.ts";
import { KernelSettings, pushDown, serviceSettingsFile, servicesInKernel } from "./kernel_settings.ts";
import { Links, readSysctl, setSysctl } from "./links.ts";

const FILTER = (link: string) => `net/ipv4/conf/${link}/rp_filter`;

inOwnNamespace(import.meta.url, () => {
  Deno.test("pushDown() has links keep what `all` said, but for those that are to have 0", async () => {
    using links = new Links();
    for (const name of ["a", "b"]) links.create({ name, kind: { type: "bridge" } });
    setSysctl(FILTER("all"), 1);
    setSysctl(FILTER("b"), 2);
    const read = () => ["all", "default", "lo", "a", "b"].map((link) => readSysctl(FILTER(link)));
    const before = read();
    const settings = await KernelSettings.open(serviceSettingsFile("/run/weave"));
    assert.equal(servicesInKernel("/run/weave"), false);
    const wanted = () => pushDown("rp_filter", ["lo", "a", "b"], new Set(["a"]));
    assert.equal(await settings.set(wanted()), true);
    assert.deepEqual(read(), [0, 1, 1, 0, 2]);
    assert.equal(servicesInKernel("/run/weave"), true);
    assert.equal(await settings.set(wanted()), false);
    // A link that comes later is as before.
    links.create({ name: "c", kind: { type: "bridge" } });
    assert.equal(readSysctl(FILTER("c")), 1);

    const again = await KernelSettings.open(serviceSettingsFile("/run/weave"));
    assert.equal(again.before(FILTER("all")), 1);
    assert.equal(again.before(FILTER("a")), undefined);
    await again.restore();
    assert.deepEqual(read(), before);
    assert.equal(servicesInKernel("/run/weave"), false);
    for (const name of ["a", "b", "c"]) links.delete(links.find(name)!.index);
    setSysctl(FILTER("all"), 0);
  });

  Deno.test("KernelSettings.restore() leaves what somebody else has changed since", async () => {
    const path = "net/ipv4/ip_forward";
    const settings = await KernelSettings.open(serviceSettingsFile("/run/weave"));
    setSysctl(path, 0);
    await settings.set(new Map([[path, 1], ["net/ipv4/no/such", 1]]));
    assert.equal(readSysctl(path), 1);
    setSysctl("net/ipv4/fwmark_reflect", 0);
    await settings.set(new Map([["net/ipv4/fwmark_reflect", 1]]));
    setSysctl("net/ipv4/fwmark_reflect", 0);
    await settings.restore();
    assert.equal(readSysctl(path), 0);
    assert.equal(readSysctl("net/ipv4/fwmark_reflect"), 0);
  });

  Deno.test("KernelSettings.open() takes nothing from a file that names anything but settings of the network", async () => {
    await run("/bin/sh", ["-c", "mkdir -p /run/weave"]);
    for (const path of ["kernel/hostname", "net/../kernel/panic"]) {
      const data = { [path]: { before: 1, ours: 0 } };
      await Deno.writeTextFile(serviceSettingsFile("/run/weave"), JSON.stringify({ version: "1.0", data }));
      const settings = await KernelSettings.open(serviceSettingsFile("/run/weave"));
      assert.equal(settings.before(path), undefined);
      await settings.restore();
    }
  });
});
