import assert from "node:assert/strict";
import { inOwnNamespace } from "../test/own_namespace.ts";
import { DescriptorTrace } from "./fd.ts";
import { describeLack, probeMachine } from "./probe.ts";

inOwnNamespace(import.meta.url, () => {
  Deno.test("probeMachine() finds nothing missing where tests of the network run, and leaves nothing behind", async () => {
    using trace = new DescriptorTrace();
    const before = await shell("ip -o link");
    const namespace = Deno.readLinkSync("/proc/thread-self/ns/net");
    assert.deepEqual(probeMachine().map(describeLack), []);
    assert.equal(await shell("ip -o link"), before);
    assert.equal(Deno.readLinkSync("/proc/thread-self/ns/net"), namespace);
    assert.deepEqual(trace.left(), []);
  });

  const without = (capability: string) => `setpriv --bounding-set=-${capability} --inh-caps=-${capability}`;
  const cases: readonly [string, string, readonly string[]][] = [
    ["CAP_NET_ADMIN", without("net_admin"), [
      "Cannot do without CAP_NET_ADMIN: netlink: EPERM (Operation not permitted): " +
      "the bridge and its ports cannot be made; run as root, with all capabilities",
    ]],
    ["CAP_SYS_ADMIN", without("sys_admin"), [
      "Missing CAP_SYS_ADMIN: unshare: EPERM (Operation not permitted): " +
      "attach cannot enter containers; run as root, with all capabilities",
    ]],
    ["CAP_NET_RAW", without("net_raw"), [
      'Missing CAP_NET_RAW: socket: EPERM (Operation not permitted), what "packet socket": ' +
      "attach and expose cannot announce addresses; run as root, with all capabilities",
    ]],
    ["/dev/net/tun", `unshare -m sh -c 'mount -t tmpfs tmpfs /dev/net; exec "$@"' sh`, [
      'Cannot do without /dev/net/tun: open: ENOENT (No such file or directory), path "/dev/net/tun": ' +
      "the router cannot read or write frames; modprobe tun, or allow the device to this container or virtual server",
    ]],
    ["settings", `unshare -m sh -c 'mount --bind -o ro /proc/sys /proc/sys; exec "$@"' sh`, [
      "Cannot do without write access to /proc/sys: open: EROFS (Read-only file system), " +
      'path "/proc/sys/net/ipv4/conf/all/arp_ignore": interfaces cannot be set up; mount it without ro',
    ]],
  ];
  for (const [what, wrapper, expected] of cases) {
    Deno.test(`probeMachine() says that ${what} is missing, and what that costs`, async () => {
      const before = await shell("ip -o link");
      const script = `import { describeLack, probeMachine } from ${
        JSON.stringify(new URL("./probe.ts", import.meta.url).href)
      };
        console.log(probeMachine().map(describeLack).join("\\n"));`;
      const quoted = `'${script.replaceAll("'", `'\\''`)}'`;
      const output = await shell(`${wrapper} "${Deno.execPath()}" eval --no-lock ${quoted}`);
      assert.deepEqual(output.trim().split("\n"), expected);
      assert.equal(await shell("ip -o link"), before);
    });
  }
});

async function shell(script: string): Promise<string> {
  const { success, stdout, stderr } = await new Deno.Command("sh", { args: ["-ec", script] }).output();
  assert.ok(success, new TextDecoder().decode(stderr));
  return new TextDecoder().decode(stdout);
}
