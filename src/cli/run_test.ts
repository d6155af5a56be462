import assert from "node:assert/strict";
import { COMMANDS, COMMANDS_LATER, REMOVED } from "./commands.ts";
import { ReaderGoneError, type Terminal } from "./terminal.ts";
import { run } from "./run.ts";

/** Nobody listens there: commands must not find a router of this machine. */
const NOWHERE = "/no/such/weave.sock";

Deno.test("run() shows everything and fails without arguments, or for a command that there is not", async () => {
  const nothing = await weave();
  assert.equal(nothing.status, 1);
  assert.match(nothing.err, /^Usage: weave COMMAND/);
  const unknown = await weave("lunch");
  assert.equal(unknown.status, 1);
  assert.match(unknown.err, /^Unknown weave command 'lunch': did you mean 'launch'\?\n\nUsage: /);
  for (const { out } of [nothing, unknown]) assert.equal(out, "");
});

for (const args of [["help"], ["--help"], ["-h"], ["--local", "help"], ["help", "attach"], ["attach", "--help"]]) {
  Deno.test(`run() helps on stderr for "${args.join(" ")}"`, async () => {
    const { status, out, err } = await weave(...args);
    assert.equal(status, 0);
    assert.equal(out, "");
    assert.match(
      err,
      args.includes("attach") ? /^Usage: weave attach \[OPTION…\] \[ADDRESS…\] CONTAINER$/m : /^ +attach /m,
    );
  });
}

for (const { name } of COMMANDS.flatMap((c) => [c, ...c.subcommands ?? []])) {
  Deno.test(`run() helps with ${name} on one screen, with an example`, async () => {
    const { status, err } = await weave(...name.split(" "), "--help");
    assert.deepEqual(await weave("help", ...name.split(" ")), { status, out: "", err });
    assert.equal(status, 0);
    const lines = err.trimEnd().split("\n");
    assert.ok(lines.length <= 36, `${lines.length} lines`);
    const wide = lines.filter((line) => line.length > 80);
    assert.deepEqual(wide, []);
    assert.match(err, new RegExp(`^Example: .*\\bweave ${name}\\b`, "m"));
    assert.doesNotMatch(err, /not in this version yet|has no effect/);
  });
}

const WRONG: readonly { args: readonly string[]; says: RegExp; status?: number }[] = [
  { args: ["connect"], says: /^Usage: weave connect/ },
  { args: ["forget"], says: /^Usage: weave forget/ },
  { args: ["rmpeer"], says: /^Usage: weave rmpeer/ },
  { args: ["version", "please"], says: /^Unexpected argument "please"\n\nUsage: weave version/ },
  { args: ["status", "conections"], says: /^Invalid 'weave status' sub-command: conections\n\nUsage: / },
  { args: ["status", "peers", "dns"], says: /^Unexpected argument "dns"/ },
  { args: ["report", "-f"], says: /^Missing value for -f: TEMPLATE expected\n\nUsage: weave report/ },
  { args: ["report", "-f", "a", "-f", "b"], says: /^One template expected/ },
  { args: ["connect", "--repalce", "x"], says: /^Unknown flag --repalce: did you mean --replace\?/ },
  { args: ["help", "lunch"], says: /^Unknown weave command 'lunch'/ },
  { args: ["completion", "tcsh"], says: /^One of bash, zsh, fish expected/, status: 2 },
  { args: ["service"], says: /^Usage: weave service /m, status: 2 },
  { args: ["service", "imprt"], says: /^Unknown weave command 'service imprt': did you mean 'import'\?/, status: 2 },
  { args: ["service", "show"], says: /^Usage: weave service show/, status: 2 },
  { args: ["service", "show", "a/b"], says: /^Cannot use "a\/b" as name of a service/, status: 2 },
  { args: ["network", "ls", "x"], says: /^Unexpected argument "x"/, status: 2 },
  { args: ["help", "service", "lunch"], says: /^Unknown weave command 'lunch'/ },
  { args: ["logs", "--folow"], says: /did you mean --follow\?/, status: 2 },
];

for (const { args, says, status = 1 } of WRONG) {
  Deno.test(`run() refuses "weave ${args.join(" ")}"`, async () => {
    const said = await weave(...args);
    assert.equal(said.out, "");
    assert.match(said.err, says);
    assert.equal(said.status, status);
  });
}

const WITHOUT_ROUTER: readonly { args: readonly string[]; status: number }[] = [
  { args: ["status"], status: 1 },
  { args: ["status", "targets"], status: 1 },
  { args: ["rmpeer", "x"], status: 1 },
  { args: ["report"], status: 7 },
  { args: ["report", "-f", "x"], status: 7 },
  { args: ["connect", "x"], status: 7 },
  { args: ["connect", "--replace"], status: 7 },
  { args: ["forget", "x"], status: 7 },
];

