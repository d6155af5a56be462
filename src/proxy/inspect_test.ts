import assert from "node:assert/strict";
import { containerOfExec, rewriteInspect } from "./inspect.ts";

const SHOWN = { mac: "02:00:00:00:00:01", address: "10.32.0.1", prefixLength: 12 };

Deno.test("rewriteInspect() shows our network in place of Docker's", () => {
  const answer = '{"Id":"a","Size":9007199254740993,"NetworkSettings":{"Bridge":"","MacAddress":"x","IPAddress":"y",' +
    '"IPPrefixLen":16,"Networks":{}}}';
  assert.equal(
    rewriteInspect(answer, SHOWN),
    '{"Id":"a","Size":9007199254740993,"NetworkSettings":{"Bridge":"","MacAddress":"02:00:00:00:00:01",' +
      '"IPAddress":"10.32.0.1","IPPrefixLen":12,"Networks":{}}}',
  );
  const exec = '{"Container":{"ID":"abc","NetworkSettings":{}}}';
  assert.match(rewriteInspect(exec, SHOWN)!, /"IPAddress":"10.32.0.1"/);
  assert.equal(containerOfExec(exec), "abc");
  assert.equal(containerOfExec('{"ContainerID":"def"}'), "def");
});

Deno.test("rewriteInspect() leaves what it does not know", () => {
  for (const text of ["", "[]", "{}", '{"NetworkSettings":null}']) assert.equal(rewriteInspect(text, SHOWN), undefined);
  for (const text of ["", "[]", "{}", '{"ContainerID":1}']) assert.equal(containerOfExec(text), "");
});
