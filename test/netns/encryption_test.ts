import assert from "node:assert/strict";
import { Lab } from "./lab.ts";
import { attachNew, connections, line, report, waitEstablished, waitPing } from "./mesh.ts";
import { delay, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** How long a connection that must not come about is watched. */
const REFUSED_MS = 6_000;

testAsRoot("weave launch --password encrypts what containers say", async () => {
  await using lab = new Lab({ env: { WEAVE_PASSWORD: "wfvAwt7sj" } });
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  assert.match(await a!.weave("status", "connections"), / established +encrypted +sleeve /);
  assert.match(await a!.weave("status"), /Encryption: enabled/);

  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  assert.ok(!await seenOnTheWire(), "the marked ping is readable on the wire");
  const commandLines = await a!.sh("cat /proc/[0-9]*/cmdline | tr '\\0' ' '");
  assert.ok(!commandLines.includes("wfvAwt7sj"), "the password is in a command line");

  async function seenOnTheWire(): Promise<boolean> {
    await using sniffer = b!.spawn(["tcpdump", "-l", "-n", "-A", "-i", "eth0", "udp", "port", "6783"]);
    await waitFor("tcpdump to listen", () => sniffer.stderr.includes("listening on"), 5_000);
    // The pattern says WEAVE over and over.
    assert.ok(await c1.pings("10.0.0.2", "-p", "5745415645", "-s", "200"));
    await waitFor("a packet", () => sniffer.stdout.length > 0, 5_000);
    return sniffer.stdout.includes("WEAVEWEAVE");
  }
});

testAsRoot("a host without libsodium encrypts all the same, and status says with what", async () => {
  await using lab = new Lab({ env: { WEAVE_PASSWORD: "secret" } });
  const { hosts: [a, b] } = await line(lab, 2);
  await b!.sh("for library in /usr/lib/*/libsodium.so*; do mount --bind /dev/null $library; done");
  await a!.weave("launch");
  await b!.weave("launch", a!.address());
  await waitEstablished(a!, [b!]);
  assert.match(await a!.weave("status"), /^ +SecretBox: libsodium$/m);
  assert.match(await b!.weave("status"), /^ +SecretBox: libsodium \(WebAssembly\)$/m);
  const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
  await attachNew(b!, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  assert.ok(await c1.pings("10.0.0.2", "-s", "4000", "-M", "dont"));
});

testAsRoot("a wrong password is told apart from an unreachable host", async () => {
  await using lab = new Lab();
  const { hosts: [a, b] } = await line(lab, 2);
  await a!.weave("launch", "--password", "right");
  await b!.weave("launch", "--password", "wrong", a!.address());
  await waitFor(
    "the reason on b",
    async () => {
      return (await b!.weave("status", "connections")).includes("Unable to decrypt TCP msg");
    },
    10_000,
    [a!, b!],
  );
  await delay(REFUSED_MS);
  for (const host of [a!, b!]) {
    assert.ok(!(await connections(host)).some((connection) => connection.State === "established"));
    assert.equal((await report(host)).Router.Peers?.length, 1);
  }
});

testAsRoot("a password on one side only is refused, and both sides say why", async () => {
  for (const withPassword of ["a", "b"]) {
    await using lab = new Lab();
    const { hosts: [a, b] } = await line(lab, 2);
    await a!.weave("launch", ...withPassword === "a" ? ["--password", "secret"] : []);
    await b!.weave("launch", ...withPassword === "b" ? ["--password", "secret"] : [], a!.address());
    const reason = withPassword === "b"
      ? "password specified, but peer requested an unencrypted connection"
      : "no password specificed, but peer requested an encrypted connection";
    await waitFor("the reason on b", async () => (await b!.weave("status", "connections")).includes(reason), 10_000, [
      b!,
    ]);
    assert.ok(!(await connections(b!)).some((connection) => connection.State === "established"));
  }
});

testAsRoot("--trusted-subnets leaves data in clear when both ends trust each other, and only then", async () => {
  for (const mutual of [false, true]) {
    await using lab = new Lab({ env: { WEAVE_PASSWORD: "secret" } });
    const { hosts: [a, b] } = await line(lab, 2);
    await a!.weave("launch", "--trusted-subnets", "192.168.1.0/24");
    await b!.weave("launch", ...mutual ? ["--trusted-subnets", "192.168.1.0/24"] : [], a!.address());
    await waitEstablished(a!, [b!]);
    const shown = await a!.weave("status", "connections");
    assert.match(shown, mutual ? / unencrypted +sleeve / : / encrypted +sleeve /);
    const c1 = await attachNew(a!, "c1", "10.0.0.1/24");
    await attachNew(b!, "c2", "10.0.0.2/24");
    await waitPing(c1, "10.0.0.2");
  }
});
