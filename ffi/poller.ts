/**
 * Waits for descriptors to be ready while the thread does other things: one epoll instance, awaited on another thread by one
 * call at a time. The kernel lets interest change during the wait, so only the end has to wake it.
 *
 * Level-triggered: what a callback leaves undone is told again in the next round, and between two rounds the runtime has its turn.
 */
import { check } from "./errno.ts";
import { EventFd } from "./eventfd.ts";
import { Fd } from "./fd.ts";
import { C, epoll_event } from "./layout.ts";
import { libc } from "./libc.ts";

/** Descriptors told of in one round; the kernel begins the next one with the others. */
const EVENTS = 64;
/** Token of the eventfd that ends the wait. */
const WAKE = 0;

export interface Ready {
  /** Reading will not block: there are octets, the end, or an error. */
  readonly readable: boolean;
  /** Writing will not block, be it because it fails. */
  readonly writable: boolean;
}

/** A descriptor being watched. */
export interface Watch {
  /** Chooses what is waited for; with neither it is left alone, even where it broke. */
  change(readable: boolean, writable: boolean): void;
  /** No callback any more. Call it before the descriptor is closed. */
  remove(): void;
}

export class Poller {
  readonly #epoll: Fd;
  readonly #wake: EventFd;
  readonly #events = new Uint8Array(EVENTS * epoll_event.octets);
  readonly #watches = new Map<number, (ready: Ready) => void>();
  #nextToken = WAKE + 1;
  #running: Promise<void> | undefined;
  #stopping = false;

  constructor() {
    using opened = new DisposableStack();
    const epoll = check("epoll_create1", () => libc.epoll_create1(C.EPOLL_CLOEXEC));
    this.#epoll = opened.use(new Fd(epoll, "epoll instance"));
    this.#wake = opened.use(new EventFd());
    this.#control(C.EPOLL_CTL_ADD, this.#wake.fd, C.EPOLLIN, WAKE);
    opened.move();
  }

  /** Begins to watch. An error in `onReady` is reported as one that nobody caught. */
  watch(fd: Fd, interest: Ready, onReady: (ready: Ready) => void): Watch {
    const token = this.#nextToken++;
    let events = 0;
    const change = (readable: boolean, writable: boolean) => {
      if (!this.#watches.has(token)) return;
      const wanted = (readable ? C.EPOLLIN : 0) | (writable ? C.EPOLLOUT : 0);
      if (wanted === events) return;
      this.#control(
        events === 0 ? C.EPOLL_CTL_ADD : wanted === 0 ? C.EPOLL_CTL_DEL : C.EPOLL_CTL_MOD,
        fd,
        wanted,
        token,
      );
      events = wanted;
    };
    const remove = () => {
      change(false, false);
      this.#watches.delete(token);
    };
    this.#watches.set(token, onReady);
    change(interest.readable, interest.writable);
    this.#running ??= this.#run();
    return { change, remove };
  }

  /** Ends the wait and forgets every descriptor; none is closed but the poller's own. */
  async stop(): Promise<void> {
    this.#stopping = true;
    this.#watches.clear();
    if (!this.#wake.fd.closed) this.#wake.signal();
    await this.#running;
    this.#wake.fd.close();
    this.#epoll.close();
  }

  async #run(): Promise<void> {
    const epoll = this.#epoll.raw;
    while (!this.#stopping) {
      let count = await libc.epoll_wait_elsewhere(epoll, this.#events, EVENTS, -1);
      // A signal, or an error that will say here what it is.
      if (count < 0) count = check("epoll_wait", () => libc.epoll_wait(epoll, this.#events, EVENTS, 0));
      for (let i = 0; i < count; i++) this.#dispatch(i * epoll_event.octets);
    }
  }

  #dispatch(at: number): void {
    // Missing: taken away by another callback in this round, or the eventfd.
    const onReady = this.#watches.get(epoll_event.get(this.#events, "data", at));
    if (onReady === undefined) return;
    const events = epoll_event.get(this.#events, "events", at);
    const broken = (events & (C.EPOLLERR | C.EPOLLHUP)) !== 0;
    try {
      onReady({ readable: broken || (events & C.EPOLLIN) !== 0, writable: broken || (events & C.EPOLLOUT) !== 0 });
    } catch (error) {
      reportError(error);
    }
  }

  #control(operation: number, fd: Fd, events: number, token: number): void {
    const event = epoll_event.make({ events, data: token });
    check("epoll_ctl", () => libc.epoll_ctl(this.#epoll.raw, operation, fd.raw, event), { descriptor: fd.what });
  }
}
