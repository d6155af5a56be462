/** A counter in the kernel that wakes whoever waits for it, in this thread or another. */
import { check } from "./errno.ts";
import { Fd } from "./fd.ts";
import { C } from "./layout.ts";
import { libc } from "./libc.ts";

const ONE = Uint8Array.of(1, 0, 0, 0, 0, 0, 0, 0);

export class EventFd implements Disposable {
  /** Nonblocking; readable while signals wait. */
  readonly fd: Fd;
  readonly #count = new Uint8Array(8);

  constructor() {
    this.fd = new Fd(check("eventfd", () => libc.eventfd(0, C.EFD_NONBLOCK | C.EFD_CLOEXEC)), "eventfd");
  }

  /** Wakes the other side. Signals add up until they are taken; it cannot fail but for want of the descriptor. */
  signal(): void {
    libc.write(this.fd.raw, ONE, 8n);
  }

  /** Takes all signals; returns whether there were any. */
  drain(): boolean {
    return libc.read(this.fd.raw, this.#count, 8n) === 8;
  }

  [Symbol.dispose](): void {
    this.fd.close();
  }
}
