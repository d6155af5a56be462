import assert from "node:assert/strict";
import { join } from "node:path";
import { attempt, type CommandResult } from "../test/netns/command.ts";
import { isThere } from "../test/packages.ts";
import { testUnless } from "../test/skip.ts";
import { compileHelper, HELPER } from "./compile.ts";
import { ARCHITECTURES } from "./runtime_base.ts";

const PROJECT = join(import.meta.dirname!, "..");

/** A root of its own over this machine's, with the helper where a container has it. */
const PREPARE = `
mount -t tmpfs tmpfs /run
mkdir /run/upper /run/work /run/root
mount -t overlay overlay -o lowerdir=/,upperdir=/run/upper,workdir=/run/work /run/root
for folder in proc dev; do mount --rbind /$folder /run/root/$folder; done
mkdir /run/root/w
cp "$1" /run/root/w/w
exec chroot /run/root sh -c "$2"
`;

const LINK = "ip link add ethwe type veth peer name other && ip link set ethwe up";
const ROUTE = "ip route add 224.0.0.0/4 dev ethwe";

for (const architecture of ARCHITECTURES) {
  const native = architecture.name === Deno.build.arch;
  const emulator = native ? [] : ["/usr/bin/qemu-aarch64-static"];
  const missing = Deno.uid() !== 0
    ? "it needs root"
    : !isThere(native ? "gcc" : "aarch64-linux-gnu-gcc")
    ? "there is no compiler for it"
    : emulator.some((program) => !isThere(program))
    ? "there is no emulator for it"
    : undefined;

  testUnless(missing, `the helper for ${architecture.name} holds a command until its network is there`, async () => {
    await using world = await World.make(architecture, emulator);
    // At once where it is there, or nothing is to be waited for.
    assert.equal((await world.run(`${LINK}; ${ROUTE}; W echo hi`)).stdout, "hi\n");
    assert.equal((await world.run("touch /w/no-wait; W echo hi")).stdout, "hi\n");
    assert.equal((await world.run(`touch /w/no-multicast; ${LINK}; W echo hi`)).stdout, "hi\n");
    // As soon as the last of it is.
    const order = `${LINK}; sleep 0.3; echo link; ${ROUTE}; wait`;
    assert.equal((await world.run(`W echo held & sleep 0.3; echo nothing; ${order}`)).stdout, "nothing\nlink\nheld\n");
    const late = await world.run(`W echo held & ${LINK}; sleep 0.3; echo told; touch /w/no-multicast; wait`);
    assert.equal(late.stdout, "told\nheld\n", "a file that comes later counts");
    // What it becomes is none the wiser.
    const status = "W sh -c 'echo $0 $1; grep -E SigBlk /proc/self/status; ls /proc/self/fd | wc -l; exit 7' a b";
    const become = await world.run(`touch /w/no-wait; ${status}; echo $?`);
    assert.match(become.stdout, /^a b\nSigBlk:\t0{16}\n\d+\n7\n$/);
    assert.equal((await world.run("touch /w/no-wait; A=b W env")).stdout.includes("A=b\n"), true);
  });

  testUnless(missing, `the helper for ${architecture.name} says what it cannot run`, async () => {
    await using world = await World.make(architecture, emulator);
    const cases: readonly (readonly [command: string, says: string])[] = [
      ["W nosuch", 'exec: "nosuch": executable file not found in $PATH'],
      ["W /no/such", 'exec: "/no/such": no such file or directory'],
      ["W ./no/such", 'exec: "./no/such": no such file or directory'],
      ["W /usr", 'exec: "/usr": permission denied'],
      ["PATH=/nonexistent:/etc W passwd", 'exec: "passwd": permission denied'],
      ["PATH= W nosuch", 'exec: "nosuch": executable file not found in $PATH'],
      ["W", "usage: /w/w COMMAND [ARGUMENT...]"],
    ];
    for (const [command, says] of cases) {
      const { code, stderr } = await world.run(`touch /w/no-wait; ${command}`);
      assert.deepEqual([code, stderr.trim()], [1, says], command);
    }
    assert.equal((await world.run("touch /w/no-wait; PATH=/nonexistent:/usr/bin:/bin W true")).code, 0);
  });

  testUnless(missing, `the helper for ${architecture.name} ends when it is told to while it waits`, async () => {
    await using world = await World.make(architecture, emulator);
    for (const [signal, number] of [["TERM", 15], ["INT", 2], ["HUP", 1], ["QUIT", 3]] as const) {
      // The first process of a PID namespace gets no signal that it did not ask for.
      const first = "unshare --pid --fork --kill-child sh -c 'exec \"$@\"' sh";
      const script = `set -m; ${first} $WAITER & sleep 0.5; kill -${signal} $(pgrep -P $!); wait $!; echo $?`;
      assert.equal((await world.run(script)).stdout, `${128 + number}\n`, signal);
    }
  });
}

Deno.test("compileHelper() says what it lacks, and leaves nothing of another machine", async () => {
  const folder = await Deno.makeTempDir({ prefix: "weave-helper-" });
  const path = Deno.env.get("PATH")!;
  try {
    await Deno.writeTextFile(join(folder, "w"), "old");
    Deno.env.set("PATH", folder);
    const why = await compileHelper(ARCHITECTURES[1]!, join(PROJECT, HELPER.source), join(folder, "w"));
    assert.match(why!, /^no aarch64-linux-gnu-gcc( or gcc or cc)? here$/);
    assert.equal(isThere(join(folder, "w")), false);
  } finally {
    Deno.env.set("PATH", path);
    await Deno.remove(folder, { recursive: true });
  }
});

class World implements AsyncDisposable {
  private constructor(readonly folder: string, readonly helper: string, readonly emulator: readonly string[]) {}

  static async make(architecture: typeof ARCHITECTURES[number], emulator: readonly string[]): Promise<World> {
    const folder = await Deno.makeTempDir({ prefix: "weave-helper-" });
    const helper = join(folder, "w");
    const why = await compileHelper(architecture, join(PROJECT, HELPER.source), helper);
    assert.equal(why, undefined);
    return new World(folder, helper, emulator);
  }

  /** Runs a script in which `W` stands for the helper. */
  async run(script: string): Promise<CommandResult> {
    const waiter = [...this.emulator, "/w/w"].join(" ");
    const inside = `export WAITER="${waiter} true"; W() { ${waiter} "$@"; }; ${script}`;
    return await attempt(["unshare", "--net", "--mount", "sh", "-ec", PREPARE, "sh", this.helper, inside]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Deno.remove(this.folder, { recursive: true });
  }
}
