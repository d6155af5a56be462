/**
 * Asking for what we lack: each owner's records at one place at a time, again where no answer comes, and not all the time however often
 * somebody says that there is more.
 *
 *     idle ──news──▶ due ──▶ asked ──answer──▶ idle
 *                     ▲        └──no answer, or it was not enough──▶ due, later each time ──too often──▶ idle
 */
import type { PeerName } from "../lib/mac.ts";
import type { Deadline, Instant } from "../lib/time.ts";

/** An owner says itself that there is news: it may be asked again so soon. */
const OWNER_INTERVAL_MS = 200;
/** Somebody else says so. */
const CLAIM_INTERVAL_MS = 5_000;
/** How long an answer may take: more each time. */
const ANSWER_MS = 2_000;
const MAX_ANSWER_MS = 30_000;
const MAX_PAUSE_MS = 60_000;
const MAX_TRIES = 8;
/** Owners at once; as many as there may be. */
const MAX_PURSUITS = 4_000;
/** What was asked is remembered so long. */
const REMEMBER_MS = 2 * MAX_PAUSE_MS;

interface Pursuit {
  /** Who said that there is news: he is asked where the owner is out of reach. */
  teller: PeerName;
  everything: boolean;
  /** Whom we asked, and wait for. */
  asked: PeerName | undefined;
  lastAsked: Instant;
  tries: number;
  /** When to ask, or while we wait, to ask again; Infinity: not at all. */
  at: Instant;
  /** There was news while we waited. */
  news: boolean;
}

export interface Question {
  readonly owner: PeerName;
  readonly of: PeerName;
  readonly everything: boolean;
}

export class Pursuits {
  readonly #pursuits = new Map<PeerName, Pursuit>();
  readonly #isReachable: (peer: PeerName) => boolean;

  constructor(isReachable: (peer: PeerName) => boolean) {
    this.#isReachable = isReachable;
  }

  /** There is more. @param teller the owner itself, or whoever claims to know */
  handleNews(
    owner: PeerName,
    { teller, everything, now }: { teller: PeerName; everything: boolean; now: Instant },
  ): void {
    let pursuit = this.#pursuits.get(owner);
    if (pursuit === undefined) {
      if (this.#pursuits.size >= MAX_PURSUITS) this.#tidy(now);
      if (this.#pursuits.size >= MAX_PURSUITS && !this.#isReachable(owner)) return;
      pursuit = { teller, everything, asked: undefined, lastAsked: -Infinity, tries: 0, at: Infinity, news: false };
      this.#pursuits.set(owner, pursuit);
    }
    if (pursuit.teller !== owner || teller === owner) pursuit.teller = teller;
    pursuit.everything ||= everything;
    pursuit.news = true;
    if (pursuit.asked !== undefined) return;
    const interval = teller === owner ? OWNER_INTERVAL_MS : CLAIM_INTERVAL_MS;
    pursuit.at = Math.min(pursuit.at, Math.max(now, pursuit.lastAsked + interval));
  }

  /** Whether we wait for him to tell us of this owner. */
  waitsFor(owner: PeerName, from: PeerName): boolean {
    return this.#pursuits.get(owner)?.asked === from;
  }

  /** More of an answer is to come. */
  handlePart(owner: PeerName, now: Instant): void {
    const pursuit = this.#pursuits.get(owner);
    if (pursuit?.asked !== undefined) pursuit.at = now + answerMs(pursuit);
  }

  /** @param enough else everything is wanted */
  handleAnswer(owner: PeerName, enough: boolean, now: Instant): void {
    const pursuit = this.#pursuits.get(owner);
    if (pursuit?.asked === undefined) return;
    pursuit.asked = undefined;
    pursuit.at = Infinity;
    if (!enough) {
      pursuit.everything = true;
      this.#retry(pursuit, now);
      return;
    }
    pursuit.tries = 0;
    pursuit.everything = false;
    if (pursuit.news) this.handleNews(owner, { teller: pursuit.teller, everything: false, now });
  }

  /** There was no way to him yet: routes come some moments after peers. */
  handleUndelivered(of: PeerName, now: Instant): void {
    for (const pursuit of this.#pursuits.values()) if (pursuit.asked === of) this.#retry(pursuit, now);
  }

  /** Whom we wait for may be gone, or the owner be there. */
  handleTopology(now: Instant): void {
    for (const pursuit of this.#pursuits.values()) {
      if (pursuit.asked === undefined || this.#isReachable(pursuit.asked)) continue;
      pursuit.asked = undefined;
      pursuit.at = now;
    }
  }

  forget(owner: PeerName): void {
    this.#pursuits.delete(owner);
  }

  /** What is to be asked now. */
  takeDue(now: Instant): readonly Question[] {
    const questions: Question[] = [];
    for (const [owner, pursuit] of this.#pursuits) {
      if (pursuit.at > now) continue;
      if (pursuit.asked !== undefined && this.#retry(pursuit, now) > now) continue;
      const of = this.#isReachable(owner) ? owner : pursuit.teller;
      if (!this.#isReachable(of)) {
        this.#pursuits.delete(owner);
        continue;
      }
      pursuit.asked = of;
      pursuit.lastAsked = now;
      pursuit.news = false;
      pursuit.at = now + answerMs(pursuit);
      questions.push({ owner, of, everything: pursuit.everything });
    }
    return questions;
  }

  pollTimeout(): Deadline | undefined {
    let at = Infinity;
    for (const pursuit of this.#pursuits.values()) at = Math.min(at, pursuit.at);
    return at === Infinity ? undefined : { at, why: "asking for records of services" };
  }

  /** @returns when */
  #retry(pursuit: Pursuit, now: Instant): Instant {
    pursuit.asked = undefined;
    pursuit.tries++;
    const pause = Math.min(MAX_PAUSE_MS, OWNER_INTERVAL_MS * 3 ** (pursuit.tries - 1));
    pursuit.at = pursuit.tries > MAX_TRIES ? Infinity : now + pause;
    if (pursuit.at === Infinity) pursuit.tries = 0;
    return pursuit.at;
  }

  #tidy(now: Instant): void {
    for (const [owner, { at, lastAsked }] of this.#pursuits) {
      if (at === Infinity && now - lastAsked > REMEMBER_MS) this.#pursuits.delete(owner);
    }
  }
}

function answerMs({ tries }: Pursuit): number {
  return Math.min(MAX_ANSWER_MS, ANSWER_MS * 2 ** tries);
}
