import assert from "node:assert/strict";
import type { RunningCommand } from "./command.ts";
import type { Container, EmulatedHost } from "./host.ts";
import { dropFragmentationNeeded, Lab, makeRouter } from "./lab.ts";
import { attachNew, line, waitEstablished, waitPing } from "./mesh.ts";
import { measure, waitFor } from "./wait.ts";
import { testAsRoot } from "../skip.ts";

/** Octets of Ethernet, IPv4 and ICMP headers around the data of a ping. */
const PING_HEADERS = 14 + 20 + 8;

/** For experiments on one's own network (IEEE Std 802). */
const EXPERIMENTAL_ETHERTYPE = 0x88b5;

/** From the smallest frame to a large one, with the edges of the underlay's 1500 octets between. */
const FRAME_OCTETS = [60, 61, 64, 576, 1390, 1400, 1438, 1439, 1452, 1500, 1514, 2000, 4096, 9000];

testAsRoot("frames of 60 to 9000 octets pass whole, in clear and encrypted", async () => {
  for (const password of ["", "secret"]) {
    await using lab = new Lab({ env: { WEAVE_NO_FASTDP: "1", ...password ? { WEAVE_PASSWORD: password } : {} } });
    const { c1, c2 } = await pair(lab);
    assert.match(await c1.sh("ip link show ethwe"), /mtu 65535 /);
    for (const octets of FRAME_OCTETS) {
      // The kernel would forbid to fragment them, and those above the path MTU would be refused.
      assert.ok(await c1.pings("10.0.0.2", "-M", "dont", "-s", String(octets - PING_HEADERS)), `${octets} octets`);
    }
    await transfer(c1, c2, 1_000_000);
  }
});

testAsRoot("a frame that must not be fragmented is answered with the path MTU", async () => {
  await using lab = new Lab({ env: { WEAVE_NO_FASTDP: "1" } });
  const { c1 } = await pair(lab);
  const refused = await waitFor(
    "the answer",
    async () => {
      const ping = await c1.attempt(["ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", "3000", "10.0.0.2"]);
      return /Frag needed.*mtu = (\d+)|message too long, mtu: (\d+)/.exec(ping.stdout + ping.stderr);
    },
    10_000,
    lab.hosts,
  );
  // 1500 octets less IP, UDP and sleeve's headers, and the Ethernet header inside.
  assert.equal(Number(refused[1] ?? refused[2]), 1438);
  assert.ok(await c1.pings("10.0.0.2", "-M", "do", "-s", String(1438 - 28)));
});

for (const told of [true, false]) {
  testAsRoot(`a smaller MTU on the way is found ${told ? "with" : "without"} ICMP`, async () => {
    await using lab = new Lab();
    const [a, middle, b] = [await lab.host("a"), await lab.host("middle"), await lab.host("b")];
    await lab.link(a, middle);
    const narrow = await lab.link(middle, b);
    await makeRouter(middle);
    await narrow.setMtu(1200);
    if (!told) await dropFragmentationNeeded(middle);
    await a.sh(`ip route add default via ${middle.address(a)}`);
    await b.sh(`ip route add default via ${middle.address(b)}`);
    await a.weave("launch");
    await b.weave("launch", a.address());
    await waitEstablished(a, [b]);
    const c1 = await attachNew(a, "c1", "10.0.0.1/24");
    const c2 = await attachNew(b, "c2", "10.0.0.2/24");
    await waitPing(c1, "10.0.0.2");
    const full = () => c1.pings("10.0.0.2", "-M", "dont", "-s", String(1376 - 28));
    const passed = await measure(() => waitFor("a ping of full size", full, 10_000, [a, b]));
    const exact = async () => / mtu=1138$/m.test(await a.weave("status", "connections"));
    const found = await measure(() => waitFor("the exact MTU: 1200 less 62 octets of headers", exact, 30_000, [a, b]));
    const warning = /^ +warning +path MTU to \S+\(b\) is 1138, below the bridge's 1376, .* WEAVE_MTU=1138,/m;
    assert.match(await a.weave("status", "connections"), warning);
    console.log(`full frames pass ${passed} ms after the first ping, the path MTU is known ${found} ms later`);
    await transfer(c1, c2, 200_000);
  });
}

testAsRoot("frames pass where large UDP packets are lost on the way", async () => {
  await using lab = new Lab({ env: { WEAVE_NO_FASTDP: "1" } });
  const { hosts: [a, b], links: [link] } = await line(lab, 2);
  await link!.dropLarger(700);
  const { c1, c2 } = await pairOn(a!, b!);
  await waitFor("a ping of 10000 octets", () => c1.pings("10.0.0.2", "-s", "10000"), 60_000, [a!, b!]);
  await transfer(c1, c2, 20_000);
});

testAsRoot("TCP gets through 5 % loss and a slow link", async () => {
  await using lab = new Lab();
  const { hosts: [a, b], links: [link] } = await line(lab, 2);
  const { c1, c2 } = await pairOn(a!, b!);
  await link!.lose(5);
  await link!.limitRate("50mbit");
  await transfer(c1, c2, 200_000);
});

