import assert from "node:assert/strict";
import { readInspected, wishOf } from "./container.ts";
import {
  type CreateOptions,
  type ImageConfig,
  networkWords,
  readCreate,
  readImage,
  releaseCreate,
  rewriteCreate,
  rewriteExec,
  rewriteStart,
} from "./create.ts";
import { HostnameRule } from "./hostname.ts";
import { type JsonObject, printJson } from "./json.ts";

const IMAGE: ImageConfig = { entrypoint: [], cmd: ["sh"], env: [] };
const DNS = { address: "172.17.0.1", domain: "weave.local" };
const AS_NAMED = new HostnameRule({ label: undefined, match: "(.*)", replacement: "$1" });

interface Command {
  readonly what: string;
  readonly request: Record<string, unknown>;
  readonly image?: Partial<ImageConfig>;
  readonly runs: { Entrypoint: string[]; Cmd: string[] } | "no command";
}

const COMMANDS: readonly Command[] = [
  { what: "the image's command", request: {}, runs: { Entrypoint: ["/w/w"], Cmd: ["sh"] } },
  { what: "a command", request: { Cmd: ["a", "b"] }, runs: { Entrypoint: ["/w/w"], Cmd: ["a", "b"] } },
  { what: "a command as one text", request: { Cmd: "a" }, runs: { Entrypoint: ["/w/w"], Cmd: ["a"] } },
  {
    what: "the image's entrypoint and command",
    request: { Entrypoint: null, Cmd: null },
    image: { entrypoint: ["e"], cmd: ["c"] },
    runs: { Entrypoint: ["/w/w", "e"], Cmd: ["c"] },
  },
  {
    what: "the image's entrypoint and a command",
    request: { Cmd: ["a"] },
    image: { entrypoint: ["e"], cmd: ["c"] },
    runs: { Entrypoint: ["/w/w", "e"], Cmd: ["a"] },
  },
  {
    what: "an entrypoint, which takes the image's command away",
    request: { Entrypoint: ["x"] },
    image: { entrypoint: ["e"], cmd: ["c"] },
    runs: { Entrypoint: ["/w/w", "x"], Cmd: [] },
  },
  {
    what: "an entrypoint as one text",
    request: { entrypoint: "x", Cmd: ["a"] },
    runs: { Entrypoint: ["/w/w", "x"], Cmd: ["a"] },
  },
  {
    what: 'a command without the image\'s entrypoint (--entrypoint "")',
    request: { Entrypoint: [""], Cmd: ["a"] },
    image: { entrypoint: ["e"] },
    runs: { Entrypoint: ["/w/w"], Cmd: ["a"] },
  },
  {
    what: "what a committed image says, once",
    request: { Cmd: ["a"] },
    image: { entrypoint: ["/w/w", "e"] },
    runs: { Entrypoint: ["/w/w", "e"], Cmd: ["a"] },
  },
  { what: "nothing", request: {}, image: { cmd: [] }, runs: "no command" },
  { what: "nothing where the entrypoint is taken away", request: { Entrypoint: [""] }, runs: "no command" },
];

for (const { what, request, image, runs } of COMMANDS) {
  Deno.test(`rewriteCreate() holds ${what}`, () => {
    const body = created(request);
    const result = rewriteCreate(body, options({ image: { ...IMAGE, ...image } }));
    if (runs === "no command") return assert.equal(result, "no command");
    const { Entrypoint, entrypoint, Cmd } = body;
    assert.deepEqual({ Entrypoint: Entrypoint ?? entrypoint, Cmd }, runs);
  });
}

Deno.test("releaseCreate() lets what an image was made of run without its network", () => {
  const released = (request: Record<string, unknown>, image: Partial<ImageConfig>) => {
    const body = created(request);
    return releaseCreate(body, { ...IMAGE, ...image }) ? body : undefined;
  };
  assert.equal(released({}, { entrypoint: ["e"] }), undefined);
  assert.equal(released({ Entrypoint: ["x"] }, { entrypoint: ["/w/w"] }), undefined);
  assert.deepEqual(released({}, { entrypoint: ["/w/w", "e"], cmd: ["c"] }), { Entrypoint: ["e"], Cmd: ["c"] });
  assert.deepEqual(released({ Cmd: ["a"] }, { entrypoint: ["/w/w"] }), { Cmd: ["a"], Entrypoint: [] });
});

