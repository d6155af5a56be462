/**
 * Gratuitous ARP for addresses that we answer for and that no link has. Said several times, as one frame is easily lost, and not any
 * more from the moment on that somebody else answers.
 */
import type { Ipv4 } from "../lib/ip.ts";

export interface AnnouncedAddress {
  readonly address: Ipv4;
  /** Name of the link. */
  readonly link: string;
  /** Path of the network namespace that the link is in, where it is another than ours. */
  readonly namespace?: string | undefined;
}

export class Announcer implements Disposable {
  /** @param onError told once per round and link: a link that is away or down */
  constructor(_onError: (link: string, error: Error) => void = () => {}) {}

  /** Says it now and a few times more; begins again for one that is being announced. */
  announce(_addresses: readonly AnnouncedAddress[]): void {
    throw new Error("to come");
  }

  /** Says it no more, as somebody else answers now. */
  withdraw(_addresses: readonly AnnouncedAddress[]): void {
    throw new Error("to come");
  }

  [Symbol.dispose](): void {}
}
