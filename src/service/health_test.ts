import assert from "node:assert/strict";
import fc from "fast-check";
import { SeededRandom } from "../lib/random.ts";
import { Health } from "./health.ts";
import type { BackendHealth, CheckSpec } from "./records.ts";

const CHECK: CheckSpec = { kind: "tcp", payload: "", intervalMs: 1_000, timeoutMs: 800, rise: 2, fall: 2 };

Deno.test("set() begins to ask at once, and what is well once is up", () => {
  const backend = new Backend(() => undefined);
  backend.watch(CHECK);
  assert.equal(backend.health, "unknown");
  backend.run(1);
  assert.deepEqual(backend.changes, ["0 up"]);
  backend.run(10_000);
  assert.deepEqual(backend.changes, ["0 up"]);
  assert.equal(backend.probes, 11);
});

for (
  const [how, failing] of [["refuses", "connection refused"], ["says nothing", "silent"]] as const
) {
  Deno.test(`a backend that ${how} is down within 2.6 s whenever it dies, and up again after two successes`, () => {
    for (let diesAt = 5_000; diesAt <= 6_000; diesAt += 50) {
      const backend = new Backend((at) => at >= diesAt && at < 20_000 ? failing : undefined);
      backend.watch(CHECK);
      backend.run(30_000);
      const [, down, up] = backend.changes.map((change) => Number(change.split(" ")[0]));
      assert.equal(backend.changes.length, 3);
      assert.ok(down! - diesAt <= 2_600, `down after ${down! - diesAt} ms`);
      assert.ok(up! >= 20_000 && up! - 20_000 <= 2_000, `up after ${up! - 20_000} ms`);
    }
  });
}

Deno.test("a new backend that does not answer is down after two failures", () => {
  const backend = new Backend(() => "silent");
  backend.watch(CHECK);
  backend.run(10_000);
  assert.deepEqual(backend.changes, ["1600 down"]);
});

Deno.test("a backend that fails every other check stays as it is", () => {
  for (const first of [0, 1]) {
    for (const failure of ["connection refused", "silent"]) {
      const backend = new Backend((_, n) => n % 2 === first ? failure : undefined);
      backend.watch(CHECK);
      backend.run(300_000);
      assert.deepEqual(backend.changes.map((change) => change.split(" ")[1]), ["up"]);
    }
  }
});

Deno.test("a backend that comes and goes must be well for longer each time, and is believed again after a quiet minute", () => {
  const backend = new Backend((_, n) => n < 200 && n % 4 >= 2 ? "connection refused" : undefined);
  backend.watch(CHECK);
  backend.run(60_000);
  const early = backend.changes.length;
  assert.ok(early <= 4, backend.changes.join());
  backend.run(120_000);
  assert.equal(backend.changes.length, early);
  assert.equal(backend.health, "down");
  backend.run(200_000);
  assert.equal(backend.health, "up");
  assert.equal(backend.core.details("b")!.rise, 2);
});

Deno.test("with one failure and one success in a row as limits it does not flap either", () => {
  const backend = new Backend((_, n) => n % 2 === 0 ? "connection refused" : undefined);
  backend.watch({ ...CHECK, rise: 1, fall: 1 });
  backend.run(600_000);
  assert.ok(backend.changes.length <= 4, backend.changes.join());
});

Deno.test("set() with the same check changes nothing, with another begins anew and keeps what is known", () => {
  const backend = new Backend(() => undefined);
  backend.watch(CHECK);
  backend.run(1_500);
  const { probes } = backend;
  backend.watch({ ...CHECK });
  assert.equal(backend.probes, probes);
  backend.watch({ ...CHECK, kind: "http", payload: "/" });
  assert.equal(backend.health, "up");
  backend.run(10);
  assert.equal(backend.probes, probes + 1);
  assert.equal(backend.changes.length, 1);
});

Deno.test("what was known before a start counts until it is judged", () => {
  const backend = new Backend(() => undefined);
  backend.watch(CHECK, "down");
  assert.equal(backend.health, "down");
  backend.run(5_000);
  assert.deepEqual(backend.changes.map((change) => change.split(" ")[1]), ["up"]);
});