Deno.test("rewriteCreate() mounts the helper once and leaves the rest", () => {
  const text = '{"Image":"i","HostConfig":{"Binds":["/a:/b","/x:/w:rw"],"MemorySwap":-1,"ShmSize":9007199254740993},' +
    '"Big":18446744073709551615}';
  const body = readCreate(text)!;
  rewriteCreate(body, options({ dns: undefined }));
  assert.equal(
    printJson(body),
    '{"Image":"i","HostConfig":{"Binds":["/a:/b","/lib/w:/w:ro"],"MemorySwap":-1,"ShmSize":9007199254740993},' +
      '"Big":18446744073709551615,"Entrypoint":["/w/w"],"Cmd":["sh"]}',
  );
  rewriteCreate(body, options({ dns: undefined }));
  assert.deepEqual((body["HostConfig"] as JsonObject)["Binds"], ["/a:/b", "/lib/w:/w:ro"]);
});

Deno.test("rewriteCreate() marks a container that nothing can hold", () => {
  const body = created({ Labels: { a: "b" } });
  rewriteCreate(body, options({ helper: undefined, dns: undefined }));
  assert.deepEqual(body, { Labels: { a: "b", "works.weave.attach": "1" }, HostConfig: {} });
});

interface Naming {
  readonly what: string;
  readonly name?: string;
  readonly request?: Record<string, unknown>;
  readonly hostname?: HostnameRule;
  readonly gets: Record<string, unknown>;
}

const LONG = "x".repeat(53);
const DNS_GIVEN = { Dns: ["172.17.0.1"] };

const NAMINGS: readonly Naming[] = [
  {
    what: "one with a name",
    name: "foo",
    gets: { Hostname: "foo", Domainname: "weave.local", ...DNS_GIVEN, DnsSearch: ["weave.local"] },
  },
  { what: "one without a name", gets: { ...DNS_GIVEN, DnsSearch: ["weave.local"] } },
  {
    what: "one with a hostname and no name",
    request: { Hostname: "h" },
    gets: { Hostname: "h", ...DNS_GIVEN, DnsSearch: ["weave.local"] },
  },
  {
    what: "one with both",
    name: "foo",
    request: { Hostname: "x.sub.weave.local" },
    gets: { Hostname: "x.sub.weave.local", ...DNS_GIVEN, DnsSearch: ["sub.weave.local"] },
  },
  {
    what: "one with servers and domains of its own",
    name: "foo",
    request: { HostConfig: { Dns: ["8.8.8.8"], DnsSearch: ["example.com"] } },
    gets: { Hostname: "foo", Domainname: "weave.local", Dns: ["8.8.8.8", "172.17.0.1"], DnsSearch: ["example.com"] },
  },
  {
    what: "a name that just fits",
    name: LONG.slice(1),
    gets: { Hostname: LONG.slice(1), Domainname: "weave.local", ...DNS_GIVEN, DnsSearch: ["weave.local"] },
  },
  { what: "a name that does not fit", name: LONG, gets: { ...DNS_GIVEN, DnsSearch: ["."] } },
  {
    what: "a label",
    name: "foo",
    request: { Labels: { "my.label": "bar" } },
    hostname: new HostnameRule({ label: "my.label", match: "^b(.*)", replacement: "c$1" }),
    gets: { Hostname: "car", Domainname: "weave.local", ...DNS_GIVEN, DnsSearch: ["weave.local"] },
  },
  {
    what: "a label that is not there",
    name: "foo",
    hostname: new HostnameRule({ label: "my.label", match: "(.*)", replacement: "$1" }),
    gets: { Hostname: "foo", Domainname: "weave.local", ...DNS_GIVEN, DnsSearch: ["weave.local"] },
  },
];

