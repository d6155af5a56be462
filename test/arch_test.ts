/**
 * The map of the sources, as a test: which folder may import which, where a package is at home, and what only some folders may
 * do. Each rule says why; whoever needs an exception changes the map here, in the same commit.
 */

import assert from "node:assert/strict";
import { dirname, join, normalize, relative } from "node:path";

const PROJECT = dirname(import.meta.dirname!);

interface Room {
  /** Folders whose behaviour it may use, besides itself and `src/lib`. */
  readonly uses: readonly string[];
  /** Folders of which it may know the types alone. */
  readonly typesOf?: readonly string[];
  readonly why: string;
}

const EVERYTHING = ["ffi", "src/"];

const ROOMS: Readonly<Record<string, Room>> = {
  "ffi": { uses: [], why: "the machine's interface knows nothing of the product" },
  "src/lib": { uses: [], why: "small helpers stand at the bottom" },
  "src/wire": { uses: [], why: "formats have no state and no opinion" },
  "src/mesh": { uses: ["src/wire"], why: "a pure core, run by the hundred on a virtual clock" },
  "src/overlay": { uses: ["src/wire"], typesOf: ["src/mesh"], why: "a pure core" },
  "src/datapath": { uses: ["src/wire"], typesOf: ["src/overlay"], why: "decides on frames by table lookup" },
  "src/ipam": { uses: ["src/wire"], typesOf: ["src/mesh"], why: "a pure core" },
  "src/dns": { uses: ["src/wire"], typesOf: ["src/mesh"], why: "a pure core" },
  "src/service": { uses: ["src/wire"], typesOf: ["src/mesh", "src/ipam", "src/dns"], why: "a pure core" },
  "src/plugin": { uses: [], why: "a pure core: what Docker and container runtimes ask of us" },
  "src/proxy": { uses: [], why: "a pure core: what calls of Docker's API become" },
  "src/host": {
    uses: ["ffi", "src/wire"],
    typesOf: ["src/service"],
    why: "shells touch the machine and decide nothing",
  },
  "src/config": { uses: ["src/proxy"], why: "options are facts, for everybody to read" },
  "src/daemon": { uses: EVERYTHING, why: "the composition root knows every core and every shell" },
  "src/api": { uses: [], typesOf: ["src/daemon"], why: "serves what the daemon hands it" },
  "src/cli": { uses: ["src/api", "src/config", "src/daemon", "src/plugin"], why: "the command line drives the rest" },
  "src/console": { uses: [], typesOf: ["src/api"], why: "a client of the API like any other" },
};

/** Where an npm package is at home: it is replaced there alone on the day it must be. */
const PACKAGE_HOMES: Readonly<Record<string, string>> = {
  "dns-packet": "src/wire/dns.ts",
  "libsodium": "ffi/",
  "yaml": "src/lib/yaml.ts",
};

/** What only tests use. */
const TEST_PACKAGES = ["fast-check", "dockerode"];

/** Folders whose code gets time, randomness and input as arguments, so that a test or the simulator is its whole world. */
const PURE = [
  "src/wire/",
  "src/mesh/",
  "src/overlay/",
  "src/ipam/",
  "src/dns/",
  "src/service/",
  "src/plugin/",
  "src/proxy/",
];

const IMPURE =
  /\b(Date\.now|new Date\(\)|performance\.now|setTimeout|setInterval|Math\.random|Deno\.\w+|await|fetch)\b/;

Deno.test("imports run in the directions of the map", () => {
  const wrong: string[] = [];
  for (const file of programFiles()) {
    const room = roomOf(file.path);
    for (const found of file.imports) {
      if (!found.target.startsWith(".")) continue;
      const target = normalize(join(dirname(file.path), found.target));
      if (target === "deno.json" || target.startsWith("src/lib/") && room !== "src/lib") continue;
      if (!room) { // main.ts
        if (!target.startsWith("src/cli/")) wrong.push(`${file.path} imports ${target}: it only hands over to src/cli`);
        continue;
      }
      const { uses, typesOf = [], why } = ROOMS[room]!;
      const allowed = [`${room}/`, ...uses, ...(found.typeOnly ? typesOf : [])];
      if (!allowed.some((prefix) => target.startsWith(prefix))) wrong.push(`${file.path} imports ${target}: ${why}`);
    }
  }
  assert.deepEqual(wrong, []);
});

