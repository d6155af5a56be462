import assert from "node:assert/strict";
import fc from "fast-check";
import { canonical, optionOf, parseSave, planRestore, targetOf, tokens, type Wanted } from "./iptables.ts";

Deno.test("parseSave() reads tables, chains and rules, and passes over what it does not know", () => {
  const ruleset = parseSave(
    "# Generated\n*filter\n:INPUT DROP [1:2]\n:WEAVE-EXPOSE - [0:0]\n-A INPUT -j ACCEPT\n-A INPUT\n[0:0] -A INPUT -j X\n" +
      "-A MISSING -j ACCEPT\nCOMMIT\n-A INPUT -j DROP\n*nat\n:WEAVE - [0:0]\nCOMMIT\n",
  );
  assert.deepEqual(
    ruleset,
    new Map([
      ["filter", new Map<string, string[]>([["INPUT", ["-j ACCEPT", ""]], ["WEAVE-EXPOSE", []]])],
      ["nat", new Map<string, string[]>([["WEAVE", []]])],
    ]),
  );
});

Deno.test("canonical() makes spellings of one rule equal and keeps different rules apart", () => {
  const same = [
    [
      "-i docker0 -d 10.0.0.1/32 -p tcp -m tcp --dport 53 -j DROP",
      "-d 10.0.0.1/32 -i docker0 -p tcp --dport 53 -j DROP",
    ],
    ["-m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"],
    ['-m comment --comment "a b" -j X', '-j X -m comment --comment "a b"'],
  ] as const;
  for (const [a, b] of same) assert.equal(canonical(a), canonical(b));
  const different = [
    "-i weave -j ACCEPT",
    "! -i weave -j ACCEPT",
    "-o weave -j ACCEPT",
    "-i weave -j DROP",
    "-i weave",
  ];
  assert.equal(new Set(different.map(canonical)).size, different.length);
});

Deno.test("tokens() minds quotes", () => {
  assert.deepEqual(tokens('--comment "say \\"hi\\" there" -j X'), ["--comment", 'say "hi" there', "-j", "X"]);
});

Deno.test("targetOf() and optionOf() find jumps and options", () => {
  assert.equal(targetOf("-i a -j DROP"), "DROP");
  assert.equal(targetOf("-i a -g LOOP"), "LOOP");
  assert.equal(targetOf("-i a"), undefined);
  assert.deepEqual(optionOf("-i a ! -o b -j DROP", "-o"), { value: "b", negated: true });
  assert.deepEqual(optionOf("-i a ! -o b -j DROP", "-i"), { value: "a", negated: false });
});

Deno.test("planRestore() says what is missing and nothing else", () => {
  const actual = parseSave(
    "*filter\n:FORWARD DROP [0:0]\n:OLD - [0:0]\n-A FORWARD -j DOCKER-USER\n-A FORWARD -o b -j TWO\nCOMMIT\n",
  );
  const wanted: Wanted = {
    chains: new Map([["OURS", ["-d 10.0.0.0/8 -j ACCEPT"]]]),
    noChains: ["OLD", "NEVER"],
    top: new Map([["FORWARD", ["-i a -j ONE", "-o b -j TWO"]]]),
    anywhere: new Map([["INPUT", ["-j THREE"]]]),
    gone: new Map(),
  };
  assert.equal(
    planRestore(actual, new Map([["filter", wanted]])),
    "*filter\n:OURS - [0:0]\n:OLD - [0:0]\n-A OURS -d 10.0.0.0/8 -j ACCEPT\n-D FORWARD -o b -j TWO\n" +
      "-I FORWARD 1 -i a -j ONE\n-I FORWARD 2 -o b -j TWO\n-A INPUT -j THREE\n-X OLD\nCOMMIT\n",
  );
});

