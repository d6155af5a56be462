import assert from "node:assert/strict";
import { HostnameRule } from "./hostname.ts";

const CASES: readonly { match: string; replacement: string; name: string; hostname: string }[] = [
  { match: "(.*)", replacement: "$1", name: "web", hostname: "web" },
  { match: "(.*)", replacement: "x-$1", name: "web", hostname: "x-web" },
  { match: "^aws-[0-9]+-(.*)$", replacement: "my-app-$1", name: "aws-12798186823-foo", hostname: "my-app-foo" },
  { match: "^aws-[0-9]+-(.*)$", replacement: "my-app-$1", name: "another", hostname: "another" },
  { match: "(?P<a>[a-z]+)_(?P<b>\\w+)", replacement: "${b}-$a", name: "one_two", hostname: "two-one" },
  { match: "(?i)^WEB-", replacement: "", name: "web-1", hostname: "1" },
  { match: "o", replacement: "0", name: "foo", hostname: "f00" },
  { match: "(o)", replacement: "$1x", name: "foo", hostname: "f" }, // the group `1x`, which is not there
  { match: "o+", replacement: "$$", name: "foo", hostname: "f$" },
  { match: "", replacement: "-", name: "ab", hostname: "-a-b-" },
  { match: "(.*)", replacement: "$1", name: "", hostname: "" },
  { match: "\\Aa\\z", replacement: "b", name: "a", hostname: "b" },
];

for (const { match, replacement, name, hostname } of CASES) {
  Deno.test(`HostnameRule makes "${hostname}" of "${name}" by ${match} and ${replacement}`, () => {
    assert.equal(new HostnameRule({ label: undefined, match, replacement }).apply(name), hostname);
  });
}

Deno.test("HostnameRule refuses what is no expression", () => {
  assert.throws(() => new HostnameRule({ label: undefined, match: "(", replacement: "" }), SyntaxError);
});
