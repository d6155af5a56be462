import assert from "node:assert/strict";
import fc from "fast-check";
import { encodeResponse, type Progress, RequestReader } from "./http.ts";

const GET = "GET /status HTTP/1.1\r\nHost: localhost\r\n";

Deno.test("RequestReader reads a request in whatever pieces it comes", () => {
  const requests = [
    `${GET}\r\n`,
    "POST /connect?a=b HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n\r\npeer=10.1",
    "POST /connect HTTP/1.1\r\nHost: l\r\nTransfer-Encoding: chunked\r\n\r\n4;x=y\r\npeer\r\n005\r\n=10.1\r\n0\r\nTrailer: x\r\n\r\n",
    "\r\nGET / HTTP/1.0\nAccept:  a \nAccept:b\n\n",
  ];
  for (const text of requests) {
    const whole = read([text]);
    assert.equal(whole.is, "request", text);
    fc.assert(fc.property(fc.array(fc.nat(text.length), { maxLength: 8 }), (cuts) => {
      assert.deepEqual(read(cutAt(text, cuts)), whole);
    }));
  }
});

Deno.test("RequestReader has method, target, headers and body", () => {
  const request = requestOf(
    "POST /a%20b?x=1 HTTP/1.1\r\nHOST: localhost:1\r\nX-a: 1\r\nx-A:\t2 \r\ncontent-length: 2\r\n\r\nhi, more",
  );
  assert.equal(request.method, "POST");
  assert.equal(request.target, "/a%20b?x=1");
  assert.deepEqual([...request.headers], [["host", "localhost:1"], ["x-a", "1, 2"], ["content-length", "2"]]);
  assert.equal(new TextDecoder().decode(request.body), "hi");
});

Deno.test("RequestReader puts chunks together", () => {
  const head = `${GET.replace("GET", "POST")}Transfer-Encoding: Chunked\r\n\r\n`;
  const request = requestOf(`${head}a\r\n0123456789\r\n2;ext="q"\r\nab\r\n0\r\n\r\n`);
  assert.equal(new TextDecoder().decode(request.body), "0123456789ab");
});

