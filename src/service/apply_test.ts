import assert from "node:assert/strict";
import fc from "fast-check";
import {
  type Change,
  checkDesired,
  configOf,
  DesiredError,
  differenceOf,
  type GatewayState,
  renderChanges,
} from "./apply.ts";
import type { SpecContext } from "./spec.ts";

const CONTEXT: SpecContext = { domain: "weave.local.", networks: ["site", "old"] };
const EMPTY: GatewayState = { networks: [], imports: [], exports: [] };

const FILE = {
  networks: { site: "eth1", far: { interfaces: ["eth2", "eth3"], isolated: true } },
  services: [
    {
      name: "db",
      import: {
        to: ["192.168.1.5:5432", { target: "192.168.1.6:5432", priority: 1, weight: 10 }],
        network: "site",
        check: "tcp,interval=2s",
        subnets: "10.32.0.0/24",
      },
      export: [{ listen: 5432 }, { listen: "192.168.7.9:5432", network: "far", allow: ["10.0.0.0/8"], dns: true }],
    },
    {
      name: "web",
      import: { to: "10.1.1.1:8080", port: 80, priority: 2, weight: 3, "allow-local": true, state: "draining" },
    },
    { name: "media", import: { to: ["10.1.1.1:20000-20099/udp"], port: "10000-10099/udp" } },
    { name: "a1.weave.local", export: { listen: 2211, port: 4422, force: true } },
  ],
};

Deno.test("configOf() writes a file that applies as no change", () => {
  const state = made(EMPTY, FILE);
  const config = JSON.parse(JSON.stringify(configOf(state)));
  assert.deepEqual(differenceOf(state, checkDesired(config, CONTEXT)), []);
  assert.deepEqual(configOf(made(EMPTY, config)), configOf(state));
  assert.deepEqual(config, {
    networks: { far: { interfaces: ["eth2", "eth3"], isolated: true }, site: "eth1" },
    services: [
      { name: "a1.weave.local", export: [{ listen: "2211", port: 4422, force: true }] },
      {
        name: "db",
        import: {
          to: ["192.168.1.5:5432", "192.168.1.6:5432,priority=1,weight=10"],
          network: "site",
          check: "tcp,interval=2s",
          subnets: ["10.32.0.0/24"],
        },
        export: [
          { listen: "192.168.7.9:5432", network: "far", allow: ["10.0.0.0/8"], dns: true },
          { listen: "5432" },
        ],
      },
      { name: "media", import: { to: ["10.1.1.1:20000-20099/udp"], port: ["10000-10099/udp"] } },
      {
        name: "web",
        import: { to: ["10.1.1.1:8080"], port: ["80"], priority: 2, weight: 3, "allow-local": true, state: "draining" },
      },
    ],
  });
});

Deno.test("differenceOf() finds nothing the second time", () => {
  const desired = checkDesired(FILE, CONTEXT);
  const first = differenceOf(EMPTY, desired);
  assert.equal(first.length, 2 + 3 + 3);
  assert.deepEqual(differenceOf(made(EMPTY, FILE), desired), []);
  assert.equal(renderChanges([]), "Nothing to change\n");
});

Deno.test("what a file does not name is removed, and parts that it does not have are left alone", () => {
  const state = made(EMPTY, FILE);
  assert.deepEqual(differenceOf(state, checkDesired({}, CONTEXT)), []);
  const all = differenceOf(state, checkDesired({ services: [], networks: {} }, CONTEXT));
  assert.deepEqual(all.map(({ type }) => type), [
    "removeExport",
    "removeExport",
    "removeExport",
    "removeImport",
    "removeImport",
    "removeImport",
    "removeNetwork",
    "removeNetwork",
  ]);
  const some = differenceOf(
    state,
    checkDesired({ services: [FILE.services[1]] }, { ...CONTEXT, networks: ["site", "far"] }),
  );
  assert.deepEqual([...new Set(some.map(({ type }) => type))], ["removeExport", "removeImport"]);
  assert.equal(some.length, 5);
});

