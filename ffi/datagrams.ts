/**
 * UDP over IPv4 by sockets of our own for services of the control plane: many datagrams in one call, each answered from the very address
 * that it came to, and errors of the network told to who asks.
 */
import { attempt, ERRNO } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C, cmsghdr, in_pktinfo, iovec, mmsghdr, msghdr, sockaddr_in } from "./layout.ts";
import { libc } from "./libc.ts";
import {
  bind,
  decodeAddress,
  encodeAddress,
  formatAddress,
  localAddress,
  openSocket,
  setOption,
  setUp,
  type SocketAddress,
} from "./socket.ts";

/** What holds a burst while the thread does other things: a thousand small datagrams, with the kernel's overhead. */
const QUEUE_OCTETS = 1024 * 1024;

/** A socket for who is asked. @throws SysError EADDRINUSE, EADDRNOTAVAIL, EACCES */
export function openService(local: SocketAddress): { fd: Fd; local: SocketAddress } {
  const fd = setUp(openSocket("UDP socket", C.AF_INET, C.SOCK_DGRAM), (fd) => {
    setOption(fd, C.IPPROTO_IP, C.IP_PKTINFO, 1, "IP_PKTINFO");
    const octets = Int32Array.of(QUEUE_OCTETS);
    // Past the machine's limit where that is allowed; what it has anyway will do.
    attempt(() => libc.setsockopt(fd.raw, C.SOL_SOCKET, C.SO_RCVBUFFORCE, octets, 4));
    bind(fd, encodeAddress(local), { address: formatAddress(local) });
  });
  return { fd, local: localAddress(fd) };
}

/** A socket for who asks one question, on a port that the kernel chooses. It takes from anybody: the caller looks at who it was. */
export function openAsker(): Fd {
  return setUp(openSocket("UDP socket", C.AF_INET, C.SOCK_DGRAM), (fd) => {
    setOption(fd, C.IPPROTO_IP, C.IP_RECVERR, 1, "IP_RECVERR");
    bind(fd, encodeAddress({ address: 0, port: 0 }), { address: ":0" });
  });
}

/** Sends one datagram: 0, or an errno. */
export function sendDatagram(fd: Fd, octets: Uint8Array<ArrayBuffer>, to: SocketAddress): number {
  const size = BigInt(octets.length);
  const name = encodeAddress(to);
  const result = attempt(() => libc.sendto(fd.raw, octets, size, C.MSG_NOSIGNAL, name, name.length));
  return result < 0 ? -result : 0;
}

/** Receives one datagram into `buffer`: its octets and who sent it, or an errno. EAGAIN: there is none. */
export function receiveDatagram(
  fd: Fd,
  buffer: Uint8Array<ArrayBuffer>,
): { octets: number; from: SocketAddress } | { errno: number } {
  const name = sockaddr_in.make(), nameOctets = Uint32Array.of(name.length);
  const size = BigInt(buffer.length);
  const result = attempt(() => libc.recvfrom(fd.raw, buffer, size, 0, name, nameOctets));
  return result < 0 ? { errno: -result } : { octets: result, from: decodeAddress(name) };
}

export const NONE_WAITS = ERRNO.EAGAIN[0];

const HEADER = msghdr.offset;
const CONTROL = cmsghdr.octets;
/** Room for an in_pktinfo behind its header, padded to 8 octets. */
const CONTROL_SPACE = CONTROL + 16;
/** Their fields in 32-bit words of the machine, both of which are little-endian. */
const WORD = 2;

/** Where an answer goes, and from where. */
export interface Route {
  readonly remote: SocketAddress;
  /** The address of ours that was asked; undefined: as the kernel chooses. */
  readonly local: number | undefined;
}

/** Datagrams received in one call, and answers to them sent in one. Memory is laid out once, and nothing is made per datagram. */
export class DatagramBatch {
  /** Octets of datagrams that came; slot i's begin at `receivedAt(i)`. */
  readonly received: Uint8Array<ArrayBuffer>;
  /** Octets of answers. Behind the slots there is room for the caller's own, `spare` octets from `spareAt` on. */
  readonly answers: Uint8Array<ArrayBuffer>;
  readonly spareAt: number;
  readonly slots: number;
  readonly #receiveOctets: number;
  readonly #answerOctets: number;
  readonly #memory: ArrayBuffer;
  readonly #u32: Uint32Array;
  readonly #octets: Uint8Array;
  readonly #base: number;
  readonly #headers: number;
  readonly #names: number;
  readonly #controls: number;
  readonly #answerHeaders: number;
  readonly #answerIov: number;
  readonly #receivedBase: number;
  readonly #answersBase: number;
  /** Addresses of the headers of datagrams, and of each answer's. */
  readonly #headersAddress: bigint;
  readonly #answerAddresses: readonly bigint[];
  /** Answers that wait for `flush()`. */
  #waiting = 0;

