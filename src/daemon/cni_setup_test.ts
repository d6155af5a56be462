import assert from "node:assert/strict";
import { join } from "node:path";
import { VERSION } from "../config/version.ts";
import { refreshCni, setupCni } from "./cni_setup.ts";

const PROGRAM = `weave-plugin-${VERSION}`;

Deno.test("setupCni() installs the program by both names and a configuration, once", async () => {
  await using place = await Place.make();
  const { executable, binDir, configDir } = place;
  await setupCni({ executable, binDir, configDir, hairpin: true });
  assert.deepEqual(place.names(), ["weave-ipam", "weave-net", PROGRAM]);
  assert.equal(await Deno.readTextFile(join(binDir, "weave-net")), "program 1");
  assert.equal(await Deno.readLink(join(binDir, "weave-ipam")), PROGRAM);
  const config = join(configDir, "10-weave.conflist");
  const { plugins } = JSON.parse(await Deno.readTextFile(config));
  assert.deepEqual(plugins.map(({ type }: { type: string }) => type), ["weave-net", "portmap"]);
  assert.equal(plugins[0].hairpinMode, true);

  const { ino } = await Deno.stat(join(binDir, PROGRAM));
  await Deno.writeTextFile(config, "mine");
  await setupCni({ executable, binDir, configDir, hairpin: false });
  assert.equal((await Deno.stat(join(binDir, PROGRAM))).ino, ino, "it is not copied again");
  assert.equal(await Deno.readTextFile(config), "mine");
});

Deno.test("setupCni() takes the place of copies, older versions and an old configuration", async () => {
  await using place = await Place.make();
  const { executable, binDir, configDir } = place;
  await Deno.mkdir(binDir);
  for (const name of ["weave-net", "weave-plugin-0.0.1", PROGRAM, "portmap"]) {
    await Deno.writeTextFile(join(binDir, name), "old");
  }
  await Deno.writeTextFile(join(configDir, "10-weave.conf"), "old");
  await setupCni({ executable, binDir, configDir, hairpin: false });
  assert.deepEqual(place.names(), ["portmap", "weave-ipam", "weave-net", PROGRAM]);
  assert.equal(await Deno.readTextFile(join(binDir, "weave-net")), "program 1");
  assert.deepEqual([...Deno.readDirSync(configDir)].map(({ name }) => name), ["10-weave.conflist"]);
});

Deno.test("setupCni() writes no configuration where no runtime has one", async () => {
  await using place = await Place.make();
  const { executable, binDir } = place;
  const configDir = join(place.folder, "nowhere");
  await setupCni({ executable, binDir, configDir, hairpin: true });
  await assert.rejects(Deno.stat(configDir), Deno.errors.NotFound);
  await assert.rejects(
    setupCni({ executable, binDir: join(executable, "bin"), configDir, hairpin: true }),
    /Cannot install the CNI plugin in ".*": /,
  );
});

Deno.test("refreshCni() brings what is installed up to date, and installs nothing", async () => {
  await using place = await Place.make();
  const { executable, binDir } = place;
  await refreshCni({ executable, binDir });
  await assert.rejects(Deno.stat(binDir), Deno.errors.NotFound);
  await Deno.mkdir(binDir);
  await Deno.writeTextFile(join(binDir, "weave-plugin-0.0.1"), "old");
  await Deno.symlink("weave-plugin-0.0.1", join(binDir, "weave-net"));
  await refreshCni({ executable, binDir });
  assert.deepEqual(place.names(), ["weave-ipam", "weave-net", PROGRAM]);
  assert.equal(await Deno.readTextFile(join(binDir, "weave-net")), "program 1");
});

class Place implements AsyncDisposable {
  readonly executable: string;
  readonly binDir: string;
  readonly configDir: string;

  private constructor(readonly folder: string) {
    this.executable = join(folder, "weave");
    this.binDir = join(folder, "bin");
    this.configDir = join(folder, "net.d");
  }

  static async make(): Promise<Place> {
    const place = new Place(await Deno.makeTempDir({ prefix: "weave-cni-" }));
    await Deno.writeTextFile(place.executable, "program 1");
    await Deno.mkdir(place.configDir);
    return place;
  }

  names(): string[] {
    return [...Deno.readDirSync(this.binDir)].map(({ name }) => name).sort();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}