for (const { what, name = "", request = {}, hostname = AS_NAMED, gets } of NAMINGS) {
  Deno.test(`rewriteCreate() names ${what}`, () => {
    const body = created(request);
    const result = rewriteCreate(body, options({ name, hostname }));
    const { Dns, DnsSearch } = body["HostConfig"] as JsonObject;
    const { Hostname, Domainname } = body;
    const got = { Hostname, Domainname, Dns, DnsSearch };
    assert.deepEqual(Object.fromEntries(Object.entries(got).filter(([, value]) => value !== undefined)), gets);
    assert.equal(typeof result === "object" && result.warning !== undefined, name === LONG);
  });
}

const WISHES: readonly (readonly [what: string, request: Record<string, unknown>, image: string[], wish: unknown])[] = [
  ["nothing", {}, [], []],
  ["no host config", { HostConfig: null }, [], []],
  ["Docker's default network", { HostConfig: { NetworkMode: "default" } }, [], []],
  ["Docker's bridge", { HostConfig: { NetworkMode: "bridge" } }, [], []],
  ["no network", { HostConfig: { NetworkMode: "none" } }, [], []],
  ["the host's network", { HostConfig: { NetworkMode: "host" } }, [], "no"],
  ["another container's network", { HostConfig: { NetworkMode: "container:x" } }, [], "no"],
  ["a network by name", { HostConfig: { NetworkMode: "weave" } }, [], "no"],
  ["none", { Env: ["WEAVE_CIDR=none"] }, [], "no"],
  ["an empty variable", { Env: ["A=b", "WEAVE_CIDR="] }, [], []],
  ["addresses", { Env: ["WEAVE_CIDR=10.0.0.1/24  net:default"] }, [], ["10.0.0.1/24", "net:default"]],
  ["it twice", { Env: ["WEAVE_CIDR=none", "WEAVE_CIDR=10.0.0.1/24"] }, [], ["10.0.0.1/24"]],
  ["what the image says", {}, ["WEAVE_CIDR=none"], "no"],
  ["other than the image", { Env: ["WEAVE_CIDR="] }, ["WEAVE_CIDR=none"], []],
  ["that the image's word does not count", { Env: ["WEAVE_CIDR"] }, ["WEAVE_CIDR=none"], []],
];

for (const [what, request, env, wish] of WISHES) {
  Deno.test(`wishOf() understands a container that says ${what}`, () => {
    const words = networkWords(created(request), { ...IMAGE, env });
    const wanted = wishOf(words, { noDefaultIpalloc: false });
    assert.deepEqual(wanted.attach ? wanted.addresses : "no", wish);
    const strict = wishOf(words, { noDefaultIpalloc: true });
    const said = words.env.some((line) => line.startsWith("WEAVE_CIDR=")) &&
      what !== "that the image's word does not count";
    assert.equal(strict.attach, wanted.attach && said);
  });
}

Deno.test("readCreate() takes an object alone, rewriteCreate() what Go takes", () => {
  for (const text of ["", "null", "[]", "1", "{"]) assert.equal(readCreate(text), undefined);
  const body = readCreate('{"hostconfig":{"binds":null},"cmd":["a"]}')!;
  rewriteCreate(body, options({ dns: undefined }));
  assert.equal(printJson(body), '{"hostconfig":{"binds":["/lib/w:/w:ro"]},"cmd":["a"],"Entrypoint":["/w/w"]}');
});

Deno.test("readImage() reads what engines say", () => {
  assert.deepEqual(readImage({ Config: { Entrypoint: null, Cmd: ["sh"], Env: ["A=b"] } }), {
    entrypoint: [],
    cmd: ["sh"],
    env: ["A=b"],
  });
  for (const answer of [{}, undefined, { Config: null }]) {
    assert.deepEqual(readImage(answer), { entrypoint: [], cmd: [], env: [] });
  }
});

const HELPER = { waits: "/lib/w", doesNotWait: "/lib/w-noop" };