  constructor(
    o: {
      readonly slots: number;
      readonly receiveOctets: number;
      readonly answerOctets: number;
      readonly spare: number;
    },
  ) {
    const { slots, receiveOctets, answerOctets, spare } = o;
    this.slots = slots;
    this.#receiveOctets = receiveOctets;
    this.#answerOctets = answerOctets;
    this.spareAt = slots * answerOctets;
    let size = 0;
    const take = (octets: number) => {
      const at = size;
      size += Math.ceil(octets / 8) * 8;
      return at;
    };
    const sockets = slots * mmsghdr.octets;
    this.#headers = take(sockets);
    this.#names = take(slots * sockaddr_in.octets);
    this.#controls = take(slots * CONTROL_SPACE);
    const iov = take(slots * iovec.octets);
    this.#answerHeaders = take(sockets);
    this.#answerIov = take(slots * iovec.octets);
    const received = take(slots * receiveOctets);
    const answers = take(slots * answerOctets + spare);
    // Its octets do not move while it is alive.
    this.#memory = new ArrayBuffer(size);
    this.#u32 = new Uint32Array(this.#memory);
    this.#octets = new Uint8Array(this.#memory);
    this.received = new Uint8Array(this.#memory, received, slots * receiveOctets);
    this.answers = new Uint8Array(this.#memory, answers, slots * answerOctets + spare);
    this.#base = Number(Deno.UnsafePointer.value(Deno.UnsafePointer.of(new Uint8Array(this.#memory))));
    this.#receivedBase = received;
    this.#answersBase = answers;
    this.#headersAddress = BigInt(this.#base + this.#headers);
    const answerAt = (_: unknown, i: number) => BigInt(this.#base + this.#answerHeaders + i * mmsghdr.octets);
    this.#answerAddresses = Array.from({ length: slots }, answerAt);
    for (let i = 0; i < slots; i++) this.#layOut(i, iov + i * iovec.octets);
  }

  /** Receives what is there, up to all slots: how many, or a negative errno. */
  receive(fd: Fd): number {
    for (let i = 0; i < this.slots; i++) {
      const header = this.#headers + i * mmsghdr.octets;
      this.#u32[header + HEADER.msg_namelen >>> WORD] = sockaddr_in.octets;
      this.#u32[header + HEADER.msg_controllen >>> WORD] = CONTROL_SPACE;
    }
    return attempt(() => libc.recvmmsg(fd.raw, this.#headersAddress, this.slots, C.MSG_DONTWAIT, 0n));
  }

  receivedAt(i: number): number {
    return i * this.#receiveOctets;
  }

  /** Octets of datagram i, 0 where it was too long to be taken. */
  octets(i: number): number {
    const header = this.#headers + i * mmsghdr.octets;
    const truncated = (this.#u32[header + HEADER.msg_flags >>> WORD]! & C.MSG_TRUNC) !== 0;
    return truncated ? 0 : this.#u32[header + mmsghdr.offset.msg_len >>> WORD]!;
  }

  /** Address of the sender of datagram i. */
  address(i: number): number {
    const at = this.#names + i * sockaddr_in.octets + sockaddr_in.offset.sin_addr;
    return (this.#octets[at]! << 24 | this.#octets[at + 1]! << 16 | this.#octets[at + 2]! << 8 |
      this.#octets[at + 3]!) >>>
      0;
  }

  /** Who sent datagram i, and what it was sent to: for an answer later on. */
  route(i: number): Route {
    const at = this.#names + i * sockaddr_in.octets;
    const remote = decodeAddress(this.#octets.slice(at, at + sockaddr_in.octets));
    const control = this.#controls + i * CONTROL_SPACE;
    return {
      remote,
      local: this.#hasPacketInfo(i)
        ? getBig32(this.#octets, control + CONTROL + in_pktinfo.offset.ipi_spec_dst)
        : undefined,
    };
  }

  /** Where the answer to datagram i is written in `answers`. */
  answerAt(i: number): number {
    return i * this.#answerOctets;
  }

  /** The answer to datagram i has so many octets, and waits for `flush()`. */
  answer(i: number, octets: number): void {
    const slot = this.#waiting++;
    const header = this.#answerHeaders + slot * mmsghdr.octets;
    const iov = this.#answerIov + slot * iovec.octets;
    this.#setAddress(header + HEADER.msg_name, this.#names + i * sockaddr_in.octets);
    this.#setAddress(iov, this.#answersBase + i * this.#answerOctets);
    this.#u32[iov + iovec.offset.iov_len >>> WORD] = octets;
    const control = this.#controls + i * CONTROL_SPACE;
    if (this.#hasPacketInfo(i)) {
      // The way back is the kernel's to choose, be it over another interface.
      this.#u32[control + CONTROL + in_pktinfo.offset.ipi_ifindex >>> WORD] = 0;
      this.#u32[header + HEADER.msg_controllen >>> WORD] = CONTROL_SPACE;
      this.#setAddress(header + HEADER.msg_control, control);
    } else {
      this.#u32[header + HEADER.msg_controllen >>> WORD] = 0;
    }
  }

  /** Sends the answers that wait. @returns how many the kernel would not take */
  flush(fd: Fd): number {
    let refused = 0;
    for (let sent = 0; sent < this.#waiting;) {
      const left = this.#waiting - sent;
      const count = libc.sendmmsg(fd.raw, this.#answerAddresses[sent]!, left, C.MSG_DONTWAIT | C.MSG_NOSIGNAL);
      if (count <= 0) refused++;
      sent += Math.max(1, count);
    }
    this.#waiting = 0;
    return refused;
  }

  /** Sends one answer later on, from slot 0: nothing may wait in it. @returns whether the kernel took it */
  send(fd: Fd, octets: Uint8Array, route: Route): boolean {
    this.answers.set(octets, 0);
    this.#octets.set(encodeAddress(route.remote), this.#names);
    const control = this.#controls;
    this.#octets.fill(0, control, control + CONTROL_SPACE);
    this.#u32[this.#headers + HEADER.msg_controllen >>> WORD] = 0;
    if (route.local !== undefined) {
      this.#u32[this.#headers + HEADER.msg_controllen >>> WORD] = CONTROL_SPACE;
      this.#u32[control >>> WORD] = CONTROL + in_pktinfo.octets;
      this.#u32[control + cmsghdr.offset.cmsg_level >>> WORD] = C.IPPROTO_IP;
      this.#u32[control + cmsghdr.offset.cmsg_type >>> WORD] = C.IP_PKTINFO;
      setBig32(this.#octets, control + CONTROL + in_pktinfo.offset.ipi_spec_dst, route.local);
    }
    this.answer(0, octets.length);
    return this.flush(fd) === 0;
  }

  #layOut(i: number, iov: number): void {
    const header = this.#headers + i * mmsghdr.octets;
    this.#setAddress(header + HEADER.msg_name, this.#names + i * sockaddr_in.octets);
    this.#setAddress(header + HEADER.msg_iov, iov);
    this.#u32[header + HEADER.msg_iovlen >>> WORD] = 1;
    this.#setAddress(header + HEADER.msg_control, this.#controls + i * CONTROL_SPACE);
    this.#setAddress(iov, this.#receivedBase + i * this.#receiveOctets);
    this.#u32[iov + iovec.offset.iov_len >>> WORD] = this.#receiveOctets;
    const answer = this.#answerHeaders + i * mmsghdr.octets;
    this.#u32[answer + HEADER.msg_namelen >>> WORD] = sockaddr_in.octets;
    this.#setAddress(answer + HEADER.msg_iov, this.#answerIov + i * iovec.octets);
    this.#u32[answer + HEADER.msg_iovlen >>> WORD] = 1;
  }

  #hasPacketInfo(i: number): boolean {
    const header = this.#headers + i * mmsghdr.octets;
    const control = this.#controls + i * CONTROL_SPACE;
    return this.#u32[header + HEADER.msg_controllen >>> WORD]! >= CONTROL + in_pktinfo.octets &&
      this.#u32[control + cmsghdr.offset.cmsg_level >>> WORD] === C.IPPROTO_IP &&
      this.#u32[control + cmsghdr.offset.cmsg_type >>> WORD] === C.IP_PKTINFO;
  }

  /** Writes the address of what lies at `of`. */
  #setAddress(at: number, of: number): void {
    const address = this.#base + of;
    this.#u32[at >>> WORD] = address >>> 0;
    this.#u32[(at >>> WORD) + 1] = address / 0x1_0000_0000;
  }
}

function getBig32(octets: Uint8Array, at: number): number {
  return (octets[at]! << 24 | octets[at + 1]! << 16 | octets[at + 2]! << 8 | octets[at + 3]!) >>> 0;
}

function setBig32(octets: Uint8Array, at: number, value: number): void {
  octets[at] = value >>> 24;
  octets[at + 1] = value >>> 16;
  octets[at + 2] = value >>> 8;
  octets[at + 3] = value;
}