Deno.test("planRestore() leaves rules at the top that stand in order below harmless ones, and lifts them above others", () => {
  const plan = (...rules: string[]) =>
    planRestore(
      new Map([["filter", new Map([["FORWARD", rules]])]]),
      new Map([["filter", {
        chains: new Map(),
        noChains: [],
        top: new Map([["FORWARD", ["-j ONE", "-j TWO"]]]),
        anywhere: new Map(),
        gone: new Map(),
        shadows: (rule) => rule === "-j ACCEPT",
      }]]),
    ).split("\n").filter((line) => /^-[DI]/.test(line));
  const lifted = ["-I FORWARD 1 -j ONE", "-I FORWARD 2 -j TWO"];
  assert.deepEqual(plan("-j ONE", "-j TWO"), []);
  assert.deepEqual(plan("-j OTHER", "-j ONE", "-j OTHER", "-j TWO", "-j ACCEPT"), []);
  assert.deepEqual(plan("-j TWO", "-j ONE"), ["-D FORWARD -j TWO", "-D FORWARD -j ONE", ...lifted]);
  assert.deepEqual(plan("-j ACCEPT", "-j ONE", "-j TWO"), ["-D FORWARD -j ONE", "-D FORWARD -j TWO", ...lifted]);
  assert.deepEqual(plan("-j ONE", "-j ACCEPT", "-j TWO"), ["-D FORWARD -j ONE", "-D FORWARD -j TWO", ...lifted]);
  assert.deepEqual(plan("-j TWO"), ["-D FORWARD -j TWO", ...lifted]);
  assert.deepEqual(plan(), lifted);
});

Deno.test("planRestore() applied once leaves nothing to do, and touches no rule of others", () => {
  const rule = fc.constantFrom("-j ONE", "-j TWO", "-j THREE", "-j OTHER", "-i x -j OTHER", "-j STALE", "-j ACCEPT");
  const rules = fc.array(rule, { maxLength: 8 });
  const foreign = ["-j OTHER", "-i x -j OTHER", "-j ACCEPT"];
  fc.assert(
    fc.property(rules, rules, fc.array(rule, { maxLength: 3 }), fc.boolean(), (forward, input, own, hasChain) => {
      const chains = new Map([
        ["FORWARD", forward],
        ["INPUT", input],
        ["OLD", []],
        ...(hasChain ? [["OURS", own] as const] : []),
      ]);
      const wanted: Wanted = {
        chains: new Map([["OURS", ["-j ONE"]]]),
        noChains: ["OLD"],
        top: new Map([["FORWARD", ["-j ONE", "-j TWO"]]]),
        anywhere: new Map([["INPUT", ["-j THREE"]]]),
        gone: new Map([["INPUT", ["-j STALE"]], ["FORWARD", ["-j STALE"]]]),
        shadows: (r) => r === "-j ACCEPT",
      };
      const tables = new Map([["filter", wanted] as const]);
      const after = apply(chains, planRestore(new Map([["filter", chains]]), tables));
      assert.equal(planRestore(new Map([["filter", after]]), tables), "");
      for (const [chain, before] of [["FORWARD", forward], ["INPUT", input]] as const) {
        assert.deepEqual(
          after.get(chain)!.filter((r) => foreign.includes(r)),
          before.filter((r) => foreign.includes(r)),
        );
      }
      assert.deepEqual(after.get("FORWARD")!.includes("-j STALE"), false);
      assert.equal(after.has("OLD"), false);
    }),
  );
});

/** What `iptables-restore --noflush` would make of it. */
function apply(before: ReadonlyMap<string, readonly string[]>, script: string): Map<string, string[]> {
  const chains = new Map([...before].map(([name, rules]) => [name, [...rules]]));
  for (const line of script.split("\n")) {
    const [verb, chain = "", ...rest] = line.split(" ");
    if (line.startsWith(":")) chains.set(verb!.slice(1), []);
    else if (verb === "-A") chains.get(chain)!.push(rest.join(" "));
    else if (verb === "-I") chains.get(chain)!.splice(Number(rest[0]) - 1, 0, rest.slice(1).join(" "));
    else if (verb === "-D") {
      const at = chains.get(chain)!.indexOf(rest.join(" "));
      assert.ok(at >= 0, `cannot delete what is not there: ${line}`);
      chains.get(chain)!.splice(at, 1);
    } else if (verb === "-X") assert.deepEqual(chains.get(chain), []), chains.delete(chain);
  }
  return chains;
}