for (const { args, status } of WITHOUT_ROUTER) {
  Deno.test(`run() says in one line that there is no router for "weave ${args.join(" ")}"`, async () => {
    const said = await weave(...args, "--http-addr", NOWHERE);
    assert.deepEqual(said, { status, out: "", err: "weave is not present. Have you launched it?\n" });
  });
}

Deno.test("run() shows its version also without a router", async () => {
  const { status, out } = await weave("version", "--http-addr", NOWHERE);
  assert.equal(status, 0);
  assert.match(out, /^weave script (\d+\.\d+\.\d+)\nweave \1\n$/);
  const json = await weave("version", "--json", "--http-addr", NOWHERE);
  assert.equal(JSON.parse(json.out).router, null);
});

Deno.test("run() asks and tells the router", async () => {
  const asked: string[] = [];
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen() {} }, async (request) => {
    const { pathname, search } = new URL(request.url);
    const json = request.headers.get("Accept") === "application/json" ? " as JSON" : "";
    asked.push(`${request.method} ${pathname}${search}${json} ${await request.text()}`.trim());
    if (pathname === "/status/peers") return new Response("still starting\n", { status: 503 });
    if (pathname === "/peer/c") return new Response("no way\n", { status: 500 });
    if (pathname.startsWith("/peer/")) return new Response("3 IPs taken over from b\n");
    if (pathname === "/connect") return new Response("invalid peer name\n", { status: 400 });
    if (pathname === "/forget") return new Response(null, { status: 404 });
    if (search !== "") return new Response("value");
    return new Response(json ? "{}" : "words\n");
  });
  const at = ["--http-addr", `127.0.0.1:${server.addr.port}`];
  try {
    assert.deepEqual(await weave("status", ...at), { status: 0, out: "\nwords\n\n", err: "" });
    assert.deepEqual(await weave("status", "--json", ...at), { status: 0, out: "{}\n", err: "" });
    assert.deepEqual(await weave("status", "targets", ...at), { status: 0, out: "words\n", err: "" });
    assert.deepEqual(await weave("status", "peers", ...at), { status: 1, out: "", err: "still starting\n" });
    assert.deepEqual(await weave("report", ...at), { status: 0, out: "{}\n", err: "" });
    assert.deepEqual(await weave("report", "-f", "{{.X}}", ...at), { status: 0, out: "value", err: "" });
    assert.deepEqual(await weave("rmpeer", "b", "c", ...at), {
      status: 1,
      out: "3 IPs taken over from b\n",
      err: "no way\n",
    });
    assert.deepEqual(await weave("connect", "x", ...at), { status: 1, out: "", err: "invalid peer name\n" });
    assert.deepEqual(await weave("forget", "x", ...at), { status: 4, out: "", err: "" });
  } finally {
    await server.shutdown();
  }
  assert.deepEqual(asked, [
    "GET /status",
    "GET /status as JSON",
    "GET /status/targets",
    "GET /status/peers",
    "GET /report as JSON",
    "GET /report?format=%7B%7B.X%7D%7D",
    "DELETE /peer/b",
    "DELETE /peer/c",
    "POST /connect peer=x",
    "POST /forget peer=x",
  ]);
});

Deno.test("run() is silent where nobody reads on", async () => {
  const terminal: Terminal = {
    print() {
      throw new ReaderGoneError();
    },
    printLine() {},
    warn(line) {
      assert.fail(line);
    },
  };
  assert.equal(await run(["version", "--http-addr", NOWHERE], terminal), 0);
});

Deno.test("run() warns in one line of what comes later, and tells what was removed", async () => {
  for (const [name, status] of Object.entries(COMMANDS_LATER)) {
    assert.deepEqual(await weave(name, "--any", "thing"), {
      status,
      out: "",
      err: `WARNING: 'weave ${name}' is not in this version yet\n`,
    });
  }
  for (const name of REMOVED) {
    const { status, err } = await weave(name);
    assert.equal(status, 1);
    assert.match(err, new RegExp(`^The '${name}' command has been removed as of Weave Net version 2\\.0\n`));
  }
});

Deno.test("every command of Weave Net 2.8 is known", () => {
  const known = new Set([...COMMANDS.map((c) => c.name), ...Object.keys(COMMANDS_LATER), ...REMOVED]);
  const needed =
    ("help setup version launch prime env config dns-args connect forget attach detach expose hide dns-add " +
      "dns-remove dns-lookup status report ps stop reset rmpeer setup-cni attach-bridge bridge-type docker-bridge-ip run start " +
      "restart launch-router stop-router launch-proxy stop-proxy launch-plugin stop-plugin").split(" ");
  assert.deepEqual(needed.filter((name) => !known.has(name)), []);
});

async function weave(...args: string[]): Promise<{ status: number; out: string; err: string }> {
  let out = "";
  let err = "";
  const print = (result: string | Uint8Array) =>
    out += typeof result === "string" ? result : new TextDecoder().decode(result);
  const terminal: Terminal = { print, printLine: (line) => print(`${line}\n`), warn: (line) => err += `${line}\n` };
  const status = await run(args, terminal);
  return { status, out, err };
}
