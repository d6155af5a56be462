/**
 * Every C struct and constant that we use, by its own name: nobody else knows an offset. Both machines we build for are 64 bits wide
 * and little-endian, so most are alike on them; what differs says so here. `layout_test.ts` compares all of it with what C
 * compilers for both machines print.
 */

export type Machine = "x86_64" | "aarch64";
/** The same on both machines, or one for each. */
type PerMachine = number | Readonly<Record<Machine, number>>;
type FieldTable<F extends string> = Readonly<Record<F, readonly [offset: PerMachine, octets: number]>>;

const MACHINE: Machine = Deno.build.arch;

/** A C struct: where its fields are, and how to make and read one where speed does not matter. */
export class Struct<F extends string> {
  /** sizeof. */
  readonly octets: number;
  /** Of each field from the struct's start, in octets. */
  readonly offset: Readonly<Record<F, number>>;
  readonly #octets: PerMachine;
  readonly #fields: FieldTable<F>;

  constructor(octets: PerMachine, fields: FieldTable<F>) {
    this.#octets = octets;
    this.#fields = fields;
    this.octets = on(MACHINE, octets);
    const names = Object.keys(fields) as F[];
    this.offset = Object.fromEntries(names.map((name) => [name, on(MACHINE, fields[name][0])])) as Record<F, number>;
  }

  /** A zeroed one with these fields set; numbers in the machine's order. */
  make(values: Partial<Readonly<Record<F, number | bigint>>> = {}): Uint8Array<ArrayBuffer> {
    const struct = new Uint8Array(this.octets);
    for (const field of Object.keys(values) as F[]) this.set(struct, field, values[field]!);
    return struct;
  }

  /** Writes a field of 1, 2, 4 or 8 octets; the value may be signed. */
  set(struct: Uint8Array, field: F, value: number | bigint): void {
    const at = this.offset[field];
    const octets = this.#fields[field][1];
    for (let i = 0, rest = BigInt(value); i < octets; i++, rest >>= 8n) struct[at + i] = Number(rest & 0xffn);
  }

