import assert from "node:assert/strict";
import { COMMANDS, SHELLS } from "./commands.ts";
import { run } from "./run.ts";

const CASES: readonly [line: string, completions: readonly string[]][] = [
  ["weave la", ["launch"]],
  ["weave status c", ["connections"]],
  ["weave connect --rep", ["--replace"]],
  ["weave launch --ipalloc", [
    "--ipalloc-range=",
    "--ipalloc-default-subnet=",
    "--ipalloc-init=",
    "--ipalloc-reclaim=",
  ]],
  ["weave launch --awsv", []],
  ["weave launch --trust", ["--trusted-subnets="]],
  ["weave help at", ["attach"]],
  ["weave completion z", ["zsh"]],
  ["weave service im", ["import"]],
  ["weave service import --pr", ["--priority="]],
  ["weave service --pr", []],
  ["weave network add --is", ["--isolated"]],
];

for (const [line, completions] of CASES) {
  Deno.test(`weave completion bash completes "${line}"`, async () => {
    const words = line.split(" ");
    const script = `${await scriptFor("bash")}
compopt() { :; }
COMP_WORDS=(${words.join(" ")}) COMP_CWORD=${words.length - 1}
_weave
printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { stdout, success } = await new Deno.Command("bash", { args: ["-c", script] }).output();
    assert.ok(success);
    assert.deepEqual(new TextDecoder().decode(stdout).split("\n").filter((word) => word !== ""), completions);
  });
}

for (const shell of SHELLS) {
  Deno.test(`weave completion ${shell} knows every command that help lists`, async () => {
    const script = await scriptFor(shell);
    for (const { name, group } of COMMANDS) {
      assert.equal(new RegExp(`^ *'?${name}\\b|-a ${name}\\b`, "m").test(script), group !== undefined, name);
    }
  });
}

async function scriptFor(shell: string): Promise<string> {
  let printed = "";
  const print = (result: string | Uint8Array) => printed += result;
  assert.equal(await run(["completion", shell], { print, printLine: print, warn: assert.fail }), 0);
  return printed;
}
