import assert from "node:assert/strict";
import fc from "fast-check";
import { get, getText, isObject, type JsonObject, parseJson, printJson, set } from "./json.ts";

Deno.test("parseJson() and printJson() leave numbers as they were written", () => {
  const text = '{"a":-1,"b":18446744073709551615,"c":1e400,"d":0.10,"e":[-0,1E5],"f":9007199254740993,"g":{"h":1.0}}';
  assert.equal(printJson(parseJson(text)!), text);
});

Deno.test("parseJson() and printJson() leave texts and keys as they are", () => {
  const text = '{"__proto__":"a","\\ud800":"é\\u2028\\"","toString":null,"rawJSON":true,"":[]}';
  assert.deepEqual(JSON.parse(printJson(parseJson(text)!)), JSON.parse(text));
});

Deno.test("parseJson() gives back what JSON.parse() reads, whatever it is", () => {
  fc.assert(fc.property(fc.jsonValue(), (value) => {
    const text = JSON.stringify(value);
    assert.equal(printJson(parseJson(text)!), JSON.stringify(JSON.parse(text)));
  }));
});

Deno.test("parseJson() knows what is no JSON", () => {
  for (const text of ["", "{", "{a:1}", "undefined", "{} {}", "[".repeat(1e6)]) {
    assert.equal(parseJson(text), undefined);
  }
});

Deno.test("get() and set() find keys as Go does: in any case, the last one", () => {
  const object = parseJson('{"image":"a","Image":"b","IMAGE":"c","other":1}') as JsonObject;
  assert.equal(getText(object, "Image"), "c");
  set(object, "Image", "d");
  assert.equal(printJson(object), '{"IMAGE":"d","other":1}');
  set(object, "New", []);
  assert.equal(get(object, "new") instanceof Array, true);
  assert.equal(get(object, "absent"), undefined);
});

Deno.test("isObject() takes no number for one", () => {
  assert.equal(isObject(parseJson("1")), false);
  assert.equal(isObject(parseJson("[]")), false);
  assert.equal(isObject(parseJson("null")), false);
  assert.equal(isObject(parseJson("{}")), true);
});