Deno.test("renderChanges() says what is different", () => {
  const state = made(EMPTY, {
    networks: { site: "eth1", old: "eth2" },
    services: [
      { name: "db", import: { to: "192.168.1.5:5432", network: "old" }, export: { listen: 15432 } },
      { name: "gone", import: { to: "192.168.1.5:1", network: "site" } },
    ],
  });
  const changes = differenceOf(
    state,
    checkDesired({
      networks: { site: { interfaces: "eth1", isolated: true } },
      services: [
        {
          name: "db",
          import: { to: ["192.168.1.7:5432"], network: "site", weight: 2 },
          export: [{ listen: 15432, allow: "10.0.0.0/8" }],
        },
        { name: "new", import: { to: "db.example.com:80", check: "http:/ok" } },
      ],
    }, CONTEXT),
  );
  assert.equal(
    renderChanges(changes),
    `- import gone
~ network site
    isolated: false -> true
~ import db
    to: 192.168.1.5:5432 -> 192.168.1.7:5432
    network: old -> site
    weight: (default) -> 2
+ import new
    to: db.example.com:80
    check: http:/ok
~ export db at 15432 on network host
    allow: (default) -> 10.0.0.0/8
- network old
`,
  );
});

Deno.test("a network goes before another takes its interface, unless somebody still uses it", () => {
  const before = made(EMPTY, { networks: { old: "eth1" }, services: [] });
  const types = (state: GatewayState, file: unknown) =>
    differenceOf(state, checkDesired(file, CONTEXT)).map(({ type }) => type);
  assert.deepEqual(types(before, { networks: { site: "eth1" } }), ["removeNetwork", "setNetwork"]);
});

for (
  const [file, path, message] of [
    [null, [], "Cannot use the file: networks, services are expected in it"],
    [[], [], /^Cannot use the file/],
    [{ service: [] }, ["service"], 'Cannot use "service" of the file: networks, services are known'],
    [{ services: {} }, ["services"], "Cannot use services: a list is expected"],
    [{ services: [{ import: {} }] }, ["services", 0], "Cannot use a service without a name"],
    [{ services: [{ name: "a" }] }, ["services", 0], 'Cannot use service "a": it has neither import nor export'],
    [
      { services: [{ name: "a", import: { to: "x:1", ports: 1 } }] },
      ["services", 0, "import", "ports"],
      /^Cannot use "ports" of an import/,
    ],
    [
      { services: [{ name: "a", import: { to: ["10.0.0.1:1", "b"] } }] },
      ["services", 0, "import", "to"],
      /^Cannot use "b" as target/,
    ],
    [
      { services: [{ name: "a", import: { to: [true] } }] },
      ["services", 0, "import", "to", 0],
      /a text or a number is expected$/,
    ],
    [{ services: [{ name: "a", import: {} }] }, ["services", 0, "import", "to"], /--to HOST:PORT is missing/],
    [
      { services: [{ name: "a", import: { to: "b.c:1", weight: 1.5 } }] },
      ["services", 0, "import", "weight"],
      /^Cannot use "1\.5" as weight/,
    ],
    [
      { services: [{ name: "a", import: { to: "b.c:1", state: "off" } }] },
      ["services", 0, "import", "state"],
      /^Cannot use "off" as state/,
    ],
    [{ services: [{ name: "a", import: { to: "b.c:1", "allow-local": "yes" } }] }, [
      "services",
      0,
      "import",
      "allow-local",
    ], /true or false is expected$/],
    [{ services: [{ name: "a_b", import: { to: "b.c:1" } }] }, ["services", 0, "name"], /as name of a service/],
    [
      { services: [{ name: "a", export: [{ listen: 1 }, { listen: "0" }] }] },
      ["services", 0, "export", 1, "listen"],
      /^Cannot listen at "0"/,
    ],
    [{ services: [{ name: "a", export: {} }] }, ["services", 0, "export"], 'Cannot export "a": listen is missing'],
    [
      { services: [{ name: "a", export: { listen: 80, port: 0 } }] },
      ["services", 0, "export", "port"],
      /as port of the service/,
    ],
    [{ services: [{ name: "b.org", export: { listen: 80 } }] }, ["services", 0, "name"], /^Cannot export "b\.org"/],
    [
      { services: [{ name: "a", export: { listen: 80 } }, { name: "b", export: { listen: "70-90" } }] },
      ["services", 1, "export"],
      'Cannot export "b" at 70-90 on network host: "a" is exported there',
    ],
    [
      { services: [{ name: "a", export: { listen: 80 } }, { name: "A", export: { listen: 81 } }] },
      ["services", 1, "name"],
      'Cannot use service "A" twice',
    ],
    [{ networks: { host: "eth1" } }, ["networks", "host"], /always there$/],
    [{ networks: { a: { isolated: true } } }, ["networks", "a"], /it has no interface$/],
    [
      { networks: { a: "eth1", b: ["eth0", "eth1"] } },
      ["networks", "b"],
      'Cannot use interface "eth1": network "a" has it too',
    ],
    [
      { networks: { a: "eth1" }, services: [{ name: "b", import: { to: "c.d:1", network: "site" } }] },
      ["services", 0, "import", "network"],
      /^Cannot find network "site": there are "host", "weave", "a"/,
    ],
  ] as const
) {
  Deno.test(`checkDesired() refuses ${JSON.stringify(file).slice(0, 100)}`, () => {
    assert.throws(() => checkDesired(file, CONTEXT), (error) => {
      assert.ok(error instanceof DesiredError, String(error));
      if (typeof message === "string") assert.equal(error.message, message);
      else assert.match(error.message, message);
      assert.deepEqual(error.path, path);
      return true;
    });
  });
}

