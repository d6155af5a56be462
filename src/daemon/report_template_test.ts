import assert from "node:assert/strict";
import fc from "fast-check";
import { writeJson } from "../lib/json.ts";
import { renderTemplate } from "./report_template.ts";

const DATA = {
  Name: "host1",
  Ready: true,
  Off: false,
  Empty: "",
  UID: 13490210014865600209n,
  Port: 6783,
  Ratio: 0.5,
  None: [],
  Nothing: null,
  Targets: ["a", "b"],
  Peers: [{ Name: "p1", UID: 2n, Connections: [{ Name: "c1" }, { Name: "c2" }] }, {
    Name: "p2",
    UID: 3n,
    Connections: [],
  }],
  Attrs: { name: "sleeve", mtu: 1438 },
  Router: { Name: "ce:31", Deep: { Er: "down" } },
  Odd: 'a"b\n',
};

const RULES = { json: (value: unknown) => writeJson(value), maps: new Set(["Attrs"]), optional: new Set(["DNS"]) };

/** What Go's text/template makes of the same. */
const RENDERED: readonly (readonly [template: string, text: string])[] = [
  ["", ""],
  ["plain } text {", "plain } text {"],
  ["{{.Name}}", "host1"],
  ["{{ .Router.Deep.Er }}\n", "down\n"],
  ["{{.Ready}} {{.Off}} {{.Port}} {{.UID}} {{.Ratio}}", "true false 6783 13490210014865600209 0.5"],
  ["{{.Targets}} {{.None}} {{.Router}} {{.Attrs}}", "[a b] [] {ce:31 {down}} map[mtu:1438 name:sleeve]"],
  ["{{.Nothing}} {{.DNS}} {{.Attrs.nope}}", "<nil> <nil> <no value>"],
  ["{{len .Targets}} {{len .None}} {{len .Name}} {{len .Attrs}} {{len `ü`}}", "2 0 5 2 2"],
  [
    "{{json .Router}} {{json .UID}} {{json .Odd}} {{json .Targets}}",
    `{"Name":"ce:31","Deep":{"Er":"down"}} ${DATA.UID} "a\\"b\\n" ["a","b"]`,
  ],
  // Control.
  ["{{range .Targets}}{{.}},{{end}}", "a,b,"],
  ["{{range .Targets}}{{.}}\n{{end}}", "a\nb\n"],
  ['{{range .Targets}}{{.}}{{"\\n"}}{{end}}', "a\nb\n"],
  ["{{range .None}}x{{else}}none{{end}}", "none"],
  ["{{range $e := .Targets}}{{$e}}{{end}}", "ab"],
  ["{{range $i, $e := .Targets}}{{$i}}={{$e}} {{end}}", "0=a 1=b "],
  ["{{range $k, $v := .Attrs}}{{$k}}={{$v}} {{end}}", "mtu=1438 name=sleeve "],
  ["{{range .Peers}}{{.Name}}:{{range .Connections}}{{.Name}}{{else}}-{{end}} {{end}}", "p1:c1c2 p2:- "],
  ["{{range .Peers}}{{$.Name}}/{{.Name}} {{end}}", "host1/p1 host1/p2 "],
  ["{{range $p := .Peers}}{{range $p.Connections}}{{$p.Name}}{{.Name}} {{end}}{{end}}", "p1c1 p1c2 "],
  ["{{range .Targets}}{{if eq . `b`}}{{break}}{{end}}{{.}}{{end}}", "a"],
  ["{{range .Targets}}{{if eq . `a`}}{{continue}}{{end}}{{.}}{{end}}", "b"],
  ["{{range $e := .None}}{{else}}{{$e}}{{end}}", "[]"],
  ["{{if .Ready}}yes{{end}}{{if .Off}}no{{end}}", "yes"],
  ["{{if .None}}1{{else if .Empty}}2{{else if .Ready}}3{{else}}4{{end}}", "3"],
  ["{{if .Off}}1{{else if .None}}2{{else}}3{{end}}", "3"],
  ["{{if .Router}}struct{{end}}{{if .Attrs}}map{{end}}{{if .Nothing}}nil{{end}}{{if 0}}zero{{end}}", "structmap"],
  ["{{with .Router}}{{.Name}}{{else}}none{{end}} {{with .DNS}}{{.}}{{else}}off{{end}}", "ce:31 off"],
  ["{{with $x := .Router.Deep}}{{$x.Er}}{{.Er}}{{end}}", "downdown"],
  ["{{with .Off}}1{{else with .Name}}{{.}}{{end}}", "host1"],
  // Variables.
  ["{{$x := 1}}{{if true}}{{$x = 2}}{{end}}{{$x}}", "2"],
  ["{{$x := 1}}{{if true}}{{$x := 2}}{{$x}}{{end}}{{$x}}", "21"],
  ["{{$n := 0}}{{range $i, $e := .Targets}}{{$n = $i}}{{end}}{{$n}}", "1"],
  ["{{$.Router.Name}}", "ce:31"],
  // Functions.
  [
    "{{index .Targets 1}} {{index .Attrs `mtu`}} {{(index .Peers 0).Name}} {{index .Peers 1 | json}}",
    'b 1438 p1 {"Name":"p2","UID":3,"Connections":[]}',
  ],
  ["{{(index .Peers 0).Connections | len}}", "2"],
  ["{{with index .Peers 0}}{{.UID}}{{end}}", "2"],
  ["{{.Name | printf `%s-%s` `x`}}", "x-host1"],
  ["{{printf `%s %d %v %q %t %%` .Name .Port .Targets .Odd .Ready}}", 'host1 6783 [a b] "a\\"b\\n" true %'],
  ["{{printf `%5d|%-5d|%05d|%+d|%x|%X` 42 42 -42 42 255 255}}", "   42|42   |-0042|+42|ff|FF"],
  ["{{printf `%8s|%-8s|%.2s` .Name .Name .Name}}", "   host1|host1   |ho"],
  ["{{printf `%.2f|%g` .Ratio .Ratio}}", "0.50|0.5"],
  ["{{printf `%d %s` .Name}}", "%!d(string=host1) %!s(MISSING)"],
  ["{{printf `x` 1 `y`}}", "x%!(EXTRA int=1, string=y)"],
  ["{{printf `%z` 1}}{{printf `%`}}", "%!z(int=1)%!(NOVERB)"],
  ["{{print 1 2 `a` `b` 3}}|{{println `a` 1}}", "1 2ab3|a 1\n"],
  [
    "{{eq .Port 6783}} {{eq .UID 1}} {{eq .Name `x` `host1`}} {{ne 1 2}} {{eq .Nothing nil}}",
    "true false true true true",
  ],
  [
    "{{lt 1 2}} {{le 2 2}} {{gt `b` `a`}} {{ge 1 2}} {{lt .Port .UID}} {{eq 0.5 .Ratio}} {{lt 1 .Ratio}}",
    "true true true false true true false",
  ],
  [
    "{{and .Ready .Name}} {{and .Off .Name}} {{or .Empty .Name}} {{not .Off}} {{or .Off .Empty 0}}",
    "host1 false host1 true 0",
  ],
  ["{{or .Ready (index .None 5)}} {{and .Off (index .None 5)}}", "true false"],
  ["{{if and .Ready (gt (len .Targets) 1)}}many{{end}}", "many"],
  // Space, comments, literals.
  ["a  {{- .Port -}}  \n b", "a6783b"],
  ["a {{/* a comment }} in it */}}b {{- /* another */ -}} c", "a bc"],
  ["{{ -3 }}{{- 4}} {{-5}}", "-34 -5"],
  ['{{"a\\tb\\x41\\u00fc\\""}} {{`raw \\n`}} {{\'a\'}} {{0x10}} {{1e3}} {{true}}', 'a\tbAü" raw \\n 97 16 1000 true'],
  ["{{if\n.Ready\n}}x{{end}}", "x"],
];

