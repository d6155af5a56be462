import assert from "node:assert/strict";
import { OptionError } from "../lib/errors.ts";
import { processId, type Running, type RunRecord } from "../daemon/process.ts";
import { lastProblem, planStart } from "./launch.ts";

Deno.test("planStart() keeps the password out of what is written down", () => {
  const plan = planStart(given({ password: "secret", port: "7000" }), ["host1"], undefined);
  assert.deepEqual(Object.fromEntries(plan.given), { port: ["7000"] });
  assert.equal(plan.options.password, "secret");
  assert.equal(plan.options.port, 7000);
  assert.deepEqual(plan.options.targets, ["host1"]);
});

const REPLACING: readonly {
  name: string;
  was: { given: Record<string, string>; peers: string[] };
  now: { given: Record<string, string>; peers: string[] };
  gives: { given: Record<string, string>; peers: string[] };
}[] = [
  {
    name: "keeps flags and peers of the router it replaces",
    was: { given: { nickname: "keeper", port: "7000" }, peers: ["host1"] },
    now: { given: {}, peers: [] },
    gives: { given: { nickname: "keeper", port: "7000" }, peers: ["host1"] },
  },
  {
    name: "lets what is given now win",
    was: { given: { nickname: "keeper", mtu: "1400" }, peers: ["host1"] },
    now: { given: { nickname: "new", "conn-limit": "5" }, peers: ["host2"] },
    gives: { given: { nickname: "new", mtu: "1400", "conn-limit": "5" }, peers: ["host2"] },
  },
  {
    name: "prefers peers that are named now to those of the last time",
    was: { given: { resume: "true" }, peers: [] },
    now: { given: {}, peers: ["host2"] },
    gives: { given: {}, peers: ["host2"] },
  },
  {
    name: "prefers those of the last time when told so",
    was: { given: {}, peers: ["host1"] },
    now: { given: { resume: "true" }, peers: [] },
    gives: { given: { resume: "true" }, peers: [] },
  },
];

for (const { name, was, now, gives } of REPLACING) {
  Deno.test(`planStart() ${name}`, () => {
    const plan = planStart(given(now.given), now.peers, running({ given: given(was.given), peers: was.peers }));
    assert.deepEqual(Object.fromEntries(plan.given), Object.fromEntries(given(gives.given)));
    assert.deepEqual(plan.peers, gives.peers);
    assert.deepEqual(plan.options.targets, gives.peers);
  });
}

Deno.test("planStart() refuses peers together with --resume, both given now", () => {
  assert.throws(
    () => planStart(given({ resume: "true" }), ["x"], running({ given: new Map(), peers: [] })),
    OptionError,
  );
});

Deno.test("planStart() takes the password from the router it replaces, unless told another", async () => {
  const child = new Deno.Command("sleep", { args: ["100"], env: { WEAVE_PASSWORD: "old" } }).spawn();
  try {
    const replaced = running({ given: new Map(), peers: [], process: processId(child.pid)! });
    assert.equal(planStart(new Map(), [], replaced).options.password, "old");
    assert.equal(planStart(given({ password: "new" }), [], replaced).options.password, "new");
    assert.equal(planStart(given({ password: "" }), [], replaced).options.password, undefined);
  } finally {
    child.kill("SIGKILL");
    await child.status;
  }
});

const LOGS: readonly [name: string, log: string, problem: string | undefined][] = [
  ["nothing", "\n", undefined],
  [
    "the last line where there is no error",
    "INFO: 2026/01/01 00:00:00.000000 starting\nsegmentation fault\n",
    "segmentation fault",
  ],
  [
    "the error of the last error line",
    'ERRO: 2026/01/01 00:00:00.000000 first error=one\nERRO: 2026/01/01 00:00:00.000000 router failed error="Cannot \\"do\\" it"\nINFO: 2026/01/01 00:00:00.000000 bye\n',
    'Cannot "do" it',
  ],
  ["an error line without that field", "FATA: 2026/01/01 00:00:00.000000 out of luck value=7\n", "out of luck value=7"],
  [
    "JSON",
    '{"level":"error","event":"router failed","error":"Cannot do it"}\n{"level":"info","event":"bye"}\n{"le',
    "Cannot do it",
  ],
];

for (const [name, log, problem] of LOGS) {
  Deno.test(`lastProblem() finds ${name}`, () => assert.equal(lastProblem(log), problem));
}

function given(flags: Record<string, string>): Map<string, string[]> {
  return new Map(Object.entries(flags).map(([flag, text]) => [flag, [text]]));
}

function running(was: Pick<RunRecord, "given" | "peers"> & Partial<RunRecord>): Running {
  const record = { process: { pid: 0x7fffffff, startTicks: 1, bootId: "" }, version: "0.0.1", ...was };
  return { router: record, supervisor: undefined, record };
}
