import assert from "node:assert/strict";
import { type Call, readCall } from "./calls.ts";

const OTHER: Call = { call: "other" };

const CASES: readonly (readonly [request: string, Call])[] = [
  ["POST /containers/create", { call: "create", name: "" }],
  ["POST /v1.41/containers/create?name=foo&platform=", { call: "create", name: "foo" }],
  ["POST /v1.41/containers/create?name=%2Ffoo", { call: "create", name: "foo" }],
  ["POST /v2/containers/create", { call: "create", name: "" }],
  ["POST /v1.24/containers/abc/start?detachKeys=x", { call: "start", container: "abc", withSettings: false }],
  ["POST /v1.23/containers/abc/start", { call: "start", container: "abc", withSettings: true }],
  ["POST /v2.0/containers/abc/start", { call: "start", container: "abc", withSettings: false }],
  ["POST /containers//abc/start", { call: "start", container: "abc", withSettings: false }],
  ["POST /v1.41/containers/a.b-c_d/restart?t=3", { call: "restart", container: "a.b-c_d" }],
  ["POST /containers/abc/exec", { call: "exec", container: "abc" }],
  ["GET /v1.41/containers/abc/json?size=1", { call: "inspect", container: "abc" }],
  ["GET /exec/abc/json", { call: "inspectExec", exec: "abc" }],
  ["GET /containers/json", OTHER],
  ["GET /containers/abc/start", OTHER],
  ["POST /containers/abc/json", OTHER],
  ["POST /containers/abc/exec/start", { call: "start", container: "abc/exec", withSettings: false }], // the engine has no such call
  ["POST /exec/abc/start", OTHER],
  ["POST /containers/%ff/start", OTHER],
  ["POST /containers/abc/attach?stream=1", OTHER],
  ["DELETE /containers/abc", OTHER],
  ["POST /images/create?fromImage=containers/create", OTHER],
  ["POST /build?t=/containers/x/start", OTHER],
  ["GET *", OTHER],
];

for (const [request, call] of CASES) {
  Deno.test(`readCall() knows ${request}`, () => {
    const [method, target] = request.split(" ") as [string, string];
    assert.deepEqual(readCall(method, target), call);
  });
}