for (const [template, text] of RENDERED) {
  Deno.test(`renderTemplate() of ${JSON.stringify(template)}`, () => {
    assert.deepEqual(renderTemplate(template, DATA, RULES), { ok: true, text });
  });
}

const UNPARSABLE: readonly (readonly [template: string, message: string])[] = [
  ["{{", "template: :1: unclosed action"],
  ["\n\n{{.Name", "template: :3: unclosed action"],
  ["{{.Name}", 'template: :1: unexpected "}" in action'],
  ["{{}}", "template: :1: missing value for command"],
  ["{{if}}{{end}}", "template: :1: missing value for if"],
  ["{{.Name | }}", "template: :1: missing value for command"],
  ["{{if .Ready}}", "template: :1: unexpected EOF"],
  ["{{if .Ready}}{{else}}", "template: :1: unexpected EOF"],
  ["{{end}}", "template: :1: unexpected {{end}}"],
  ["{{else}}", "template: :1: unexpected {{else}}"],
  ["{{if 1}}{{else}}{{else}}{{end}}", "template: :1: expected end; found {{else}}"],
  ["{{range .Targets}}{{else range .None}}{{end}}", 'template: :1: unexpected "range" in else'],
  ["{{foo .Name}}", 'template: :1: function "foo" not defined'],
  ["{{constructor}}", 'template: :1: function "constructor" not defined'],
  ["{{$x}}", 'template: :1: undefined variable "$x"'],
  ["{{$x = 1}}", 'template: :1: undefined variable "$x"'],
  ["{{if true}}{{$x := 1}}{{end}}{{$x}}", 'template: :1: undefined variable "$x"'],
  ["{{if true}}{{$x := 1}}{{else}}{{$x}}{{end}}", 'template: :1: undefined variable "$x"'],
  ["{{$a, $b := 1}}", "template: :1: too many declarations in command"],
  ['{{"abc}}', "template: :1: unterminated quoted string"],
  ['{{"\\z"}}', 'template: :1: invalid syntax: "\\z"'],
  ["{{'ab'}}", "template: :1: malformed character constant: 'ab'"],
  ["{{/* no end", "template: :1: unclosed comment"],
  ["{{/* x */ .Name}}", "template: :1: comment ends before closing delimiter"],
  ["{{(len .Name}}", "template: :1: unclosed left paren"],
  ["{{len .Name)}}", "template: :1: unexpected right paren in command"],
  ["{{len(.Name)}}", 'template: :1: unexpected "(" in operand'],
  ["{{1 | 2}}", "template: :1: non executable command in pipeline stage 2"],
  ["{{1.x}}", 'template: :1: bad number syntax: "1"'],
  ["{{.Name @}}", 'template: :1: unexpected "@" in action'],
  ["{{break}}", "template: :1: {{break}} outside {{range}}"],
  ['{{template "x"}}', "template: :1: {{template}} is not supported in reports"],
  ["{{end .Name}}", 'template: :1: unexpected ".Name" in end'],
  ["{{if 1}}".repeat(101), "template: :1: nested more than 100 deep"],
  [`{{${"(".repeat(101)}`, "template: :1: unclosed action"],
  [`{{${"(".repeat(101)}}}`, "template: :1: nested more than 100 deep"],
  ["x".repeat(65_537), "template: :1: longer than 65536 characters"],
];

