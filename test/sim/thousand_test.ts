import assert from "node:assert/strict";
import { cpuUsage } from "node:process";
import { checkSettled, isSettled } from "./model.ts";
import { addressOf, withSeed, World } from "./world.ts";

const PEERS = 1000;
const TARGETS = 3;
/** Of processor time, for everything: real time says more of what else the machine does. */
const LIMIT_SECONDS = 60;

Deno.test("a thousand peers, three targets each and no discovery, agree in less than a minute", () => {
  withSeed(1000, (seed) => {
    const began = performance.now();
    const usageBefore = cpuUsage();
    const world = new World({ seed });
    for (let i = 1; i <= PEERS; i++) world.start(i);
    for (let i = 1; i <= PEERS; i++) {
      for (let n = 0; n < TARGETS; n++) world.host(i).connect(addressOf(1 + world.random.below(PEERS)));
    }
    const took = world.runUntil("settled", () => isSettled(world), { within: 60_000, every: 1000 });
    checkSettled(world, { samples: 3 });

    // Once they agree, a digest is all that they tell each other of the topology.
    world.run(2_000);
    const { counts } = world;
    const said = (kind: string) => counts.get(kind) ?? 0;
    const [gossip, digests, summaries] = ["gossip", "digest", "summary"].map(said);
    world.run(10_000);
    assert.ok(said("digest") > digests! + PEERS);
    assert.equal(said("summary"), summaries);
    assert.equal(said("gossip"), gossip);
    const seconds = (performance.now() - began) / 1000;
    const { user, system } = cpuUsage(usageBefore);
    const busy = (user + system) / 1e6;
    console.log(
      `${PEERS} peers settled in ${took / 1000} s of their time; ${world.events} events took ${
        seconds.toFixed(1)
      } s, ` +
        `${busy.toFixed(1)} s of processor time`,
    );
    assert.ok(busy < LIMIT_SECONDS, `${busy} s`);
  });
});
