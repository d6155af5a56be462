import assert from "node:assert/strict";
import { SYSTEM_CLOCK } from "../host/clock.ts";
import { ControlSockets } from "../host/sockets.ts";
import { formatEndpoint, parseIpv4 } from "../lib/ip.ts";
import { SILENT } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { SeededRandom } from "../lib/random.ts";
import { Mesh } from "../mesh/mesh.ts";
import { Carriers } from "./carriers.ts";
import { ControlLoop } from "./control_loop.ts";

const HOUR_MS = 3_600_000;

Deno.test("clockAheadMs() follows a clock that is set, on either side", async () => {
  await using a = new TestRouter(0x02000000000a as PeerName, "127.0.0.10");
  await using b = new TestRouter(0x02000000000b as PeerName, "127.0.0.11");
  b.clockOffMs = HOUR_MS;
  a.connect(b);
  await until(() => a.sees() === 1 && b.sees() === -1);
  b.clockOffMs = 0;
  await until(() => a.sees() === 0 && b.sees() === 0);
  a.clockOffMs = 2 * HOUR_MS;
  await until(() => a.sees() === -2 && b.sees() === 2);
});

/** A router without carriers, at an address of its own, whose wall clock can be set. */
class TestRouter implements AsyncDisposable {
  clockOffMs = 0;
  readonly address: number;
  readonly port = 16783;
  readonly #sockets = new ControlSockets();
  readonly #mesh: Mesh;
  readonly #loop: ControlLoop;

  constructor(name: PeerName, address: string) {
    this.address = parseIpv4(address)!;
    const { port } = this;
    const mesh = this.#mesh = new Mesh({
      name,
      nickName: address,
      uid: BigInt(name),
      shortId: name % 4096,
      port,
      overlays: ["sleeve"],
      extensions: ["probe", "digest"],
      discovery: false,
      connectionLimit: 0,
      trustedSubnets: [],
      random: new SeededRandom(name),
      log: SILENT,
    }, SYSTEM_CLOCK.monotonicMs());
    const carriers = new Carriers({
      ourName: name,
      datapath: {
        publishConnection() {},
        publishRoutes: () => 0,
        sendSpecial() {},
        slotCounters: () => ({ txPackets: 0, txOctets: 0, rxPackets: 0, rxOctets: 0 }),
      },
      listener: { established() {}, failed() {}, control() {} },
      log: SILENT,
    });
    this.#loop = new ControlLoop({
      mesh,
      carriers,
      sockets: this.#sockets,
      crypto: { generateKeyPair: noKeys, sessionKey: noKeys, seal: noKeys, open: noKeys },
      password: undefined,
      host: this.address,
      port,
      minProtocolVersion: 2,
      clock: { ...SYSTEM_CLOCK, wallMs: () => SYSTEM_CLOCK.wallMs() + this.clockOffMs },
      tellClock: true,
      log: SILENT,
      onTargetsChanged() {},
    });
    this.#loop.listen();
  }

  connect({ address, port }: TestRouter): void {
    const endpoint = { address, port };
    const target = { text: formatEndpoint(endpoint), endpoint, hasPort: true };
    this.#loop.run((now) => this.#mesh.connect([target], { replace: false }, now));
  }

  /** How many hours the other router's clock is ahead; undefined without a connection. */
  sees(): number | undefined {
    const [connection] = this.#mesh.connections();
    const aheadMs = connection?.state === "pending" ? this.#loop.clockAheadMs(connection.id) : undefined;
    return aheadMs === undefined ? undefined : Math.round(aheadMs / HOUR_MS);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#loop.stop();
    await this.#sockets.stop();
  }
}

function noKeys(): never {
  throw new Error("there is no password");
}

async function until(condition: () => boolean): Promise<void> {
  for (let waited = 0; !condition(); waited += 10) {
    assert.ok(waited < 10_000, "in vain");
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
