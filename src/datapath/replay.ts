/**
 * Which packets of a sealed connection came before. Each class of each connection has its own sequence, divided into windows of
 * 2^20 numbers; those of the window of the highest number seen, and of the one before, are taken once, older ones never.
 */
const WINDOW_BITS = 20;
const WINDOW_WORDS = (1 << WINDOW_BITS) / 32;
const WINDOW_MASK = (1 << WINDOW_BITS) - 1;
/** Windows per 2^32 numbers. */
const WINDOWS_PER_WORD = 2 ** (32 - WINDOW_BITS);

export class ReplayWindows {
  /** Number of the current window, by slot * 2 + class. Below 2^43: a double is exact. */
  readonly #window: Float64Array;
  /** Bit sets; undefined where nothing was seen yet, 128 KiB otherwise. */
  readonly #current: (Uint32Array | undefined)[];
  readonly #previous: (Uint32Array | undefined)[];

  constructor(slots: number) {
    this.#window = new Float64Array(slots * 2);
    this.#current = Array.from({ length: slots * 2 }, () => undefined);
    this.#previous = Array.from({ length: slots * 2 }, () => undefined);
  }

  /**
   * Whether an authentic packet is new; notes it.
   * @param high of the packet's u64: bit 31 is the class, the others belong to the sequence number
   */
  isNew(slot: number, high: number, low: number): boolean {
    const key = slot * 2 + (high >>> 31);
    const window = (high & 0x7fff_ffff) * WINDOWS_PER_WORD + (low >>> WINDOW_BITS);
    const ahead = window - this.#window[key]!;
    if (ahead > 0) this.#advance(key, window, ahead === 1);
    const set = ahead >= 0 ? this.#currentSet(key) : ahead === -1 ? this.#previousSet(key, window) : undefined;
    if (set === undefined) return false;
    const bit = low & WINDOW_MASK;
    const word = set[bit >>> 5]!;
    if ((word & 1 << (bit & 31)) !== 0) return false;
    set[bit >>> 5] = word | 1 << (bit & 31);
    return true;
  }

  /** Another connection begins in the slot. */
  reset(slot: number): void {
    for (const key of [slot * 2, slot * 2 + 1]) {
      this.#window[key] = 0;
      this.#current[key] = undefined;
      this.#previous[key] = undefined;
    }
  }

  /** Makes a window further on the current one; the sets change places, so that none is made anew each time. */
  #advance(key: number, window: number, next: boolean): void {
    const free = this.#previous[key];
    this.#previous[key] = this.#current[key];
    this.#current[key] = free?.fill(0);
    if (!next) this.#previous[key]?.fill(0);
    this.#window[key] = window;
  }

  #currentSet(key: number): Uint32Array {
    return this.#current[key] ??= new Uint32Array(WINDOW_WORDS);
  }

  #previousSet(key: number, window: number): Uint32Array | undefined {
    return window < 0 ? undefined : this.#previous[key] ??= new Uint32Array(WINDOW_WORDS);
  }
}