for (const [template, message] of UNPARSABLE) {
  Deno.test(`renderTemplate() refuses ${JSON.stringify(template.slice(0, 60))}`, () => {
    assert.deepEqual(renderTemplate(template, DATA, RULES), { ok: false, stage: "parse", message });
  });
}

const FAILING: readonly (readonly [template: string, message: string])[] = [
  [
    "{{.Nope}}",
    `template: :1:2: executing "" at <.Nope>: can't evaluate field Nope in type object; it has ${
      Object.keys(DATA).join(", ")
    }`,
  ],
  ["a\n {{.Name.X}}", `template: :2:3: executing "" at <.Name.X>: can't evaluate field X in type string`],
  ["{{.Nothing.X}}", `template: :1:2: executing "" at <.Nothing.X>: nil pointer evaluating .Nothing.X`],
  ["{{.Attrs.a.b}}", `template: :1:2: executing "" at <.Attrs.a.b>: nil pointer evaluating .Attrs.a.b`],
  [
    "{{.__proto__}}{{.constructor}}",
    `template: :1:2: executing "" at <.__proto__>: can't evaluate field __proto__ in type object; it has ${
      Object.keys(DATA).join(", ")
    }`,
  ],
  ["{{index .Targets 2}}", `template: :1:2: executing "" at <index>: error calling index: index out of range: 2`],
  ["{{index .Targets -1}}", `template: :1:2: executing "" at <index>: error calling index: index out of range: -1`],
  [
    "{{index .Targets `a`}}",
    `template: :1:2: executing "" at <index>: error calling index: cannot index slice/array with type string`,
  ],
  [
    "{{index .Router `Name`}}",
    `template: :1:2: executing "" at <index>: error calling index: can't index item of type object`,
  ],
  ["{{len .Port}}", `template: :1:2: executing "" at <len>: error calling len: len of type int`],
  ["{{len .Nothing}}", `template: :1:2: executing "" at <len>: error calling len: len of nil pointer`],
  ["{{len}}", `template: :1:2: executing "" at <len>: wrong number of args for len: want 1 got 0`],
  ["{{eq 1}}", `template: :1:2: executing "" at <eq>: wrong number of args for eq: want at least 2 got 1`],
  ["{{eq 1 `1`}}", `template: :1:2: executing "" at <eq>: error calling eq: incompatible types for comparison`],
  ["{{eq .Targets .Targets}}", `template: :1:2: executing "" at <eq>: error calling eq: non-comparable type`],
  ["{{lt true false}}", `template: :1:2: executing "" at <lt>: error calling lt: invalid type for comparison`],
  [
    "{{printf 1}}",
    `template: :1:2: executing "" at <printf>: error calling printf: wrong type for value; expected string; got int`,
  ],
  ["{{range .Port}}{{end}}", `template: :1:8: executing "" at <.Port>: range can't iterate over 6783`],
  ["{{.Name 1}}", `template: :1:2: executing "" at <.Name>: can't give argument to non-function .Name`],
  ["{{or 1 ($x := 2)}}{{$x}}", `template: :1:20: executing "" at <$x>: undefined variable: $x`],
  [
    "{{.Router.Deep.Er.Further.Down}}",
    `template: :1:2: executing "" at <.Router.Deep.Er.Furt...>: can't evaluate field Further in type string`,
  ],
];