const REFUSED: readonly (readonly [text: string, status: number])[] = [
  ["garbage\r\n\r\n", 400],
  ["GET /\r\n\r\n", 400],
  ["GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["G@T / HTTP/1.1\r\nHost: a\r\n\r\n", 400],
  ["GET http://localhost/ HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
  ["OPTIONS * HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
  ["GET /\x7f HTTP/1.1\r\nHost: localhost\r\n\r\n", 400],
  ["GET / HTTP/2.0\r\n\r\n", 505],
  ["PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505],
  ["GET / HTTP/1.1\r\n\r\n", 400],
  ["GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400],
  [`${GET}X\r\n\r\n`, 400],
  [`${GET}X : 1\r\n\r\n`, 400],
  [`${GET}X: a\r\n folded\r\n\r\n`, 400],
  [`${GET}X: a\0b\r\n\r\n`, 400],
  [`${GET}X: a\rb\r\n\r\n`, 400],
  [`${GET}${"X: 1\r\n".repeat(101)}\r\n`, 431],
  [`${GET}X: ${"a".repeat(40_000)}`, 431],
  [`GET /${"a".repeat(40_000)}`, 431],
  ["\r\n".repeat(10) + "x".repeat(32_769), 431],
  [`${GET}Content-Length: -1\r\n\r\n`, 400],
  [`${GET}Content-Length: 1, 1\r\n\r\n`, 400],
  [`${GET}Content-Length: 1\r\nContent-Length: 1\r\n\r\n`, 400],
  [`${GET}Content-Length: 65537\r\n\r\n`, 413],
  [`${GET}Content-Length: 999999999999999\r\n\r\n`, 413],
  [`${GET}Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n`, 400],
  [`${GET}Transfer-Encoding: gzip, chunked\r\n\r\n`, 501],
  [`${GET}Transfer-Encoding: chunked\r\n\r\nz\r\n`, 400],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n-1\r\n`, 400],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n2\r\nabc\r\n`, 400],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n10001\r\n`, 413],
  [
    `${GET}Transfer-Encoding: chunked\r\n\r\n${"8000\r\n" + "x".repeat(0x8000) + "\r\n"}`.repeat(1) + "8001\r\n" +
    "x".repeat(0x8001),
    413,
  ],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n1${";".repeat(300)}`, 400],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n${"1\r\nx\r\n".repeat(30_000)}`, 413],
  [`${GET}Transfer-Encoding: chunked\r\n\r\n0\r\n${"a: b\r\n".repeat(30_000)}`, 413],
];

for (const [text, status] of REFUSED) {
  Deno.test(`RequestReader refuses ${JSON.stringify(text.slice(0, 80))} of ${text.length} with ${status}`, () => {
    const progress = read([text]);
    assert.ok(progress.is === "refused", progress.is);
    assert.equal(progress.response.status, status);
  });
}

Deno.test("RequestReader says once that a client waits before it sends the body", () => {
  const reader = new RequestReader();
  const head = `${GET.replace("GET", "POST")}Expect: 100-Continue\r\nContent-Length: 2\r\n\r\n`;
  assert.deepEqual(reader.handleOctets(octets(head)), { is: "incomplete", expectsContinue: true });
  assert.deepEqual(reader.handleOctets(octets("h")), { is: "incomplete", expectsContinue: false });
  assert.equal(reader.handleOctets(octets("i")).is, "request");
});

Deno.test("RequestReader throws for no octets, and ends within its bounds", () => {
  const pieces = fc.constantFrom(
    "GET ",
    "/ ",
    "HTTP/1.1",
    "\r\n",
    "\n",
    "Host: a",
    "Content-Length: ",
    "5",
    "chunked",
    ":",
    "Transfer-Encoding: ",
  );
  const random = fc.oneof(
    fc.array(pieces, { maxLength: 20 }).map((list) => octets(list.join(""))),
    fc.uint8Array({ maxLength: 200 }),
  );
  fc.assert(
    fc.property(fc.array(random, { maxLength: 5 }), (parts) => {
      const reader = new RequestReader();
      for (const part of parts) if (reader.handleOctets(part).is !== "incomplete") break;
    }),
    { numRuns: 2_000 },
  );
});

Deno.test("encodeResponse() writes status, length, type and body", () => {
  assert.equal(
    text(encodeResponse({ status: 200, body: "hü\n" })),
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 4\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhü\n",
  );
  assert.equal(text(encodeResponse({ status: 204 })), "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n");
  assert.equal(
    text(encodeResponse({ status: 200 })),
    "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
  );
  const head = encodeResponse({ status: 200, body: "{}", headers: { "Content-Type": "application/json" } }, {
    withoutBody: true,
  });
  assert.equal(
    text(head),
    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 2\r\n\r\n",
  );
});

function read(parts: readonly string[]): Progress {
  const reader = new RequestReader();
  let progress: Progress = { is: "incomplete", expectsContinue: false };
  for (const part of parts) {
    progress = reader.handleOctets(octets(part));
    if (progress.is !== "incomplete") break;
  }
  return progress;
}

function requestOf(text: string) {
  const progress = read([text]);
  assert.ok(progress.is === "request", JSON.stringify(progress));
  return progress.request;
}

function cutAt(text: string, cuts: readonly number[]): string[] {
  const sorted = [0, ...cuts.toSorted((a, b) => a - b), text.length];
  return sorted.slice(1).map((cut, i) => text.slice(sorted[i], cut));
}

function octets(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

function text(octets: Uint8Array): string {
  return new TextDecoder().decode(octets);
}

Deno.test("RequestReader takes a larger body where it may be one", () => {
  const limitOf = ({ target }: { readonly target: string }) => target === "/file" ? 100_000 : undefined;
  const ask = (target: string, length: number) =>
    new RequestReader(limitOf).handleOctets(
      new TextEncoder().encode(
        `POST ${target} HTTP/1.1\r\nHost: a\r\nContent-Length: ${length}\r\n\r\n${"x".repeat(length)}`,
      ),
    );
  const taken = ask("/file", 100_000);
  assert.equal(taken.is === "request" && taken.request.body.length, 100_000);
  for (const [target, length] of [["/file", 100_001], ["/other", 65_537]] as const) {
    const refused = ask(target, length);
    assert.equal(refused.is === "refused" && refused.response.status, 413);
  }
});
