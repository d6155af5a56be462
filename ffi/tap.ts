/**
 * A TAP: an interface of the kernel whose frames are read and written here. With offloads and a virtio header before each frame, one
 * read returns up to 64 KiB of one TCP stream, and checksums may be left to the other side.
 *
 * The interface is persistent: it stays, a port of its bridge, when this process dies, and the next one adopts it by its name.
 */
import { attempt, check, ERRNO, SysError } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C, ifreq, INTERFACE_NAME_OCTETS, virtio_net_hdr_v1 } from "./layout.ts";
import { cString, libc } from "./libc.ts";
import { setUp } from "./socket.ts";

export const TUN_DEVICE = "/dev/net/tun";

const TCP_OFFLOADS = C.TUN_F_CSUM | C.TUN_F_TSO4 | C.TUN_F_TSO6 | C.TUN_F_TSO_ECN;
const UDP_OFFLOADS = C.TUN_F_USO4 | C.TUN_F_USO6;
const EINVAL = ERRNO.EINVAL[0];

export class Tap implements Disposable {
  /** @param udpSegments whether super-frames of UDP pass in either direction, as since Linux 6.2 */
  constructor(readonly fd: Fd, readonly name: string, readonly udpSegments: boolean) {}

  /** The interface stays; it carries nothing until somebody opens it again. */
  [Symbol.dispose](): void {
    this.fd.close();
  }
}

/** Makes the interface in the network namespace of this thread, or adopts it. @throws SysError EBUSY where another process has it open */
export function openTap(name: string): Tap {
  const tap = openTemporaryTap(name);
  return setUp(tap, ({ fd }) => {
    check("ioctl TUNSETPERSIST", () => libc.ioctl_value(fd.raw, BigInt(C.TUNSETPERSIST), 1n), { name });
  });
}

/** As `openTap`, but an interface that is made here goes when it is closed. */
export function openTemporaryTap(name: string): Tap {
  const text = new TextEncoder().encode(name);
  if (text.length === 0 || text.length > INTERFACE_NAME_OCTETS) {
    throw new RangeError(`Cannot name an interface "${name}": 1 to ${INTERFACE_NAME_OCTETS} octets expected`);
  }
  using opened = new DisposableStack();
  const device = cString(TUN_DEVICE);
  const flags = C.O_RDWR | C.O_NONBLOCK | C.O_CLOEXEC;
  const fd = opened.use(new Fd(check("open", () => libc.open(device, flags), { path: TUN_DEVICE }), "TAP"));
  const request = ifreq.make({ ifr_flags: C.IFF_TAP | C.IFF_NO_PI | C.IFF_VNET_HDR });
  request.set(text, ifreq.offset.ifr_name);
  check("ioctl TUNSETIFF", () => libc.ioctl(fd.raw, BigInt(C.TUNSETIFF), request), { name });
  const headerOctets = Int32Array.of(virtio_net_hdr_v1.octets);
  check("ioctl TUNSETVNETHDRSZ", () => libc.ioctl(fd.raw, BigInt(C.TUNSETVNETHDRSZ), headerOctets), { name });
  const udpSegments = setOffloads(fd, TCP_OFFLOADS | UDP_OFFLOADS);
  if (!udpSegments && !setOffloads(fd, TCP_OFFLOADS)) throw new SysError("ioctl TUNSETOFFLOAD", EINVAL, { name });
  opened.move();
  return new Tap(fd, name, udpSegments);
}

/** false where the kernel does not know all of them. */
function setOffloads(fd: Fd, offloads: number): boolean {
  const result = attempt(() => libc.ioctl_value(fd.raw, BigInt(C.TUNSETOFFLOAD), BigInt(offloads)));
  if (result < 0 && result !== -EINVAL) throw new SysError("ioctl TUNSETOFFLOAD", -result);
  return result >= 0;
}
