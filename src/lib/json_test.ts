import assert from "node:assert/strict";
import fc from "fast-check";
import { writeJson } from "./json.ts";

Deno.test("writeJson() writes integers of 64 bits without loss", () => {
  assert.equal(
    writeJson({ UID: 13490210014865600209n, Version: 2n ** 64n - 1n }),
    '{"UID":13490210014865600209,"Version":18446744073709551615}',
  );
});

Deno.test("writeJson() writes what JSON.stringify() does, at every indentation", () => {
  fc.assert(fc.property(fc.jsonValue(), fc.constantFrom(0, 2, 4), (value, indent) => {
    assert.equal(writeJson(value, indent), JSON.stringify(value, undefined, indent));
  }));
});

Deno.test("writeJson() leaves out keys without a value", () => {
  assert.equal(writeJson({ a: undefined, b: [undefined] }), '{"b":[null]}');
});