testAsRoot("frames of every kind pass", async (t) => {
  await using lab = new Lab();
  const { c1, c2 } = await pair(lab);
  const [mac1, mac2] = await Promise.all([c1, c2].map((c) => c.sh("cat /sys/class/net/ethwe/address")));

  await t.step("IPv6", async () => {
    const linkLocal = await waitFor("a link-local address", async () => {
      return /inet6 (fe80\S+)\//.exec(await c2.sh("ip -6 address show dev ethwe -tentative"))?.[1];
    }, 5_000);
    await waitFor("a ping by IPv6", () => c1.pings(`${linkLocal}%ethwe`), 5_000);
  });

  await t.step("multicast and broadcast", async () => {
    await c2.sh("echo 0 > /proc/sys/net/ipv4/icmp_echo_ignore_broadcasts");
    assert.ok(await c1.pings("224.0.0.1", "-I", "ethwe"), "all hosts, by multicast");
    assert.ok(await c1.pings("10.0.0.255", "-b"), "all hosts, by broadcast");
  });

  await t.step("ARP, to all and to the owner of the address", async () => {
    await using sniffer = await sniff(c2, "arp");
    await c1.sh("ip neighbour flush dev ethwe");
    assert.ok(await c1.pings("10.0.0.2"));
    assert.match(await c1.sh("ip neighbour show 10.0.0.2 dev ethwe"), new RegExp(`lladdr ${mac2} REACHABLE`));
    await waitSeen(sniffer, /> ff:ff:ff:ff:ff:ff, .* who-has 10\.0\.0\.2 tell 10\.0\.0\.1/);
    // What is known is asked for again before it is used for long.
    await c1.sh("ip neighbour change 10.0.0.2 dev ethwe nud probe");
    await waitSeen(sniffer, new RegExp(`> ${mac2}, .* who-has 10\\.0\\.0\\.2 .*tell 10\\.0\\.0\\.1`));
  });

  await t.step("tagged for a VLAN, small and of full size", async () => {
    await using sniffer = await sniff(c2, "vlan");
    using link = c1.openLink("ethwe", EXPERIMENTAL_ETHERTYPE);
    for (const [id, octets] of [[5, 64], [4094, 1376 + 14 + 4]] as const) {
      const addresses = Uint8Array.fromHex(`${mac2}${mac1}`.replaceAll(":", ""));
      const head = [
        ...addresses,
        0x81,
        0x00,
        id >> 8,
        id & 0xff,
        EXPERIMENTAL_ETHERTYPE >> 8,
        EXPERIMENTAL_ETHERTYPE & 0xff,
      ];
      link.send(Uint8Array.from([...head, ...new Array(octets - head.length).fill(0x5a)]));
      const seen = `> ${mac2}, ethertype 802\\.1Q .*length ${octets}: vlan ${id}, p 0, ethertype .*0x88b5`;
      await waitSeen(sniffer, new RegExp(seen), lab.hosts);
    }
  });
});

/** What arrives in a container, a line a frame. */
async function sniff(container: Container, filter: string): Promise<RunningCommand> {
  const sniffer = container.spawn(["tcpdump", "-l", "-n", "-e", "-i", "ethwe", filter]);
  await waitFor("tcpdump to listen", () => sniffer.stderr.includes("listening on"), 5_000);
  return sniffer;
}

async function waitSeen(sniffer: RunningCommand, pattern: RegExp, witnesses: EmulatedHost[] = []): Promise<void> {
  const look = () => {
    if (!pattern.test(sniffer.stdout)) throw new Error(`seen so far: ${sniffer.stdout}`);
    return true;
  };
  await waitFor(`a frame like ${pattern}`, look, 5_000, witnesses);
}

/** Two hosts with a router and a container each, which reach each other. */
async function pair(lab: Lab): Promise<{ c1: Container; c2: Container }> {
  const { hosts: [a, b] } = await line(lab, 2);
  return await pairOn(a!, b!);
}

async function pairOn(a: EmulatedHost, b: EmulatedHost): Promise<{ c1: Container; c2: Container }> {
  await a.weave("launch");
  await b.weave("launch", a.address());
  await waitEstablished(a, [b]);
  const c1 = await attachNew(a, "c1", "10.0.0.1/24");
  const c2 = await attachNew(b, "c2", "10.0.0.2/24");
  await waitPing(c1, "10.0.0.2");
  return { c1, c2 };
}

/** Sends so many lines from one container to another by TCP and checks what arrives. */
async function transfer(from: Container, to: Container, lines: number): Promise<void> {
  const timeoutMs = 60_000;
  await using receiver = to.spawn(["sh", "-c", "nc -l 4000 | cksum"]);
  await waitFor("nc to listen", async () => (await to.sh("ss -Htln sport = :4000")) !== "", 5_000);
  await from.sh(`seq ${lines} | nc -N -w 30 ${await addressOf(to)} 4000`, { timeoutMs });
  const { stdout } = await receiver.finished(timeoutMs);
  assert.equal(stdout.trim(), await from.sh(`seq ${lines} | cksum`));
}

async function addressOf(container: Container): Promise<string> {
  return /inet ([\d.]+)/.exec(await container.sh("ip -4 -o address show ethwe"))![1]!;
}
