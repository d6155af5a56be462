import assert from "node:assert/strict";
import { testUnless } from "../../test/skip.ts";
import { findProgram, run } from "../host/command.ts";
import { environmentText, quoteWord, unitText } from "./systemd.ts";

Deno.test("quoteWord() leaves nothing for systemd to expand", () => {
  const cases: [string, string][] = [
    ["--port=6783", "--port=6783"],
    ["/usr/local/bin/weave", "/usr/local/bin/weave"],
    ["a b", '"a b"'],
    ["100%", "100%%"],
    ["$HOME", "$$HOME"],
    ['say "hi"\\', '"say \\"hi\\"\\\\"'],
    ["two\nlines", '"two\\nlines"'],
    ["bell\x07", '"bell\\x07"'],
    ["", '""'],
    ["a;b", '"a;b"'],
  ];
  for (const [word, quoted] of cases) assert.equal(quoteWord(word), quoted);
});

Deno.test("environmentText() keeps a value as it is, on one line", () => {
  assert.equal(
    environmentText(new Map([["WEAVE_PASSWORD", 'a"b\\c $d `e']])),
    'WEAVE_PASSWORD="a\\"b\\\\c \\$d \\`e"\n',
  );
  assert.throws(() => environmentText(new Map([["X", "a\nExecStart=b"]])), /Cannot write X for systemd: /);
});

const analyze = findProgram("systemd-analyze");

testUnless(
  analyze === undefined ? "there is no systemd-analyze" : undefined,
  "unitText() passes systemd-analyze verify, with the words that it is given",
  async () => {
    const folder = await Deno.makeTempDir();
    try {
      const program = `${folder}/weave`;
      await Deno.writeTextFile(program, "#!/bin/sh\n", { mode: 0o755 });
      const unit = `${folder}/weave.service`;
      await Deno.writeTextFile(unit, unitText([program, "launch", "--nickname=50% of $HOME", "host 1"]));
      const { code, stderr } = await run(analyze!, ["verify", unit]);
      // It looks at the units that ours names as well.
      assert.equal(stderr.split("\n").filter((line) => line.includes("weave")).join("\n"), "");
      assert.equal(code, 0, stderr);
      await Deno.writeTextFile(unit, unitText([program]).replace("Type=notify", "Type=notifi"));
      assert.match((await run(analyze!, ["verify", unit])).stderr, /weave\.service.*notifi/);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
);