Deno.test("npm packages are imported at home only, others not at all", () => {
  const wrong: string[] = [];
  for (const file of [...programFiles(), ...readSources(["dist", "test"])]) {
    for (const { target } of file.imports) {
      if (target.startsWith(".") || target.startsWith("node:")) continue;
      if (TEST_PACKAGES.includes(target) && (isTest(file.path) || file.path.startsWith("test/"))) continue;
      const home = PACKAGE_HOMES[target];
      if (!home) wrong.push(`${file.path} imports ${target}, which has no home`);
      else if (!file.path.startsWith(home)) wrong.push(`${file.path} imports ${target}, at home in ${home}`);
    }
  }
  assert.deepEqual(wrong, []);
});

Deno.test("raw pointers and foreign functions stay in ffi", () => {
  const foreign = /\bDeno\.(dlopen|UnsafePointer|UnsafePointerView|UnsafeFnPointer|UnsafeCallback)\b/;
  const wrong = programFiles().filter((file) => !file.path.startsWith("ffi/") && foreign.test(file.code));
  assert.deepEqual(wrong.map((file) => file.path), []);
});

Deno.test("cores take time, randomness and input as arguments", () => {
  const cores = programFiles().filter((file) => PURE.some((folder) => file.path.startsWith(folder)));
  const wrong = cores.flatMap((file) => {
    const found = IMPURE.exec(file.code);
    return found ? [`${file.path}: ${found[0]}`] : [];
  });
  assert.deepEqual(wrong, []);
});

Deno.test("no file names a package registry's host", () => {
  const hosts =
    /npmjs\.(org|com)|pypi\.org|pythonhosted\.org|deb\.debian\.org|jsr\.io|esm\.sh|crates\.io|dl\.deno\.land/;
  const wrong = [...walk(PROJECT)].filter((path) => hosts.test(Deno.readTextFileSync(path)));
  assert.deepEqual(wrong.map((path) => relative(PROJECT, path)), []);
});

interface Import {
  readonly target: string;
  readonly typeOnly: boolean;
}

interface SourceFile {
  /** From the project's folder. */
  readonly path: string;
  /** The text without comments. */
  readonly code: string;
  readonly imports: readonly Import[];
}

/** What goes into the executable. */
function programFiles(): SourceFile[] {
  return readSources(["main.ts", "src", "ffi"]).filter((file) => !isTest(file.path));
}

function readSources(roots: readonly string[]): SourceFile[] {
  const paths = roots.flatMap((root) => [...walk(join(PROJECT, root))]).filter((path) => path.endsWith(".ts"));
  return paths.map((path) => {
    const code = withoutComments(Deno.readTextFileSync(path));
    return { path: relative(PROJECT, path), code, imports: importsOf(code) };
  });
}

function isTest(path: string): boolean {
  return /_(test|bench)\.ts$/.test(path);
}

function roomOf(path: string): string | undefined {
  return Object.keys(ROOMS).find((room) => path.startsWith(`${room}/`));
}

function importsOf(code: string): Import[] {
  const imports: Import[] = [];
  for (const [, type, names, target] of code.matchAll(/^(?:import|export)\s(type\s)?([^;"]*?)\sfrom\s"([^"]+)"/gm)) {
    // `import { type A, type B }` is as good as `import type { A, B }`.
    const each = /^\{(.*)\}$/s.exec(names!.trim())?.[1]?.split(",").map((name) => name.trim()).filter(Boolean);
    imports.push({
      target: target!,
      typeOnly: Boolean(type) || Boolean(each?.every((name) => name.startsWith("type "))),
    });
  }
  for (const [, target] of code.matchAll(/(?:^import\s|\bimport\(|\bnew URL\()\s*"([^"]+)"/gm)) {
    imports.push({ target: target!, typeOnly: false });
  }
  return imports;
}

function withoutComments(text: string): string {
  const strings = /"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`/.source;
  return text.replace(new RegExp(`(${strings})|//.*|/\\*[\\s\\S]*?\\*/`, "g"), (_, string?: string) => string ?? "");
}

/** Every file below a folder that belongs to the project: no hidden ones, no packages, no executables. */
function* walk(path: string): Generator<string> {
  if (!Deno.statSync(path).isDirectory) return yield path;
  for (const entry of Deno.readDirSync(path)) {
    const below = join(path, entry.name);
    if (entry.name.startsWith(".") && entry.name !== ".ci") continue;
    if (entry.name === "node_modules" || relative(PROJECT, below).startsWith("dist/weave")) continue;
    yield* walk(below);
  }
}
