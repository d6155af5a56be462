/**
 * Sessions recorded between real routers of Weave Net, played over real sockets against the executable: it stands for one of the routers,
 * with the ids and keys that one had, and a player for the others. Each router that was recorded is replaced in turn.
 */

import assert from "node:assert/strict";
import { type ControlBoxes, openControlBoxes } from "../../ffi/control_boxes.ts";
import { formatMac } from "../../src/lib/mac.ts";
import type { PeerRecord } from "../../src/wire/topology.ts";
import { testAsRoot } from "../skip.ts";
import type { RunningCommand } from "./command.ts";
import type { Container, EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { setFilter } from "./link.ts";
import { attachNew, report } from "./mesh.ts";
import { type Place, Player, type RecordedEvent } from "./player.ts";
import {
  addressesBetween,
  dialsFirst,
  featuresOf,
  identityOf,
  meshSeenBy,
  nameOf,
  neighboursOf,
  passwordOf,
  readRecording,
  type Recording,
  type RouterNumber,
} from "./recording.ts";
import { containersAnswer } from "./score.ts";
import { recordedFrames } from "./sleeve_packet.ts";
import { waitFor } from "./wait.ts";

interface Session {
  readonly name: string;
  /** The routers that the one under test stands for, in turn. */
  readonly routers: readonly RouterNumber[];
  /** Routers refuse each other; why, in the words of router 2, which dials. */
  readonly refused?: string;
  readonly fragmentsLost?: true;
  /** What fits into a packet in the end. */
  readonly mtu?: number;
}

const SESSIONS: readonly Session[] = [
  { name: "plain", routers: ["1", "2"], mtu: 1438 },
  { name: "encrypted", routers: ["1", "2"], mtu: 1414 },
  { name: "relay", routers: ["1", "2", "3"], mtu: 1438 },
  { name: "nofrag", routers: ["1", "2"], mtu: 1438, fragmentsLost: true },
  { name: "dup", routers: ["1", "2"], mtu: 1438 },
  { name: "badpw", routers: ["1", "2"], refused: "Unable to decrypt TCP msg" },
  {
    name: "nopw",
    routers: ["1", "2"],
    refused: "no password specificed, but peer requested an encrypted connection",
  },
];

/** News of the mesh, and what follows from them, are there after about 2 s. */
const SETTLE_MS = 10_000;

for (const session of SESSIONS) {
  testAsRoot(`the recorded session "${session.name}" goes as it went, whichever router is replaced`, async () => {
    const recording = await readRecording(session.name);
    const boxes = await openControlBoxes();
    const played = session.routers.map((under) => play({ session, recording, under, boxes }));
    for (const result of await Promise.allSettled(played)) if (result.status === "rejected") throw result.reason;
  });
}

interface Cast {
  readonly session: Session;
  readonly recording: Recording;
  /** The router under test. */
  readonly under: RouterNumber;
  readonly boxes: ControlBoxes;
}

async function play(cast: Cast): Promise<void> {
  const { session, recording, under, boxes } = cast;
  const { routers } = recording.setting;
  const identity = JSON.stringify(identityOf(recording, under));
  const password = passwordOf(recording, under);
  const env = { WEAVE_TEST_IDENTITY: identity, WEAVE_MTU: "1500", ...password && { WEAVE_PASSWORD: password } };
  await using lab = new Lab();
  const host = await lab.host(routers[under]!.nick, { env });
  const places: Place[] = [];
  for (const router of neighboursOf(recording, under)) {
    const [local, remote] = addressesBetween(recording, router, under);
    const played = await lab.host(routers[router]!.nick);
    await lab.link(played, host, [local, remote]);
    places.push({ router, host: played, local, remote });
  }
  await prepareLinks(host, session);
  await host.weave(
    "launch",
    "--name",
    routers[under]!.name,
    "--nickname",
    routers[under]!.nick,
    "--no-restart",
    "--ipalloc-range",
    "",
    "--no-dns",
  );

  await using operator = new Operator(cast, host, await attachRecorded(host, recording, under));
  const operate = (event: RecordedEvent) => operator.operate(event);
  await using player = await Player.create({ recording, under, host, places, boxes, operate });
  await player.play();
}

/** What leaves is seen packet by packet; what arrives suffers as in the recording. */
async function prepareLinks(host: EmulatedHost, { fragmentsLost }: Session): Promise<void> {
  for (const { device } of host.ports) {
    await host.exec(["ethtool", "-K", device, "tx-udp-segmentation", "off"]);
    if (!fragmentsLost) continue;
    const hook = `type filter hook ingress device "${device}" priority 0`;
    await setFilter(host, {
      family: "netdev",
      table: "lab_fragments",
      hook,
      rules: ["ip frag-off & 0x3fff != 0 drop"],
    });
  }
}

async function attachRecorded(
  host: EmulatedHost,
  recording: Recording,
  under: RouterNumber,
): Promise<Container | undefined> {
  const recorded = recording.containers[under];
  if (recorded === undefined) return undefined;
  const container = await attachNew(host, "c1", `${recorded.ip}/24`);
  await container.sh(`ip link set ethwe down; ip link set ethwe address ${recorded.mac} up`);
  return container;
}

/** Does to the router under test and its container what the operator did when the session was recorded. */
class Operator implements AsyncDisposable {
  readonly #cast: Cast;
  readonly #host: EmulatedHost;
  readonly #container: Container | undefined;
  #ping: RunningCommand | undefined;
  #stopped = false;

  constructor(cast: Cast, host: EmulatedHost, container: Container | undefined) {
    this.#cast = cast;
    this.#host = host;
    this.#container = container;
  }

  async operate(event: RecordedEvent): Promise<void> {
    const { what } = event;
    if (what.startsWith("stop")) return await this.#stop(event);
    if (what.startsWith("ping")) return await this.#startPing(what);
    const { under } = this.#cast;
    const told = new RegExp(`^router ${under} told (again )?to connect to (\\S+)`).exec(what);
    const target = told?.[2] ?? this.#commonTarget(what);
    if (told?.[1]) await this.#host.weave("forget", target!);
    if (target !== undefined) await this.#host.weave("connect", target);
  }

  /** Of two routers told at the same moment one was faster, and the other found that it was connected already. */
  #commonTarget(what: string): string | undefined {
    const { recording, under } = this.#cast;
    if (!what.startsWith("both routers are told") || !dialsFirst(recording, under)) return undefined;
    return addressesBetween(recording, neighboursOf(recording, under)[0]!, under)[0];
  }

  /** Pings until the next event, as an answer that is late must not matter. */
  async #startPing(what: string): Promise<void> {
    await this.#endPing();
    const { recording, under, session } = this.#cast;
    if (containersAnswer(under) || !this.#container) return;
    const to = Object.entries(recording.containers).find(([router]) => router !== under)![1].ip;
    const [, octets, df] = /^ping (\d+) (with|without) DF/.exec(what) ?? [];
    const options = octets === undefined ? [] : ["-s", octets, "-M", df === "with" ? "do" : "dont"];
    if (what.includes("too big")) {
      const { stdout } = await this.#container.attempt(["ping", "-n", "-c", "1", "-W", "1", ...options, to]);
      assert.match(stdout, new RegExp(`Frag needed and DF set \\(mtu = ${session.mtu}\\)`));
      return;
    }
    this.#ping = this.#container.spawn(["ping", "-n", "-i", "0.2", ...options, to]);
  }

  async #endPing(): Promise<void> {
    await this.#ping?.[Symbol.asyncDispose]();
    this.#ping = undefined;
  }

  async #stop(event: RecordedEvent): Promise<void> {
    await this.#endPing();
    if (this.#stopped) return;
    await this.#checkAnswers();
    const { session, under } = this.#cast;
    await waitFor(
      "what was learned",
      async () => {
        await (session.refused ? this.#checkRefused(session.refused) : this.#checkLearned(event));
        return true;
      },
      SETTLE_MS,
      [this.#host],
    );
    if (/\d/.test(event.what) && !event.what.includes(under)) return; // others were stopped
    this.#stopped = true;
    await this.#host.weave("stop");
  }

  /** The answers that were recorded reached the container that asked. */
  async #checkAnswers(): Promise<void> {
    const { recording, under } = this.#cast;
    if (containersAnswer(under) || !this.#container) return;
    const frames = recording.packets.filter((packet) => packet.dir!.endsWith(under)).flatMap(recordedFrames);
    const answers = frames.filter(({ octets }) => isEchoReply(octets)).length;
    assert.ok(answers > 0);
    await waitFor(`${answers} answers`, async () => {
      const [names, counts] = (await this.#container!.sh("grep ^Icmp: /proc/net/snmp")).split("\n");
      return Number(counts!.split(" ")[names!.split(" ").indexOf("InEchoReps")]) === answers;
    }, SETTLE_MS);
  }

  async #checkRefused(reason: string): Promise<void> {
    const { recording, under } = this.#cast;
    const { Router: router } = await report(this.#host);
    const targets = (router.Connections ?? []).map(({ State, Info }) => `${State} ${Info}`);
    assert.equal(targets.length, dialsFirst(recording, under) ? 1 : 0);
    for (const target of targets) assert.match(target, new RegExp(`^(failed|retrying) ${reason}`));
    assert.equal(router.Peers!.length, 1);
  }

  /** Peers, routes and connections are those that follow from what the router was told. */
  async #checkLearned({ t: at, connected }: RecordedEvent): Promise<void> {
    const { recording, under, session } = this.#cast;
    const { Router: router } = await report(this.#host);
    const learned = meshSeenBy(recording, under, { connected, at });
    const ourself = router.Peers!.find((peer) => peer.Name === router.Name)!;
    assert.equal(String(ourself.UID), String(Number(featuresOf(recording, under)!.UID)));
    const peers = router.Peers!.filter((peer) => peer !== ourself);
    const nickName = (name: string) => router.Peers!.find((peer) => peer.Name === name)?.NickName;
    const expected = [...learned.values()].map(({ record }) => asReported(record, nickName));
    assert.deepEqual(byName(peers), byName(expected));
    const connections = (ourself.Connections ?? []).map(({ Name, Established }) => ({ Name, Established }));
    const names = connected.map((neighbour) => formatMac(nameOf(recording, neighbour)));
    assert.deepEqual(byName(connections), byName(names.map((Name) => ({ Name, Established: true }))));
    const routes = router.UnicastRoutes!.filter(({ Dest }) => Dest !== router.Name);
    const vias = [...learned].map(([name, { via }]) => ({ Dest: formatMac(name), Via: formatMac(via) }));
    assert.deepEqual(routes, vias.sort((a, b) => a.Dest.localeCompare(b.Dest)));
    const live = (router.Connections ?? []).filter((connection) => connection.State === "established");
    assert.deepEqual(live.map(({ Attrs }) => Attrs!.mtu), connected.map(() => session.mtu));
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#endPing();
  }
}

/** A peer's record as reports show it. */
function asReported(record: PeerRecord, nickName: (name: string) => string | undefined) {
  return {
    Name: formatMac(record.name),
    NickName: record.nickName,
    UID: Number(record.uid),
    ShortID: record.shortId,
    Version: Number(record.version),
    Connections: record.connections.map(({ peer, address, outbound, established }) => ({
      Name: formatMac(peer),
      NickName: nickName(formatMac(peer)),
      Address: address,
      Outbound: outbound,
      Established: established,
    })),
  };
}

function byName<T extends { readonly Name: string }>(rows: readonly T[]): T[] {
  return [...rows].sort((a, b) => a.Name.localeCompare(b.Name));
}

/** An ICMP echo reply, or the first fragment of one. */
function isEchoReply(frame: Uint8Array): boolean {
  const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
  const isIcmp = view.getUint16(12) === 0x0800 && frame[23] === 1;
  return isIcmp && (view.getUint16(20) & 0x1fff) === 0 && frame[34] === 0;
}
