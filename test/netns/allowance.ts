/** What the router under test may say in a recorded session besides what is expected of it. */

import type { PeerRecord } from "../../src/wire/topology.ts";
import {
  connectionUid,
  featuresOf,
  nameOf,
  passwordOf,
  privateKeysOf,
  type Recording,
  recordsSaid,
  type RouterNumber,
} from "./recording.ts";
import { describeFeatures, OWN_RECORD, wordOfOwnRecord, wordOfRecord } from "./words.ts";

/** What depends on time, and what recordings happen not to have. */
export class Allowance {
  readonly #recording: Recording;
  readonly #under: RouterNumber;
  /** What was recorded to be said of other peers, and what is learned of them by their introduction. */
  readonly #peers: ReadonlySet<string>;
  /** Connections that the recorded router told of, established or not. */
  readonly #connections: ReadonlySet<string>;

  constructor(recording: Recording, under: RouterNumber) {
    this.#recording = recording;
    this.#under = under;
    const ourself = nameOf(recording, under);
    const routers = Object.keys(recording.setting.routers);
    const said = routers.flatMap((router) => [
      ...recordsSaid(recording, `${router}->${under}`),
      ...recordsSaid(recording, `${under}->${router}`),
    ]);
    const introductions = routers.flatMap((router) => introductionOf(recording, router) ?? []);
    this.#peers = new Set([...said, ...introductions].map((record) => wordOfRecord(record, ourself)));
    const own = said.filter(({ name }) => name === ourself).flatMap((record) => record.connections);
    this.#connections = new Set(own.map((connection) => pendingConnection(wordOfOwnRecord([connection]))));
  }

  /** @param located a word with where it was said: "0: flag 00" */
  allows(located: string): boolean {
    const word = located.slice(located.indexOf(": ") + 2);
    const { setting } = this.#recording;
    const password = passwordOf(this.#recording, this.#under);
    switch (/^[a-z]*/.exec(word)![0]) {
      case "flag":
        return word === (password === undefined ? "flag 00" : "flag 01");
      case "key":
        return privateKeysOf(this.#recording, this.#under).length === 0;
      case "features":
        return setting.passwords !== undefined && this.#areOurs(word);
      case "ourself":
        return connectionsIn(word).every((connection) => this.#connections.has(pendingConnection(connection)));
      case "peer":
        return this.#peers.has(word);
      case "heartbeat":
        return this.#uids.some((uid) => word === `heartbeat ${uid}, df`);
      case "frag":
        return word === "frag test, may be fragmented";
      case "probe":
        return word.endsWith(", df");
      case "frame":
      case "packet": // containers' kernels speak when they like
        return word.split(" ")[1] === setting.routers[this.#under]!.name;
      default:
        return false;
    }
  }

  /** Features of a connection that was refused: not all arrived when it was recorded. */
  #areOurs(word: string): boolean {
    const recorded = featuresOf(this.#recording, this.#under);
    if (recorded) return withoutConnId(word) === withoutConnId(describeFeatures(recorded));
    // Without a password of its own the router under test says them at once, the recorded one first heard what the other has.
    const { name, nick } = this.#recording.setting.routers[this.#under]!;
    return word.includes(` Name=${name} NickName=${nick} `);
  }

  get #uids(): bigint[] {
    const connections = Object.keys(this.#recording.setting.connection_uids ?? { 0: "" });
    return connections.map((connection) => connectionUid(this.#recording, Number(connection)));
  }
}

/** What a peer's features alone tell of it. */
function introductionOf(recording: Recording, router: RouterNumber): PeerRecord | undefined {
  const features = featuresOf(recording, router);
  return features && {
    name: nameOf(recording, router),
    nickName: features.NickName!,
    uid: BigInt(features.UID!),
    version: 0n,
    shortId: Number(features.ShortID),
    connections: [],
  };
}

function withoutConnId(features: string): string {
  return features.replace(/ConnID=\d+ /, "");
}

/** The connections in the word of a record, as words of records with one. */
function connectionsIn(word: string): string[] {
  const texts = word.slice(OWN_RECORD.length, -1).split(", ").filter(Boolean);
  return texts.map((text) => `${OWN_RECORD}${text}]`);
}

function pendingConnection(word: string): string {
  return word.replace(" established]", "]");
}