Deno.test("whatever a file holds ends in a state or in one line, and no state is changed by its own file", () => {
  const leaf = fc.oneof(
    fc.string(),
    fc.integer(),
    fc.boolean(),
    fc.constant(null),
    fc.constantFrom("10.0.0.1:80", "80", "x"),
  );
  const keys = [
    "to",
    "network",
    "port",
    "check",
    "listen",
    "allow",
    "name",
    "import",
    "export",
    "interfaces",
    "target",
  ];
  const { tree } = fc.letrec((tie) => ({
    tree: fc.oneof(
      { depthSize: "small" },
      leaf,
      fc.array(tie("tree"), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys), tie("tree"), { maxKeys: 4 }),
    ),
  }));
  const file = fc.record({ networks: tree, services: fc.array(tree, { maxLength: 3 }) }, { requiredKeys: [] });
  fc.assert(
    fc.property(file, (value) => {
      try {
        const state = made(EMPTY, value);
        assert.deepEqual(differenceOf(state, checkDesired(JSON.parse(JSON.stringify(configOf(state))), CONTEXT)), []);
      } catch (error) {
        if (!(error instanceof DesiredError)) throw error;
        assert.ok(!/[\n\r]/.test(error.message));
      }
    }),
    { numRuns: 500 },
  );
});

/** The state after a file was applied. */
function made(state: GatewayState, file: unknown): GatewayState {
  const changes = differenceOf(state, checkDesired(file, CONTEXT));
  const after = { networks: [...state.networks], imports: [...state.imports], exports: [...state.exports] };
  const set = <T>(list: T[], before: T | undefined, item: T) => {
    if (before !== undefined) list.splice(list.indexOf(before), 1);
    list.push(item);
  };
  for (const change of changes) carryOut(change);
  return after;

  function carryOut(change: Change): void {
    switch (change.type) {
      case "setNetwork":
        return set(after.networks, change.before, change.after);
      case "setImport":
        return set(after.imports, change.before, change.after);
      case "setExport":
        return set(after.exports, change.before, change.after);
      default:
        throw new Error(`${change.type} of what is not there`);
    }
  }
}