for (const [template, message] of FAILING) {
  Deno.test(`renderTemplate() cannot execute ${JSON.stringify(template)}`, () => {
    assert.deepEqual(renderTemplate(template, DATA, RULES), { ok: false, stage: "execute", message });
  });
}

/** Templates that would take for ever, or all memory. */
const ENDLESS = [
  "{{range .L}}{{range $.L}}{{range $.L}}{{end}}{{end}}{{end}}",
  "{{range .L}}{{range $.L}}x{{end}}{{end}}".repeat(1000),
  "{{range .L}}{{json $}}{{end}}",
  "{{$s := `xxxxxxxxxxxxxxxx`}}{{range .L}}{{$s = print $s $s}}{{end}}",
  "{{$s := json .}}{{range .L}}{{range $.L}}{{$n := len $s}}{{end}}{{end}}",
  "{{$s := json .}}{{range .L}}{{range $.L}}{{if eq $s (print $s)}}{{end}}{{end}}{{end}}",
  "{{range .L}}{{range $.L}}{{printf `%1000d%1000d%1000d` 1 2 3}}{{end}}{{end}}",
  "{{range .L}}{{range $.L}}{{break}}{{end}}{{range $.L}}{{break}}{{end}}{{end}}".repeat(800),
];

for (const template of ENDLESS) {
  Deno.test(`renderTemplate() ends soon for ${JSON.stringify(template.slice(0, 70))}`, () => {
    const data = { L: Array.from({ length: 2000 }, (_, i) => `item ${i}`) };
    const start = performance.now();
    const result = renderTemplate(template, data, RULES);
    const took = performance.now() - start;
    assert.ok(took < 3_000, `${took} ms`);
    assert.ok(!result.ok && result.stage === "execute");
    assert.match(result.message, /more than \d+ (steps|characters)$/);
  });
}

Deno.test("printf() refuses widths that make much of little", () => {
  const result = renderTemplate("{{printf `%99999999d` 1}}", DATA, RULES);
  assert.deepEqual(result, { ok: true, text: "%!(BADWIDTH)%!(EXTRA int=1)" });
});

Deno.test("renderTemplate() throws for no template", () => {
  const pieces = fc.constantFrom(
    ..."{{ | }} | {{- | -}} |.|.Name|.Targets|.Attrs|$|$x| := | = |, |(|)|\"|`|'| \\|1|-1|1.5|if |else |end |range |with |index |len |"
      .split("|"),
    ..."json |printf |eq |and |or |not |break |{{end}}|{{else}}|{{range .Peers}}|{{if .Ready}}|{{.}}|/*|*/|%d|x|\n|nil |true "
      .split("|"),
    "|",
  );
  const templates = fc.oneof(fc.array(pieces, { maxLength: 30 }).map((list) => list.join("")), fc.string());
  fc.assert(
    fc.property(templates, (template) => {
      const result = renderTemplate(template, DATA, RULES);
      assert.equal(typeof (result.ok ? result.text : result.message), "string");
    }),
    { numRuns: 5_000 },
  );
});
