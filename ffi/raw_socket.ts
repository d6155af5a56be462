/** Whole IPv4 packets, sent as they are: also in the name of another address. */
import { attempt } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";
import { encodeAddress, openSocket, setOption, setUp } from "./socket.ts";

export class RawSocket implements Disposable {
  readonly fd: Fd;

  /**
   * Opens it in the network namespace of this thread, where it stays. It receives nothing.
   * @param mark of its packets, by which they are routed and known to rules
   */
  constructor(mark: number) {
    this.fd = setUp(openSocket("raw socket", C.AF_INET, C.SOCK_RAW, C.IPPROTO_RAW), (fd) => {
      setOption(fd, C.SOL_SOCKET, C.SO_MARK, mark, "SO_MARK");
    });
  }

  /**
   * Sends a packet with its header.
   * @param to destination, as in the header
   * @returns 0, or an errno: ENETUNREACH where no route leads there, EPERM where a rule dropped it
   */
  send(packet: Uint8Array<ArrayBuffer>, to: number): number {
    const name = encodeAddress({ address: to, port: 0 });
    const size = BigInt(packet.length);
    return -Math.min(0, attempt(() => libc.sendto(this.fd.raw, packet, size, C.MSG_DONTWAIT, name, name.length)));
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }
}
