/**
 * The UDP datagrams that arrive at a host, taken off the link before anything of the host's looks at them: put together from their
 * fragments, and with what the sockets above do not tell, whether they might have been fragmented.
 */

import { PacketSocket } from "../../ffi/packet_socket.ts";
import type { ControlSockets } from "../../src/host/sockets.ts";

export interface Datagram {
  readonly payload: Uint8Array;
  /** The IP header forbids fragments. */
  readonly df: boolean;
}

export interface WiretapOptions {
  /** Index of the link, in the network namespace of this thread at the moment. */
  readonly link: number;
  readonly port: number;
  /** Whose wait for descriptors is used. */
  readonly sockets: ControlSockets;
  readonly onDatagram: (datagram: Datagram) => void;
}

const ETHERTYPE_IPV4 = 0x0800;
const PROTOCOL_UDP = 17;
const UDP_HEADER_OCTETS = 8;
/** IPv4 header (RFC 791 section 3.1), and the frame around it; offsets in octets from the frame's first octet. */
const AT = { length: 16, identification: 18, flags: 20, protocol: 23, source: 26 };
const ETHERNET_HEADER_OCTETS = 14;
const DONT_FRAGMENT = 0x4000, MORE_FRAGMENTS = 0x2000, OFFSET = 0x1fff;

interface Fragment {
  readonly offset: number;
  readonly octets: Uint8Array;
  readonly last: boolean;
}

export class Wiretap implements Disposable {
  readonly #socket: PacketSocket;
  readonly #unwatch: () => void;
  readonly #port: number;
  readonly #onDatagram: (datagram: Datagram) => void;
  /** Of datagrams that are not whole, by sender and identification. */
  readonly #fragments = new Map<string, Fragment[]>();

  constructor({ link, port, sockets, onDatagram }: WiretapOptions) {
    this.#port = port;
    this.#onDatagram = onDatagram;
    this.#socket = new PacketSocket({ link, protocol: ETHERTYPE_IPV4 });
    this.#unwatch = sockets.watch(this.#socket.fd, () => this.#read());
  }

  #read(): void {
    for (let frame = this.#socket.receive(); frame; frame = this.#socket.receive()) this.#take(frame);
  }

  #take(frame: Uint8Array): void {
    const view = new DataView(frame.buffer, frame.byteOffset, frame.byteLength);
    if (frame[AT.protocol] !== PROTOCOL_UDP) return;
    const header = ETHERNET_HEADER_OCTETS + 4 * (frame[ETHERNET_HEADER_OCTETS]! & 0x0f);
    const flags = view.getUint16(AT.flags);
    const fragment = {
      offset: 8 * (flags & OFFSET),
      octets: frame.subarray(header, ETHERNET_HEADER_OCTETS + view.getUint16(AT.length)),
      last: (flags & MORE_FRAGMENTS) === 0,
    };
    const key = `${view.getUint32(AT.source)} ${view.getUint16(AT.identification)}`;
    const fragments = fragment.offset === 0 && fragment.last ? [fragment] : [
      ...this.#fragments.get(key) ?? [],
      fragment,
    ];
    const datagram = whole(fragments);
    if (!datagram) {
      this.#fragments.set(key, fragments);
      return;
    }
    this.#fragments.delete(key);
    if (new DataView(datagram.buffer).getUint16(2) !== this.#port) return;
    this.#onDatagram({ payload: datagram.subarray(UDP_HEADER_OCTETS), df: (flags & DONT_FRAGMENT) !== 0 });
  }

  [Symbol.dispose](): void {
    this.#unwatch();
    this.#socket[Symbol.dispose]();
  }
}

/** The datagram that these fragments make; undefined when some are missing. */
function whole(fragments: readonly Fragment[]): Uint8Array | undefined {
  const last = fragments.find((fragment) => fragment.last);
  const octets = fragments.reduce((sum, fragment) => sum + fragment.octets.length, 0);
  if (!last || octets < last.offset + last.octets.length) return undefined;
  const datagram = new Uint8Array(octets);
  for (const { offset, octets } of fragments) datagram.set(octets, offset);
  return datagram;
}
