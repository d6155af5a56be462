/** A clock that jumps from one event to the next. Events at the same time happen in the order in which they were planned. */
export class VirtualClock {
  now = 0;
  #planned = 0;
  /** A binary heap, the earliest event first. */
  readonly #events: Event[] = [];

  plan(at: number, happen: () => void): void {
    const events = this.#events;
    const event = { at: Math.max(at, this.now), order: this.#planned++, happen };
    let i = events.length;
    events.push(event);
    while (i > 0) {
      const parent = (i - 1) >> 1;
      if (!isBefore(event, events[parent]!)) break;
      events[i] = events[parent]!;
      i = parent;
    }
    events[i] = event;
  }

  /** Lets everything happen that is planned until then, and stops there. */
  runTo(end: number): void {
    for (let next = this.#events[0]; next && next.at <= end; next = this.#events[0]) {
      this.#take();
      this.now = next.at;
      next.happen();
    }
    this.now = end;
  }

  #take(): void {
    const events = this.#events;
    const last = events.pop()!;
    if (events.length === 0) return;
    let i = 0;
    for (let child = 1; child < events.length; child = 2 * i + 1) {
      if (child + 1 < events.length && isBefore(events[child + 1]!, events[child]!)) child++;
      if (!isBefore(events[child]!, last)) break;
      events[i] = events[child]!;
      i = child;
    }
    events[i] = last;
  }
}

interface Event {
  readonly at: number;
  readonly order: number;
  readonly happen: () => void;
}

function isBefore(a: Event, b: Event): boolean {
  return a.at < b.at || a.at === b.at && a.order < b.order;
}
