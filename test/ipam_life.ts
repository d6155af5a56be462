/**
 * A life of an allocator with its file, for a process that is killed in it: `ipam_life.ts PREFIX POINT`. It says on standard output what it
 * gave to whom, as soon as others may know, and kills itself before the POINT-th thing that it does to files; a write it begins is
 * cut in half. Without being killed it says END.
 */
import { Allocator } from "../src/ipam/allocator.ts";
import { IpamStore } from "../src/daemon/ipam_store.ts";
import type { OperationId, OperationResult } from "../src/ipam/operations.ts";
import { type Cidr, formatCidr, formatIpv4, parseCidr } from "../src/lib/ip.ts";
import { SILENT } from "../src/lib/log.ts";
import type { PeerName } from "../src/lib/mac.ts";
import { SeededRandom } from "../src/lib/random.ts";
import { decodeIpamMessage, encodeIpamMessage } from "../src/wire/ipam.ts";
import { rangeOf } from "../src/ipam/range.ts";

export const RANGE = parseCidr("10.32.0.0/26")!;
export const US = 0x02aa00000001 as PeerName;
export const OTHER = 0x02bb00000002 as PeerName;

/** An allocator with its file, and nothing else. */
export class Life {
  readonly #store: IpamStore;
  #allocator!: Allocator;
  readonly #waiting = new Map<OperationId, (result: OperationResult) => void>();

  constructor(prefix: string, readonly say: (line: string) => void) {
    this.#store = new IpamStore(prefix, SILENT);
  }

  async start(): Promise<void> {
    const stored = await this.#store.read();
    this.#allocator = new Allocator({
      name: US,
      nickName: "us",
      uid: 7n,
      range: RANGE,
      init: { mode: "seed", peers: [US, OTHER] },
      stored: stored?.stored,
      existing: [],
      running: undefined,
      reclaim: { afterMs: undefined, elapsed: { ms: 0, exact: true } },
      peers: { inReach: () => true, targetCount: () => 1 },
      random: new SeededRandom(1),
      log: SILENT,
    }, 0);
    this.#drain();
  }

  async stop(): Promise<void> {
    await this.#store.stop();
  }

  async allocate(id: string): Promise<Cidr | undefined> {
    const cidr = await this.#operate(() => this.#allocator.allocate({ id, subnet: RANGE, isContainer: false }, 0));
    if (cidr !== undefined) this.say(`GOT ${id} ${formatCidr(cidr)}`);
    return cidr;
  }

  /** Who gives an address up does not use it any more. */
  async free(id: string, cidr: Cidr): Promise<void> {
    this.say(`FREED ${id}`);
    await this.#operate(() => this.#allocator.free(id, cidr.address, 0));
  }

  /** Somebody asks for whatever there is. */
  request(): void {
    this.#allocator.handleUnicast(OTHER, encodeIpamMessage({ type: "request", range: rangeOf(RANGE) }), 0);
    this.#drain();
  }

  /** Resolves when everything is written. */
  async idle(): Promise<void> {
    await this.#operate(() => this.#allocator.freeAll("nobody", 0));
  }

  #operate(begin: () => OperationId): Promise<Cidr | undefined> {
    return new Promise((resolve) => {
      this.#waiting.set(begin(), (result) => resolve(result.outcome === "done" ? result.cidr : undefined));
      this.#drain();
    });
  }

  #drain(): void {
    for (let output = this.#allocator.poll(); output; output = this.#allocator.poll()) {
      if (output.type === "persist") {
        this.#store.write(() => this.#allocator.snapshot(), (revision) => {
          this.#allocator.handlePersisted(revision, 0);
          this.#drain();
        });
      } else if (output.type === "answer") {
        this.#waiting.get(output.operation)?.(output.result);
        this.#waiting.delete(output.operation);
      } else if (output.type === "unicast") {
        this.#sayWhatIsTheirs(output.payload);
      } else {
        output.data.encode();
      }
    }
  }

  /** Everything that they are told to own. */
  #sayWhatIsTheirs(payload: Uint8Array): void {
    const message = decodeIpamMessage(payload);
    if (message.type !== "ring" || message.state.ring === undefined) return;
    const { entries, end } = message.state.ring;
    entries.forEach(({ token, peer }, i) => {
      if (peer === OTHER) this.say(`GAVE ${formatIpv4(token)} ${formatIpv4(entries[i + 1]?.token ?? end)}`);
    });
  }
}

/** Counts what is done to files, and ends this process before one of it. */
function killAt(point: number): void {
  let count = 0;
  const reach = (cut?: () => void) => {
    if (++count !== point) return;
    cut?.();
    Deno.kill(Deno.pid, "SIGKILL");
  };
  // deno-lint-ignore no-explicit-any
  const intercept = (holder: any, name: string, cut?: (self: any, args: any[]) => void) => {
    const original = holder[name];
    // deno-lint-ignore no-explicit-any
    holder[name] = function (...args: any[]) {
      reach(() => cut?.(this, args));
      return original.apply(this, args);
    };
  };
  for (const name of ["mkdir", "open", "rename", "remove"]) intercept(Deno, name);
  intercept(Deno.FsFile.prototype, "write", (file, [octets]) => file.writeSync(octets.subarray(0, octets.length / 2)));
  intercept(Deno.FsFile.prototype, "sync");
}

async function main(prefix: string, point: number): Promise<void> {
  const encoder = new TextEncoder();
  const life = new Life(prefix, (line) => void Deno.stdout.writeSync(encoder.encode(`${line}\n`)));
  killAt(point);
  await life.start();
  const first = await life.allocate("a");
  const more = await Promise.all(["b", "c", "d"].map((id) => life.allocate(id)));
  await life.free("b", more[0]!);
  await life.allocate("e");
  life.request();
  await life.idle();
  await life.free("a", first!);
  await Promise.all([life.allocate("f"), life.allocate("g")]);
  life.request();
  await life.allocate("h");
  await life.idle();
  await life.stop();
  life.say("END");
}

if (import.meta.main) await main(Deno.args[0]!, Number(Deno.args[1]));
