/**
 * A netlink socket: requests with their answers, and what the kernel tells of its own accord to the groups that were joined. Messages are
 * octets here; `src/wire/netlink.ts` knows what they mean. Everything is synchronous, and no call waits longer than `ANSWER_LIMIT_MS`.
 */
import { attempt, check, ERRNO, SysError } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C, nlattr, nlmsgerr, nlmsghdr, pollfd, sockaddr_nl } from "./layout.ts";
import { libc } from "./libc.ts";
import { bind, openSocket, setOption, setUp } from "./socket.ts";

/** The kernel answers within microseconds; some requests wait for a lock that a slow driver holds. */
const ANSWER_LIMIT_MS = 10_000;
/** Datagrams that one `receive()` takes at most. */
const RECEIVE_LIMIT = 256;
/** The kernel fills no more in a dump; a single message may be larger. */
const BUFFER_OCTETS = 32 * 1024;
const EAGAIN = ERRNO.EAGAIN[0], ENOBUFS = ERRNO.ENOBUFS[0], ETIMEDOUT = ERRNO.ETIMEDOUT[0];
const HEADER = nlmsghdr.octets;

export class NetlinkSocket implements Disposable {
  /** Nonblocking. Readable when a group has something to tell. */
  readonly fd: Fd;
  #sequence = 0;
  readonly #sender = sockaddr_nl.make();
  readonly #senderOctets = Uint32Array.of(sockaddr_nl.octets);
  #buffer = new Uint8Array(BUFFER_OCTETS);

  /** Opens it in the network namespace of this thread, where it stays. @param protocol NETLINK_ROUTE, say */
  constructor(protocol: number, groups: readonly number[] = []) {
    this.fd = setUp(openSocket("netlink socket", C.AF_NETLINK, C.SOCK_RAW, protocol), (fd) => {
      setOption(fd, C.SOL_NETLINK, C.NETLINK_CAP_ACK, 1, "NETLINK_CAP_ACK");
      setOption(fd, C.SOL_NETLINK, C.NETLINK_EXT_ACK, 1, "NETLINK_EXT_ACK");
      bind(fd, sockaddr_nl.make({ nl_family: C.AF_NETLINK }), { what: "netlink socket" });
      for (const group of groups) setOption(fd, C.SOL_NETLINK, C.NETLINK_ADD_MEMBERSHIP, group, "ADD_MEMBERSHIP");
    });
  }

  /**
   * Sends one message and returns the datagrams that answer it, acknowledgement left out. Its sequence number is set here, and an
   * acknowledgement asked for.
   * @throws SysError when the kernel refuses: with its own words, where it has some, as `kernel`
   */
  request(message: Uint8Array): Uint8Array[] {
    return [...this.answers(message)];
  }

  /**
   * As `request()`, one datagram at a time. It is sent with the first step, and of a dump the kernel makes no more than is taken. Between
   * two steps the socket must not be used for anything else; where it is not read to its end, nor afterwards.
   */
  *answers(message: Uint8Array): Generator<Uint8Array, void, void> {
    const sequence = this.#send(message);
    for (let deadline = performance.now() + ANSWER_LIMIT_MS;;) {
      const datagram = this.#receive() ?? this.#wait(deadline);
      if (datagram === undefined || sequenceOf(datagram) !== sequence) continue; // of a request that was given up, or a group's
      const end = readEnd(datagram);
      if (end.data > 0) yield datagram.subarray(0, end.data);
      if (end.errno === 0) return;
      if (end.errno !== undefined) {
        throw new SysError("netlink", end.errno, end.text === undefined ? {} : { kernel: end.text });
      }
      deadline = performance.now() + ANSWER_LIMIT_MS;
    }
  }

  /** What has come for the groups, a datagram each; never waits. What the kernel had no room for is lost without a word. */
  receive(): Uint8Array[] {
    const datagrams: Uint8Array[] = [];
    while (datagrams.length < RECEIVE_LIMIT) {
      const datagram = this.#receive();
      if (datagram === undefined) break;
      datagrams.push(datagram);
    }
    return datagrams;
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }

  /** @returns the sequence number of the answer */
  #send(message: Uint8Array): number {
    const request = Uint8Array.from(message);
    const sequence = this.#sequence = (this.#sequence + 1) >>> 0;
    const flags = nlmsghdr.get(request, "nlmsg_flags");
    nlmsghdr.set(request, "nlmsg_seq", sequence);
    if ((flags & C.NLM_F_DUMP) !== C.NLM_F_DUMP) nlmsghdr.set(request, "nlmsg_flags", flags | C.NLM_F_ACK);
    const kernel = sockaddr_nl.make({ nl_family: C.AF_NETLINK });
    check("netlink send", () => libc.sendto(this.fd.raw, request, BigInt(request.length), 0, kernel, kernel.length));
    return sequence;
  }

  /** The next datagram, which is the caller's; undefined when there is none. */
  #receive(): Uint8Array | undefined {
    for (;;) {
      // With MSG_TRUNC the result is the whole length, however little fits.
      const octets = this.#receiveFrom(C.MSG_PEEK | C.MSG_TRUNC);
      if (octets === -EAGAIN) return undefined;
      if (octets === -ENOBUFS) continue; // said once, and what there is can be read
      if (octets > this.#buffer.length) {
        this.#buffer = new Uint8Array(octets);
        continue;
      }
      const got = octets < 0 ? octets : this.#receiveFrom(0);
      if (got < 0) throw new SysError("netlink receive", -got);
      if (sockaddr_nl.get(this.#sender, "nl_pid") === 0) return this.#buffer.slice(0, got);
    }
  }

  #receiveFrom(flags: number): number {
    this.#senderOctets[0] = sockaddr_nl.octets;
    const size = BigInt(this.#buffer.length);
    return attempt(() => libc.recvfrom(this.fd.raw, this.#buffer, size, flags, this.#sender, this.#senderOctets));
  }

  #wait(deadline: number): undefined {
    const left = Math.ceil(deadline - performance.now());
    const poll = pollfd.make({ fd: this.fd.raw, events: C.POLLIN });
    if (left <= 0 || check("poll", () => libc.poll(poll, 1n, left)) === 0) {
      throw new SysError("netlink receive", ETIMEDOUT);
    }
  }
}

function sequenceOf(datagram: Uint8Array): number {
  return datagram.length < HEADER ? -1 : nlmsghdr.get(datagram, "nlmsg_seq");
}

interface End {
  /** Octets before the message that ends the answer, or all. */
  readonly data: number;
  /** 0 where the request succeeded, undefined where the answer goes on. */
  readonly errno?: number;
  readonly text?: string;
}

/** Looks for the message that ends an answer: an acknowledgement, or the end of a dump. */
function readEnd(datagram: Uint8Array): End {
  let at = 0;
  while (at + HEADER <= datagram.length) {
    const octets = nlmsghdr.get(datagram, "nlmsg_len", at);
    if (octets < HEADER || at + octets > datagram.length) break;
    const type = nlmsghdr.get(datagram, "nlmsg_type", at);
    if (type === C.NLMSG_DONE || type === C.NLMSG_ERROR) {
      // Either has an errno, negative, in front; a dump that failed tells so in its end.
      const error = octets < HEADER + 4 ? 0 : nlmsgerr.get(datagram, "error", at + HEADER) | 0;
      if (error === 0) return { data: at, errno: 0 };
      const text = type === C.NLMSG_ERROR ? readText(datagram.subarray(at, at + octets)) : undefined;
      return { data: at, errno: -error, ...(text === undefined ? {} : { text }) };
    }
    at += align(octets);
  }
  return { data: datagram.length };
}

/** The kernel's own words in an error: [header][errno][header of the request, as it was CAP_ACK][attributes]. */
function readText(message: Uint8Array): string | undefined {
  if ((nlmsghdr.get(message, "nlmsg_flags") & C.NLM_F_ACK_TLVS) === 0) return undefined;
  for (let at = HEADER + nlmsgerr.octets; at + nlattr.octets <= message.length;) {
    const octets = nlattr.get(message, "nla_len", at);
    if (octets < nlattr.octets || at + octets > message.length) return undefined;
    if (nlattr.get(message, "nla_type", at) === C.NLMSGERR_ATTR_MSG) {
      return new TextDecoder().decode(message.subarray(at + nlattr.octets, at + octets)).replace(/\0.*$/s, "");
    }
    at += align(octets);
  }
  return undefined;
}

const align = (octets: number) => (octets + 3) & ~3;
