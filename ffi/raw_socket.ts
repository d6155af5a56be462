/** Whole IPv4 packets, sent as they are: also in the name of another address. */
import { attempt } from "./errno.ts";
import type { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";
import { encodeAddress, openSocket, setOption } from "./socket.ts";

export class RawSocket implements Disposable {
  readonly fd: Fd;
  #mark = 0;

  /** Opens it in the network namespace of this thread, where it stays. It receives nothing. */
  constructor() {
    this.fd = openSocket("raw socket", C.AF_INET, C.SOCK_RAW, C.IPPROTO_RAW);
  }

  /**
   * Sends a packet with its header to the destination that the header has.
   * @param mark by which it is routed and known to rules
   * @returns 0, or an errno: ENETUNREACH where no route leads there, EPERM where a rule dropped it
   */
  send(packet: Uint8Array<ArrayBuffer>, { to, mark }: { readonly to: number; readonly mark: number }): number {
    if (mark !== this.#mark) {
      setOption(this.fd, C.SOL_SOCKET, C.SO_MARK, mark, "SO_MARK");
      this.#mark = mark;
    }
    const name = encodeAddress({ address: to, port: 0 });
    const size = BigInt(packet.length);
    return -Math.min(0, attempt(() => libc.sendto(this.fd.raw, packet, size, C.MSG_DONTWAIT, name, name.length)));
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }
}
