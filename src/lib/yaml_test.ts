import assert from "node:assert/strict";
import { parseYaml } from "./yaml.ts";

const TEXT = `# a comment
hostname: gate
interfaces:
  - name: eth0
    mtu: 90
  - { name: eth1 }
`;

Deno.test("parseYaml() gives values, and the lines they stand on", () => {
  const file = parseYaml(TEXT, "the file");
  assert.deepEqual(file.value, { hostname: "gate", interfaces: [{ name: "eth0", mtu: 90 }, { name: "eth1" }] });
  assert.equal(file.lineOf(["hostname"]), 2);
  assert.equal(file.lineOf(["interfaces", 0, "mtu"]), 5);
  assert.equal(file.lineOf(["interfaces", 1]), 6);
  assert.equal(file.lineOf(["interfaces", 1, "not there"]), 6);
  assert.equal(file.lineOf(["not there"]), 1);
});

Deno.test("parseYaml() says where it is wrong", () => {
  const wrong = (text: string, message: RegExp) => assert.throws(() => parseYaml(text, "gate.yaml"), { message });
  wrong("a: [1, 2\nb: 3\n", /^gate\.yaml: line \d, column \d+: /);
  wrong("a: 1\na: 2\n", /^gate\.yaml: line 2, column 1: Map keys must be unique/);
  wrong("a: *nowhere\n", /^gate\.yaml: .*nowhere/);
  wrong("x".repeat(2 ** 20 + 1), /^gate\.yaml: it has 1048577 characters/);
});

Deno.test("parseYaml() does not grow what refers to itself without end", () => {
  const bomb = ["a: &a [x, x, x, x, x, x, x, x, x]"];
  for (let i = 1; i < 9; i++) {
    const before = String.fromCharCode(96 + i);
    bomb.push(
      `${String.fromCharCode(97 + i)}: &${String.fromCharCode(97 + i)} [${`*${before}, `.repeat(8)}*${before}]`,
    );
  }
  assert.throws(() => parseYaml(bomb.join("\n"), "bomb"), { message: /^bomb: Excessive alias count/ });
  assert.throws(() => parseYaml("a: &a [*a]\n", "ring"), { message: "ring: an alias stands within what it means" });
});
