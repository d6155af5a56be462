import assert from "node:assert/strict";
import { OptionError } from "../lib/errors.ts";
import { LAUNCH_OPTIONS } from "./commands.ts";
import { type Line, parseLine } from "./parse.ts";

interface Case {
  readonly name: string;
  readonly args: readonly string[];
  readonly given?: Readonly<Record<string, readonly string[]>>;
  readonly words?: readonly string[];
}

const CASES: readonly Case[] = [
  { name: "nothing", args: [] },
  { name: "words", args: ["a", "-", "b"], words: ["a", "-", "b"] },
  { name: "a value after its flag, or after =", args: ["--port", "1", "--mtu=2"], given: { port: ["1"], mtu: ["2"] } },
  {
    name: "flags after words",
    args: ["host1", "--port", "1", "host2", "--resume"],
    given: { port: ["1"], resume: ["true"] },
    words: ["host1", "host2"],
  },
  { name: "a switch with a value", args: ["--resume=false"], given: { resume: ["false"] } },
  {
    name: "a switch that leaves the next word alone",
    args: ["--resume", "true"],
    given: { resume: ["true"] },
    words: ["true"],
  },
  {
    name: "other spellings",
    args: ["-port", "1", "-iprange=2", "-H", "3"],
    given: { port: ["1"], "ipalloc-range": ["2"], "proxy-listen": ["3"] },
  },
  {
    name: "one flag twice, in order",
    args: ["-H", "a", "--port=1", "-H=b"],
    given: { "proxy-listen": ["a", "b"], port: ["1"] },
  },
  { name: "a value that looks like a flag", args: ["--nickname", "--port"], given: { nickname: ["--port"] } },
  { name: "an empty value", args: ["--http-addr", "", "--host="], given: { "http-addr": [""], host: [""] } },
  { name: "a value with =", args: ["--password=a=b"], given: { password: ["a=b"] } },
  { name: "words after --", args: ["a", "--", "--port", "--"], words: ["a", "--port", "--"] },
];

for (const { name, args, given = {}, words = [] } of CASES) {
  Deno.test(`parseLine() takes ${name}`, () => {
    assert.deepEqual(plain(parseLine(args, LAUNCH_OPTIONS)), { given, words, rest: [] });
  });
}

const REFUSED: readonly [args: readonly string[], message: string][] = [
  [["--ipalloc-rang", "10.0.0.0/8"], "Unknown flag --ipalloc-rang: did you mean --ipalloc-range?"],
  [["--ipalloc-rang=10.0.0.0/8"], "Unknown flag --ipalloc-rang: did you mean --ipalloc-range?"],
  [["-nickname", "x"], "Unknown flag -nickname: did you mean --nickname?"],
  [["--frobnicate"], "Unknown flag --frobnicate"],
  [["host", "--port"], "Missing value for --port: N expected"],
];

for (const [args, message] of REFUSED) {
  Deno.test(`parseLine() refuses ${args.join(" ")}`, () => {
    assert.throws(() => parseLine(args, LAUNCH_OPTIONS), (error) => {
      assert.ok(error instanceof OptionError);
      assert.equal(error.message, message);
      return true;
    });
  });
}

Deno.test("parseLine() leaves what comes after leading words to somebody else", () => {
  const leading = (word: string) => /^\d/.test(word);
  const cases: [string[], object][] = [
    [["1", "--resume", "2", "-t", "--port", "3", "4"], {
      given: { resume: ["true"] },
      words: ["1", "2"],
      rest: ["-t", "--port", "3", "4"],
    }],
    [["image", "1"], { given: {}, words: [], rest: ["image", "1"] }],
    [["1", "--", "2", "--"], { given: {}, words: ["1"], rest: ["2", "--"] }],
    [["1"], { given: {}, words: ["1"], rest: [] }],
  ];
  for (const [args, line] of cases) assert.deepEqual(plain(parseLine(args, LAUNCH_OPTIONS, leading)), line);
});

function plain({ given, ...line }: Line) {
  return { ...line, given: Object.fromEntries(given) };
}