const STARTS: readonly (readonly [what: string, sent: string, becomes: string | undefined])[] = [
  ["nothing", "", undefined],
  ["null", "null", undefined],
  ["an empty object", "{}", '{"Binds":["/lib/w:/w:ro"],"Dns":["172.17.0.1"],"DnsSearch":["weave.local"]}'],
  [
    "settings at the top",
    '{"Binds":["/a:/b"],"Memory":9007199254740993}',
    '{"Binds":["/a:/b","/lib/w:/w:ro"],"Memory":9007199254740993,"Dns":["172.17.0.1"],"DnsSearch":["weave.local"]}',
  ],
  [
    "settings under their name, which count",
    '{"Binds":["/a:/b"],"HostConfig":{"Dns":["8.8.8.8"]}}',
    '{"Binds":["/a:/b"],"HostConfig":{"Dns":["8.8.8.8","172.17.0.1"],"Binds":["/lib/w:/w:ro"],"DnsSearch":["weave.local"]}}',
  ],
  ["the host's network", '{"NetworkMode":"host"}', '{"NetworkMode":"host","Binds":["/lib/w-noop:/w:ro"]}'],
  [
    "another container's network",
    '{"HostConfig":{"NetworkMode":"container:x"}}',
    '{"HostConfig":{"NetworkMode":"container:x","Binds":["/lib/w-noop:/w:ro"]}}',
  ],
];

for (const [what, sent, becomes] of STARTS) {
  Deno.test(`rewriteStart() takes ${what}`, () => {
    const changed = rewriteStart(sent, { helper: HELPER, dns: DNS });
    assert.equal(changed === undefined ? undefined : printJson(changed), becomes);
  });
}

Deno.test("rewriteExec() lets a command wait, once", () => {
  const exec = (text: string) => {
    const changed = rewriteExec(text);
    return changed === undefined ? undefined : printJson(changed);
  };
  assert.equal(exec('{"Cmd":["ls","-l"],"Tty":true}'), '{"Cmd":["/w/w","ls","-l"],"Tty":true}');
  for (const text of ['{"Cmd":["/w/w","ls"]}', '{"Cmd":[]}', "{}", "", "[]"]) assert.equal(exec(text), undefined);
});

Deno.test("readInspected() reads what engines say", () => {
  const id = "ab".repeat(32);
  const answer = {
    Id: id,
    State: { Running: true, Pid: 42 },
    Config: { Entrypoint: ["/w/w", "sh"], Env: ["A=b"] },
    HostConfig: { NetworkMode: "default", ExtraHosts: ["a:1.2.3.4"] },
    Mounts: [{ Destination: "/data" }, { Destination: "/w" }],
  };
  const read = {
    id,
    pid: 42,
    running: true,
    networkMode: "default",
    env: ["A=b"],
    ours: true,
    switches: undefined,
    hasHelper: true,
    extraHosts: ["a:1.2.3.4"],
  };
  assert.deepEqual(readInspected(answer), read);
  assert.equal(readInspected({ ...answer, Mounts: undefined, Volumes: { "/w": "/x" } })?.hasHelper, true);
  assert.equal(readInspected({ ...answer, Config: { Entrypoint: ["sh", "/w/w"] } })?.ours, false);
  assert.equal(readInspected({ ...answer, Config: { Labels: { "works.weave.attach": "1" } } })?.ours, true);
  const labels = (text: string) => ({ ...answer, Config: { Labels: { "works.weave.run": text } } });
  assert.deepEqual(readInspected(labels(""))?.switches, []);
  assert.deepEqual(readInspected(labels("without-dns no-rewrite-hosts"))?.switches, [
    "without-dns",
    "no-rewrite-hosts",
  ]);
  for (const none of [undefined, null, [], {}, { Id: "ab" }]) assert.equal(readInspected(none), undefined);
});

function created(request: Record<string, unknown>): JsonObject {
  return readCreate(JSON.stringify(request))!;
}

function options(o: Partial<CreateOptions>): CreateOptions {
  return { name: "", image: IMAGE, helper: "/lib/w", dns: DNS, hostname: AS_NAMED, ...o };
}
