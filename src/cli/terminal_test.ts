import assert from "node:assert/strict";
import { harmless } from "./terminal.ts";

Deno.test("harmless() shows what would control a terminal, and leaves text and lines alone", () => {
  assert.equal(harmless('Cannot use "ä 日本"\n\tSee \\u'), 'Cannot use "ä 日本"\n\tSee \\u');
  assert.equal(harmless("\u001b[2J\r\u0000\u009b\u202egnp"), "\\u001b[2J\\u000d\\u0000\\u009b\\u202egnp");
});