  /** Reads a field of up to 6 octets as an unsigned number. @param base where the struct starts */
  get(octets: Uint8Array, field: F, base = 0): number {
    const at = base + this.offset[field];
    let value = 0;
    for (let i = this.#fields[field][1] - 1; i >= 0; i--) value = value * 256 + octets[at + i]!;
    return value;
  }

  /** For comparison with a compiler: the size, then offset and size of each field. */
  describe(machine: Machine): { octets: number; fields: Readonly<Record<string, readonly [number, number]>> } {
    const fields = Object.entries<FieldTable<F>[F]>(this.#fields).map(([name, [offset, octets]]) =>
      [name, [on(machine, offset), octets]] as const
    );
    return { octets: on(machine, this.#octets), fields: Object.fromEntries(fields) };
  }
}

function on(machine: Machine, value: PerMachine): number {
  return typeof value === "number" ? value : value[machine];
}

// ── Memory, waiting ───────────────────────────────────────────────────────────────────────────────────────────────────────────

/** sys/epoll.h; packed on x86-64 alone. */
export const epoll_event = new Struct({ x86_64: 12, aarch64: 16 }, {
  events: [0, 4],
  data: [{ x86_64: 4, aarch64: 8 }, 8],
});

/** poll.h */
export const pollfd = new Struct(8, { fd: [0, 4], events: [4, 2], revents: [6, 2] });

/** sys/uio.h */
export const iovec = new Struct(16, { iov_base: [0, 8], iov_len: [8, 8] });

// ── Sockets ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** sys/socket.h */
export const msghdr = new Struct(56, {
  msg_name: [0, 8],
  msg_namelen: [8, 4],
  msg_iov: [16, 8],
  msg_iovlen: [24, 8],
  msg_control: [32, 8],
  msg_controllen: [40, 8],
  msg_flags: [48, 4],
});

/** sys/socket.h; `msg_hdr` is a msghdr. */
export const mmsghdr = new Struct(64, { msg_hdr: [0, 56], msg_len: [56, 4] });

/** sys/socket.h; the data follows, and both are padded to 8 octets. */
export const cmsghdr = new Struct(16, { cmsg_len: [0, 8], cmsg_level: [8, 4], cmsg_type: [12, 4] });

/** sys/socket.h */
export const linger = new Struct(8, { l_onoff: [0, 4], l_linger: [4, 4] });

/** netinet/in.h; port and address in network order. */
export const sockaddr_in = new Struct(16, { sin_family: [0, 2], sin_port: [2, 2], sin_addr: [4, 4] });

/** netinet/in.h; addresses in network order. */
export const in_pktinfo = new Struct(12, { ipi_ifindex: [0, 4], ipi_spec_dst: [4, 4], ipi_addr: [8, 4] });

/** sys/un.h */
export const sockaddr_un = new Struct(110, { sun_family: [0, 2], sun_path: [2, 108] });

/** linux/if_packet.h; the protocol in network order. */
export const sockaddr_ll = new Struct(20, {
  sll_family: [0, 2],
  sll_protocol: [2, 2],
  sll_ifindex: [4, 4],
  sll_hatype: [8, 2],
  sll_pkttype: [10, 1],
  sll_halen: [11, 1],
  sll_addr: [12, 8],
});

/** linux/netlink.h */
export const sockaddr_nl = new Struct(12, { nl_family: [0, 2], nl_pid: [4, 4], nl_groups: [8, 4] });

// ── Netlink ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** linux/netlink.h */
export const nlmsghdr = new Struct(16, {
  nlmsg_len: [0, 4],
  nlmsg_type: [4, 2],
  nlmsg_flags: [6, 2],
  nlmsg_seq: [8, 4],
  nlmsg_pid: [12, 4],
});

/** linux/netlink.h; `msg` is the header of the request. */
export const nlmsgerr = new Struct(20, { error: [0, 4], msg: [4, 16] });

/** linux/netlink.h; the payload follows, padded to 4 octets. */
export const nlattr = new Struct(4, { nla_len: [0, 2], nla_type: [2, 2] });

/** linux/rtnetlink.h */
export const ifinfomsg = new Struct(16, {
  ifi_family: [0, 1],
  ifi_type: [2, 2],
  ifi_index: [4, 4],
  ifi_flags: [8, 4],
  ifi_change: [12, 4],
});

/** linux/if_addr.h */
export const ifaddrmsg = new Struct(8, {
  ifa_family: [0, 1],
  ifa_prefixlen: [1, 1],
  ifa_flags: [2, 1],
  ifa_scope: [3, 1],
  ifa_index: [4, 4],
});

/** linux/rtnetlink.h */
export const rtmsg = new Struct(12, {
  rtm_family: [0, 1],
  rtm_dst_len: [1, 1],
  rtm_src_len: [2, 1],
  rtm_tos: [3, 1],
  rtm_table: [4, 1],
  rtm_protocol: [5, 1],
  rtm_scope: [6, 1],
  rtm_type: [7, 1],
  rtm_flags: [8, 4],
});

/** linux/neighbour.h */
export const ndmsg = new Struct(12, {
  ndm_family: [0, 1],
  ndm_ifindex: [4, 4],
  ndm_state: [8, 2],
  ndm_flags: [10, 1],
  ndm_type: [11, 1],
});

// ── TAP ───────────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** net/if.h; a union from 16 on. */
export const ifreq = new Struct(40, { ifr_name: [0, 16], ifr_flags: [16, 2] });

/** linux/virtio_net.h */
export const virtio_net_hdr_v1 = new Struct(12, {
  flags: [0, 1],
  gso_type: [1, 1],
  hdr_len: [2, 2],
  gso_size: [4, 2],
  csum_start: [6, 2],
  csum_offset: [8, 2],
  num_buffers: [10, 2],
});

export const STRUCTS = {
  epoll_event,
  pollfd,
  iovec,
  msghdr,
  mmsghdr,
  cmsghdr,
  linger,
  sockaddr_in,
  in_pktinfo,
  sockaddr_un,
  sockaddr_ll,
  sockaddr_nl,
  nlmsghdr,
  nlmsgerr,
  nlattr,
  ifinfomsg,
  ifaddrmsg,
  rtmsg,
  ndmsg,
  ifreq,
  virtio_net_hdr_v1,
} as const;

// ── Constants ─────────────────────────────────────────────────────────────────────────────────────────────────────────────────

/** `C.AF_INET`; the same on both machines. */
export const C = {
  // fcntl.h, unistd.h
  O_RDONLY: 0,
  O_WRONLY: 1,
  O_RDWR: 2,
  O_NONBLOCK: 0x800,
  O_CLOEXEC: 0x80000,
  F_SETFD: 2,
  FD_CLOEXEC: 1,
  // sys/epoll.h, poll.h, sys/eventfd.h
  EPOLL_CLOEXEC: 0x80000,
  EPOLL_CTL_ADD: 1,
  EPOLL_CTL_DEL: 2,
  EPOLL_CTL_MOD: 3,
  EPOLLIN: 0x1,
  EPOLLOUT: 0x4,
  EPOLLERR: 0x8,
  EPOLLHUP: 0x10,
  POLLIN: 0x1,
  EFD_NONBLOCK: 0x800,
  EFD_CLOEXEC: 0x80000,
  // sched.h, sys/mount.h
  CLONE_NEWNET: 0x4000_0000,
  MS_BIND: 0x1000,
  MS_REC: 0x4000,
  MS_SHARED: 0x10_0000,
  MNT_DETACH: 2,
  // sys/socket.h
  AF_UNIX: 1,
  AF_INET: 2,
  AF_NETLINK: 16,
  AF_PACKET: 17,
  SOCK_STREAM: 1,
  SOCK_DGRAM: 2,
  SOCK_RAW: 3,
  SOCK_NONBLOCK: 0x800,
  SOCK_CLOEXEC: 0x80000,
  SOL_SOCKET: 1,
  SO_REUSEADDR: 2,
  SO_ERROR: 4,
  SO_SNDBUF: 7,
  SO_RCVBUF: 8,
  SO_KEEPALIVE: 9,
  SO_LINGER: 13,
  SO_REUSEPORT: 15,
  SO_SNDBUFFORCE: 32,
  SO_RCVBUFFORCE: 33,
  SO_MARK: 36,
  MSG_PEEK: 0x2,
  MSG_TRUNC: 0x20,
  MSG_DONTWAIT: 0x40,
  MSG_NOSIGNAL: 0x4000,
  // netinet/in.h, tcp.h, udp.h
  IPPROTO_IP: 0,
  IPPROTO_TCP: 6,
  IPPROTO_RAW: 255,
  IP_PKTINFO: 8,
  IP_MTU_DISCOVER: 10,
  IP_RECVERR: 11,
  IP_PMTUDISC_DONT: 0,
  IP_PMTUDISC_DO: 2,
  IP_MTU: 14,
  TCP_NODELAY: 1,
  TCP_MAXSEG: 2,
  TCP_USER_TIMEOUT: 18,
  SOL_UDP: 17,
  UDP_SEGMENT: 103,
  UDP_GRO: 104,
  // linux/netlink.h, rtnetlink.h
  NETLINK_ROUTE: 0,
  NETLINK_NETFILTER: 12,
  SOL_NETLINK: 270,
  NETLINK_ADD_MEMBERSHIP: 1,
  NETLINK_CAP_ACK: 10,
  NETLINK_EXT_ACK: 11,
  NLM_F_REQUEST: 0x1,
  NLM_F_MULTI: 0x2,
  NLM_F_ACK: 0x4,
  NLM_F_CAPPED: 0x100,
  NLM_F_ACK_TLVS: 0x200,
  NLM_F_DUMP: 0x300,
  NLM_F_EXCL: 0x200,
  NLM_F_CREATE: 0x400,
  NLMSG_ERROR: 2,
  NLMSG_DONE: 3,
  NLMSGERR_ATTR_MSG: 1,
  RTM_NEWLINK: 16,
  RTM_DELLINK: 17,
  IFLA_IFNAME: 3,
  IFLA_LINKINFO: 18,
  IFLA_INFO_KIND: 1,
  // net/if.h, linux/if_tun.h
  IFNAMSIZ: 16,
  IFF_TAP: 0x2,
  IFF_NO_PI: 0x1000,
  IFF_VNET_HDR: 0x4000,
  TUNSETIFF: 0x4004_54ca,
  TUNSETPERSIST: 0x4004_54cb,
  TUNSETOFFLOAD: 0x4004_54d0,
  TUNSETVNETHDRSZ: 0x4004_54d8,
  TUN_F_CSUM: 0x1,
  TUN_F_TSO4: 0x2,
  TUN_F_TSO6: 0x4,
  TUN_F_TSO_ECN: 0x8,
  TUN_F_USO4: 0x20,
  TUN_F_USO6: 0x40,
} as const;

/** The longest name of an interface, without its final NUL. */
export const INTERFACE_NAME_OCTETS = C.IFNAMSIZ - 1;
