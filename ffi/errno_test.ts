import assert from "node:assert/strict";
import { attempt, check, errnoName, errnoText, SysError } from "./errno.ts";
import { libc } from "./libc.ts";

Deno.test("check() says which call failed, how, and on what", () => {
  const failing = () => check("close", () => libc.close(-1), { path: "/a b", link: 7 });
  assert.throws(failing, (error) => {
    assert.ok(error instanceof SysError);
    assert.equal(error.message, 'close: EBADF (Bad file descriptor), path "/a b", link 7');
    assert.deepEqual([error.call, error.errno, error.errnoName], ["close", 9, "EBADF"]);
    assert.deepEqual(error.context, { path: "/a b", link: 7 });
    return true;
  });
  assert.throws(() => check("socket", () => libc.socket(9999, 1, 0)), {
    message: "socket: EAFNOSUPPORT (Address family not supported by protocol)",
  });
});

Deno.test("attempt() returns what the call returned, or its errno made negative", () => {
  assert.equal(attempt(() => 5), 5);
  assert.equal(attempt(() => libc.close(-1)), -9);
});

Deno.test("errno is that of the call, whatever the collector does meanwhile", () => {
  let garbage: unknown[] = [];
  for (let i = 0; i < 200_000; i++) {
    garbage.push({ i, text: `${i}` });
    if (garbage.length > 5000) garbage = [];
    const [result, expected] = i % 2 === 0
      ? [attempt(() => libc.close(-1)), -9]
      : [attempt(() => libc.socket(9999, 1, 0)), -97];
    if (result !== expected) assert.equal(result, expected);
  }
});

Deno.test("errnoName() and errnoText() have an answer for every number", () => {
  assert.equal(errnoName(111), "ECONNREFUSED");
  assert.equal(errnoText(111), "Connection refused");
  assert.equal(errnoName(11), "EAGAIN");
  assert.deepEqual([errnoName(4000), errnoText(4000)], ["errno 4000", "Unknown error 4000"]);
});
