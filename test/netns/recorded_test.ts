/**
 * Sessions recorded between routers of Weave Net, played over real sockets against the executable: this process plays one router,
 * in a network namespace of its own, and the executable stands for the other, with the ids that one had.
 */

import assert from "node:assert/strict";
import { inOwnNamespace } from "../own_namespace.ts";
import { run } from "./command.ts";
import { EmulatedHost } from "./host.ts";
import { report } from "./mesh.ts";
import { Player, type RecordedPackets, type Recording } from "./player.ts";

const VECTORS = new URL("../fixtures/vectors/", import.meta.url);

interface Session {
  readonly name: string;
  readonly plays: string;
  readonly against: string;
  readonly args?: readonly string[];
  /** What the router under test has at the end, to be asked before the last item. */
  readonly established: boolean;
  /** The container of the router under test, where the recording has one that answers. */
  readonly container?: { readonly mac: string; readonly cidr: string };
}

const SESSIONS: readonly Session[] = [
  { name: "plain", plays: "2", against: "1", established: true },
  {
    name: "plain",
    plays: "1",
    against: "2",
    established: true,
    container: { mac: "06:00:00:00:00:02", cidr: "10.32.0.200/24" },
  },
  { name: "badpw", plays: "2", against: "1", args: ["--password", "one"], established: false },
  { name: "nopw", plays: "2", against: "1", args: ["--password", "one"], established: false },
];

inOwnNamespace(import.meta.url, () => {
  for (const session of SESSIONS) {
    const title = `the recorded session "${session.name}" against router ${session.against} goes as it went`;
    Deno.test(title, () => playSession(session));
  }
});

async function playSession(session: Session): Promise<void> {
  const recording = await readVector<Recording>(`recorded-tcp-${session.name}.json`);
  const packets = session.established
    ? await readVector<RecordedPackets>(`recorded-sleeve-${session.name}.json`)
    : { packets: [] };
  const { routers } = recording.setting;
  const ours = addressOf(routers[session.plays]!);
  const theirs = addressOf(routers[session.against]!);

  const identity = identityOf(recording, session.against);
  const env = { WEAVE_TEST_IDENTITY: JSON.stringify(identity), WEAVE_MTU: "1500" };
  await using host = await EmulatedHost.create(routers[session.against]!.nick, { env });
  await run(["ip", "link", "add", "play", "type", "veth", "peer", "name", "eth0", "netns", String(host.pid)]);
  try {
    await run(["ip", "address", "add", `${ours}/24`, "dev", "play"]);
    await run(["ip", "link", "set", "play", "up"]);
    await host.sh(`ip address add ${theirs}/24 dev eth0; ip link set eth0 up`);
    const { name, nick } = routers[session.against]!;
    await host.weave("launch", "--name", name, "--nickname", nick, "--no-restart", ...session.args ?? []);
    if (session.container) await attachAs(host, session.container);

    await using player = new Player({
      recording,
      packets,
      plays: session.plays,
      against: session.against,
      local: ours,
      remote: theirs,
      containerAnswers: session.container !== undefined,
      operate: async (what) => {
        const told = new RegExp(`router ${session.against} told to connect to (\\S+)`).exec(what);
        if (told) await host.weave("connect", told[1]!);
        if (what === `stop router ${session.plays}`) await checkState(host, session, recording);
      },
    });
    await player.play();
    if (!session.established) await checkState(host, session, recording);
  } finally {
    await run(["ip", "link", "del", "play"]);
  }
}

/** What the router under test has learned of the one that is played. */
async function checkState(host: EmulatedHost, session: Session, recording: Recording): Promise<void> {
  const { Router: router } = await report(host);
  const states = (router.Connections ?? []).map((connection) => connection.State);
  assert.equal(states.includes("established"), session.established, JSON.stringify(router.Connections));
  if (!session.established) return;
  const features = featuresOf(recording, session.plays);
  const peer = router.Peers!.find((peer) => peer.Name === features.Name)!;
  assert.equal(peer.NickName, features.NickName);
  assert.equal(String(peer.UID), String(Number(features.UID)));
  assert.equal(peer.ShortID, Number(features.ShortID));
  assert.deepEqual(peer.Connections!.map((connection) => [connection.Name, connection.Established]), [[
    router.Name,
    true,
  ]]);
}

/** The ids that the recorded router had, for the one that stands for it. */
function identityOf(recording: Recording, router: string) {
  const features = recording.transcript
    .filter((item) => item.dir?.startsWith(router) && item.decoded?.kind === "features")
    .map((item) => item.decoded!.features!);
  return {
    uid: features[0]?.UID ?? "1",
    shortId: Number(features[0]?.ShortID ?? 1),
    connectionIds: features.map((map) => map.ConnID),
    privateKeys: recording.setting.session_keys?.map((keys) => keys.private_key) ?? [],
  };
}

function featuresOf(recording: Recording, router: string): Readonly<Record<string, string>> {
  return recording.transcript.find((item) => item.dir?.startsWith(router) && item.decoded?.kind === "features")!
    .decoded!.features!;
}

async function attachAs(host: EmulatedHost, { mac, cidr }: { mac: string; cidr: string }): Promise<void> {
  const container = await host.container("c1");
  await host.weave("attach", cidr, container.reference);
  await container.sh(`ip link set ethwe down; ip link set ethwe address ${mac} up`);
}

function addressOf(router: { readonly ip: string | string[] }): string {
  return typeof router.ip === "string" ? router.ip : router.ip[0]!;
}

async function readVector<T>(name: string): Promise<T> {
  return JSON.parse(await Deno.readTextFile(new URL(name, VECTORS)));
}
