/**
 * Whether this process may do, on this machine, what the router needs: each thing is tried, in a namespace that goes away, and nothing
 * is left behind. Never by version or user id: containers, virtual servers and service managers take away what they like.
 */
import { check, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C, ifinfomsg, nlattr, nlmsghdr } from "./layout.ts";
import { cString, libc } from "./libc.ts";
import { NetlinkSocket } from "./netlink_socket.ts";
import { withNewNetns } from "./netns.ts";
import { openSocket } from "./socket.ts";
import { openTemporaryTap, TUN_DEVICE } from "./tap.ts";

/** Something that is not there, or not allowed. */
export interface Lack {
  /** `CAP_NET_ADMIN`, `/dev/net/tun`. */
  readonly what: string;
  /** The call that was tried, and what came of it. */
  readonly error: SysError;
  /** What does not work without it. */
  readonly cost: string;
  readonly remedy: string;
  /** Without it the router is of no use. */
  readonly essential: boolean;
}

/** `Cannot do without CAP_NET_ADMIN: netlink: EPERM (Operation not permitted): the bridge and its ports cannot be made; run as root` */
export function describeLack({ what, error, cost, remedy, essential }: Lack): string {
  return `${essential ? "Cannot do without" : "Missing"} ${what}: ${error.message}: ${cost}; ${remedy}`;
}

/** Everything that is missing, the gravest first. Takes 100 ms: interfaces come and go slowly. */
export function probeMachine(): Lack[] {
  const lacks = attempt(NETWORK_ADMIN, tryChangeLinks);
  const probe = lacks.length === 0 ? probeDevices : () => attempt(TUN, openTunDevice);
  try {
    // In a namespace of its own nobody sees the interfaces, not even for a moment.
    lacks.push(...withNewNetns(probe));
  } catch (error) {
    if (!(error instanceof SysError) || error.call !== "unshare") throw error;
    lacks.push({ ...SYSTEM_ADMIN, error }, ...probe());
  }
  lacks.push(...attempt(RAW_SOCKETS, () => openSocket("packet socket", C.AF_PACKET, C.SOCK_RAW).close()));
  lacks.push(...attempt(SETTINGS, () => openFile("/proc/sys/net/ipv4/conf/all/arp_ignore", C.O_WRONLY)));
  return lacks.sort((a, b) => Number(b.essential) - Number(a.essential));
}

const RUN_AS_ROOT = "run as root, with all capabilities";
const NETWORK_ADMIN = {
  what: "CAP_NET_ADMIN",
  cost: "the bridge and its ports cannot be made",
  remedy: RUN_AS_ROOT,
  essential: true,
} as const;
const SYSTEM_ADMIN = {
  what: "CAP_SYS_ADMIN",
  cost: "attach cannot enter containers",
  remedy: RUN_AS_ROOT,
  essential: false,
} as const;
const RAW_SOCKETS = {
  what: "CAP_NET_RAW",
  cost: "attach and expose cannot announce addresses",
  remedy: RUN_AS_ROOT,
  essential: false,
} as const;
const SETTINGS = {
  what: "write access to /proc/sys",
  cost: "interfaces cannot be set up",
  remedy: "mount it without ro",
  essential: true,
} as const;
const TUN = {
  what: TUN_DEVICE,
  cost: "the router cannot read or write frames",
  remedy: "modprobe tun, or allow the device to this container or virtual server",
  essential: true,
} as const;

function probeDevices(): Lack[] {
  const kind = (kind: string, cost: string) => {
    const lack = { what: `interfaces of kind ${kind}`, cost, remedy: `modprobe ${kind}`, essential: true };
    return attempt(lack, () => tryKind(kind));
  };
  return [
    ...attempt(TUN, () => openTemporaryTap(PROBE_NAME)[Symbol.dispose]()),
    ...kind("bridge", "the bridge cannot be made"),
    ...kind("veth", "containers cannot be attached"),
  ];
}

/** A name that no interface has. */
const PROBE_NAME = "weaveprobe";
/** An index that no interface has. */
const NO_INDEX = 0x7fff_ffff;

/** A change that is refused in any case: because of the right that is missing, or of the interface that is not there. */
function tryChangeLinks(): void {
  using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
  try {
    netlink.request(encodeLink(C.RTM_DELLINK, 0, NO_INDEX));
  } catch (error) {
    if (!(error instanceof SysError) || error.errnoName !== "ENODEV") throw error;
  }
}

function tryKind(kind: string): void {
  using netlink = new NetlinkSocket(C.NETLINK_ROUTE);
  const name = encodeAttribute(C.IFLA_IFNAME, cString(PROBE_NAME));
  const info = encodeAttribute(C.IFLA_LINKINFO, encodeAttribute(C.IFLA_INFO_KIND, cString(kind)));
  netlink.request(encodeLink(C.RTM_NEWLINK, C.NLM_F_CREATE | C.NLM_F_EXCL, 0, name, info));
  netlink.request(encodeLink(C.RTM_DELLINK, 0, 0, name));
}

function openTunDevice(): void {
  openFile(TUN_DEVICE, C.O_RDWR);
}

function openFile(path: string, flags: number): void {
  const text = cString(path);
  new Fd(check("open", () => libc.open(text, flags | C.O_CLOEXEC), { path }), path).close();
}

function attempt(lack: Omit<Lack, "error">, work: () => void): Lack[] {
  try {
    work();
    return [];
  } catch (error) {
    if (!(error instanceof SysError)) throw error;
    return [{ ...lack, error }];
  }
}

function encodeLink(type: number, flags: number, index: number, ...attributes: Uint8Array[]): Uint8Array {
  const body = concatenate(ifinfomsg.make({ ifi_index: index }), ...attributes);
  const length = nlmsghdr.octets + body.length;
  const header = nlmsghdr.make({ nlmsg_len: length, nlmsg_type: type, nlmsg_flags: C.NLM_F_REQUEST | flags });
  return concatenate(header, body);
}

/** Padded to 4 octets. */
function encodeAttribute(type: number, payload: Uint8Array): Uint8Array {
  const header = nlattr.make({ nla_len: nlattr.octets + payload.length, nla_type: type });
  return concatenate(header, payload, new Uint8Array(-payload.length & 3));
}

function concatenate(...pieces: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(pieces.reduce((octets, piece) => octets + piece.length, 0));
  let at = 0;
  for (const piece of pieces) {
    all.set(piece, at);
    at += piece.length;
  }
  return all;
}