Deno.test("without a check a backend is up, and never asked", () => {
  const backend = new Backend(() => "silent");
  backend.watch({ ...CHECK, kind: "none" });
  backend.run(10_000);
  assert.deepEqual(backend.changes, ["0 up"]);
  assert.equal(backend.probes, 0);
  assert.equal(backend.core.pollTimeout(), undefined);
});

Deno.test("results of attempts that are over, or of what is not watched any more, are ignored", () => {
  const core = new Health();
  core.set("b", CHECK, 0);
  const probe = core.poll();
  assert.ok(probe?.type === "probe");
  core.handleTimeout(800); // it failed
  core.handleResult("b", probe.attempt, undefined, 801);
  assert.equal(core.health("b"), "unknown");
  core.retain(new Set());
  core.handleResult("b", probe.attempt + 1, undefined, 900);
  core.handleTimeout(10_000);
  assert.equal(core.health("b"), "unknown");
});

Deno.test("nothing is asked twice at once, and early or repeated timeouts do nothing", () => {
  fc.assert(fc.property(fc.integer(), (seed) => {
    const random = new SeededRandom(seed);
    const core = new Health();
    const running = new Map<string, number>();
    const known = new Map<string, BackendHealth>();
    let now = 0;
    const drain = () => {
      for (let output = core.poll(); output; output = core.poll()) {
        if (output.type === "probe") running.set(output.key, output.attempt);
        else {
          assert.notEqual(known.get(output.key) ?? "unknown", output.health);
          known.set(output.key, output.health);
        }
      }
    };
    for (let step = 0; step < 200; step++) {
      const key = `b${random.below(5)}`;
      switch (random.below(6)) {
        case 0:
          core.set(key, { ...CHECK, rise: 1 + random.below(3), fall: 1 + random.below(3) }, now);
          break;
        case 1:
          if (random.below(4) > 0) break;
          core.remove(key);
          known.delete(key);
          running.delete(key);
          break;
        case 2:
        case 3: {
          const attempt = running.get(key);
          if (attempt === undefined) break;
          running.delete(key);
          core.handleResult(key, attempt, random.below(2) === 0 ? undefined : "no", now);
          break;
        }
        default:
          now += random.below(500);
          core.handleTimeout(now);
      }
      drain();
      const next = core.pollTimeout()?.at ?? Infinity;
      assert.ok(next > now, `${next} at ${now}`);
      core.handleTimeout(now);
      assert.equal(core.poll(), undefined);
      for (const [name, health] of known) assert.equal(core.health(name), health);
    }
  }));
});

/** A backend, and time. */
class Backend {
  readonly core = new Health();
  readonly changes: string[] = [];
  probes = 0;
  #now = 0;
  /** Results that are under way. */
  readonly #results: { readonly at: number; readonly attempt: number; readonly failure: string | undefined }[] = [];

  /** @param answer to the nth probe, at a time: why it fails, "silent", or undefined where it is well */
  constructor(readonly answer: (at: number, n: number) => string | undefined) {}

  get health(): BackendHealth {
    return this.core.health("b");
  }

  watch(check: CheckSpec, initial?: BackendHealth): void {
    this.core.set("b", check, this.#now, initial);
    this.#drain();
  }

  run(ms: number): void {
    const end = this.#now + ms;
    for (;;) {
      const result = this.#results[0];
      const at = Math.min(result?.at ?? Infinity, this.core.pollTimeout()?.at ?? Infinity);
      if (at >= end) break;
      this.#now = at;
      if (result?.at === at) {
        this.#results.shift();
        this.core.handleResult("b", result.attempt, result.failure, at);
      } else {
        this.core.handleTimeout(at);
      }
      this.#drain();
    }
    this.#now = end;
  }

  #drain(): void {
    for (let output = this.core.poll(); output; output = this.core.poll()) {
      if (output.type === "changed") {
        this.changes.push(`${this.#now} ${output.health}`);
        continue;
      }
      const failure = this.answer(this.#now, this.probes++);
      if (failure !== "silent") this.#results.push({ at: this.#now, attempt: output.attempt, failure });
    }
  }
}
