/** Whole Ethernet frames of one protocol, in and out of one link. */
import { attempt, check, ERRNO, SysError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C, sockaddr_ll } from "./layout.ts";
import { libc } from "./libc.ts";
import { bind, openSocket, setUp } from "./socket.ts";

/** More than any link's MTU. */
const FRAME_OCTETS = 65536 + 64;
const EAGAIN = ERRNO.EAGAIN[0], ENETDOWN = ERRNO.ENETDOWN[0];

export interface PacketSocketOptions {
  /** Index of the link, in the network namespace of this thread. */
  readonly link: number;
  /** EtherType of what is received. */
  readonly protocol: number;
}

export class PacketSocket implements Disposable {
  readonly fd: Fd;
  readonly #link: number;
  readonly #buffer = new Uint8Array(FRAME_OCTETS);

  constructor({ link, protocol }: PacketSocketOptions) {
    this.#link = link;
    // Without a protocol until it is bound, it receives nothing of other links in between.
    this.fd = setUp(openSocket("packet socket", C.AF_PACKET, C.SOCK_RAW), (fd) => {
      const name = sockaddr_ll.make({ sll_family: C.AF_PACKET, sll_ifindex: link });
      new DataView(name.buffer).setUint16(sockaddr_ll.offset.sll_protocol, protocol);
      bind(fd, name, { link });
    });
  }

  /** Sends a frame from its Ethernet header on. @throws SysError ENETDOWN where the link is down */
  send(frame: Uint8Array): void {
    const copy = Uint8Array.from(frame);
    const size = BigInt(copy.length);
    check("send", () => libc.sendto(this.fd.raw, copy, size, 0, null, 0), { link: this.#link });
  }

  /** The next frame, which is the caller's; undefined when there is none. Frames sent here are not received. */
  receive(): Uint8Array | undefined {
    const size = BigInt(this.#buffer.length);
    const got = attempt(() => libc.recvfrom(this.fd.raw, this.#buffer, size, 0, null, null));
    if (got >= 0) return this.#buffer.slice(0, got);
    // That the link went down is said once; nothing comes any more.
    if (got === -EAGAIN || got === -ENETDOWN) return undefined;
    throw new SysError("receive", -got, { link: this.#link });
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }
}
