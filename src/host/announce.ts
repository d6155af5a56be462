/**
 * Gratuitous ARP for addresses that we answer for and that no link has. Said several times, as one frame is easily lost, and not any
 * more from the moment on that somebody else answers.
 */
import { withNetns } from "../../ffi/netns.ts";
import { OperationError } from "../lib/errors.ts";
import type { Ipv4 } from "../lib/ip.ts";
import { announceAddresses } from "./arp.ts";
import { Links } from "./links.ts";

/** From `announce()` on. */
const SAID_AT_MS = [0, 200, 600, 1_500, 3_000];

export interface AnnouncedAddress {
  readonly address: Ipv4;
  /** Name of the link. */
  readonly link: string;
  /** Path of the network namespace that the link is in, where it is another than ours. */
  readonly namespace?: string | undefined;
}

/** What is said on one link. */
interface Audience {
  readonly link: string;
  readonly namespace: string | undefined;
  /** How often each was said, and when to say it next. */
  readonly addresses: Map<Ipv4, { said: number; since: number }>;
}

export class Announcer implements Disposable {
  readonly #onError: (link: string, error: Error) => void;
  readonly #audiences = new Map<string, Audience>();
  #timer: ReturnType<typeof setTimeout> | undefined;

  /** @param onError told once per round and link: a link that is away or down. It is tried again. */
  constructor(onError: (link: string, error: Error) => void = () => {}) {
    this.#onError = onError;
  }

  /** Says it now and a few times more; begins again for one that is being announced. */
  announce(addresses: readonly AnnouncedAddress[]): void {
    const since = performance.now();
    for (const { address, link, namespace } of addresses) {
      const key = keyOf(link, namespace);
      let audience = this.#audiences.get(key);
      if (audience === undefined) this.#audiences.set(key, audience = { link, namespace, addresses: new Map() });
      audience.addresses.set(address, { said: 0, since });
    }
    this.#sayWhatIsDue();
  }

  /** Says it no more, as somebody else answers now. */
  withdraw(addresses: readonly AnnouncedAddress[]): void {
    for (const { address, link, namespace } of addresses) {
      this.#audiences.get(keyOf(link, namespace))?.addresses.delete(address);
    }
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#audiences.clear();
  }

  #sayWhatIsDue(): void {
    clearTimeout(this.#timer);
    let next = Infinity;
    for (const [key, audience] of this.#audiences) {
      const now = performance.now();
      const due: Ipv4[] = [];
      for (const [address, state] of audience.addresses) {
        if (state.since + SAID_AT_MS[state.said]! <= now) {
          due.push(address);
          state.said++;
        }
        if (state.said === SAID_AT_MS.length) audience.addresses.delete(address);
        else next = Math.min(next, state.since + SAID_AT_MS[state.said]!);
      }
      if (due.length > 0) this.#say(audience, due);
      if (audience.addresses.size === 0) this.#audiences.delete(key);
    }
    if (next < Infinity) this.#timer = setTimeout(() => this.#sayWhatIsDue(), Math.max(0, next - performance.now()));
  }

  #say({ link, namespace }: Audience, addresses: readonly Ipv4[]): void {
    const say = () => {
      using links = new Links();
      const there = links.find(link);
      if (there === undefined) throw new OperationError(`Cannot announce addresses: there is no interface "${link}"`);
      announceAddresses(there, addresses);
    };
    try {
      if (namespace === undefined) say();
      else withNetns(namespace, say);
    } catch (error) {
      this.#onError(link, error as Error);
    }
  }
}

function keyOf(link: string, namespace: string | undefined): string {
  return JSON.stringify([namespace, link]);
}
