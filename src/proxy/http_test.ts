import assert from "node:assert/strict";
import fc from "fast-check";
import {
  bodyEnd,
  field,
  type Framing,
  headLength,
  HttpError,
  joined,
  parseRequest,
  parseResponse,
  printHead,
  requestFraming,
  responseFraming,
  staysOpen,
  withFields,
} from "./http.ts";

Deno.test("headLength() finds the empty line", () => {
  const cases: readonly (readonly [text: string, length: number | undefined])[] = [
    ["", undefined],
    ["GET / HTTP/1.1\r\n", undefined],
    ["GET / HTTP/1.1\r\n\r", undefined],
    ["GET / HTTP/1.1\r\n\r\n", 18],
    ["GET / HTTP/1.1\r\n\r\nbody", 18],
    ["GET / HTTP/1.1\n\nbody", 16],
    ["\r\n\nGET / HTTP/1.1\r\nA: b\r\n\r\n", 27],
    ["\r\n\r\n", undefined],
  ];
  for (const [text, length] of cases) assert.equal(headLength(octets(text)), length, JSON.stringify(text));
});

Deno.test("parseRequest() and printHead() keep names, order and octets beyond ASCII", () => {
  const text =
    "POST /v1.41/build?t=a%20b HTTP/1.1\r\nhost: docker\r\nX-Registry-Config: e30=\r\nX-A: \x80\x9cé\r\nX-A: b\r\n\r\n";
  const head = parseRequest(octets(text));
  assert.equal(latin1(printHead(head)), text);
  assert.deepEqual([head.method, head.target, head.version], ["POST", "/v1.41/build?t=a%20b", "1.1"]);
  assert.equal(field(head, "x-a"), "\x80\x9cé, b");
  const changed = withFields(head, { "Host": "other", "x-a": undefined });
  assert.equal(
    latin1(printHead(changed)),
    "POST /v1.41/build?t=a%20b HTTP/1.1\r\nX-Registry-Config: e30=\r\nHost: other\r\n\r\n",
  );
});

Deno.test("parseRequest() and parseResponse() refuse what is no HTTP/1", () => {
  for (const line of ["GET /", "GET / HTTP/2.0", "G\tT / HTTP/1.1", "GET /a b HTTP/1.1", "\x16\x03\x01"]) {
    assert.throws(() => parseRequest(octets(`${line}\r\n\r\n`)), HttpError, line);
  }
  for (const header of ["novalue", "a b: c", ": c", " folded: x", "a: \x01"]) {
    assert.throws(() => parseRequest(octets(`GET / HTTP/1.1\r\n${header}\r\n\r\n`)), /Malformed header/, header);
  }
  assert.throws(() => parseResponse(octets("SSH-2.0-x\r\n\r\n")), /not HTTP/);
  assert.equal(parseResponse(octets("HTTP/1.1 101 UPGRADED\r\n\r\n")).status, 101);
  assert.equal(parseResponse(octets("HTTP/1.0 200\r\n\r\n")).status, 200);
});

Deno.test("requestFraming() says where a body ends, and refuses two opinions", () => {
  const framing = (headers: string) => requestFraming(parseRequest(octets(`POST / HTTP/1.1\r\n${headers}\r\n`)));
  assert.deepEqual(framing(""), { by: "length", octets: 0 });
  assert.deepEqual(framing("Content-Length: 12\r\n"), { by: "length", octets: 12 });
  assert.deepEqual(framing("Content-Length: 12\r\nContent-Length: 12\r\n"), { by: "length", octets: 12 });
  assert.deepEqual(framing("Transfer-Encoding: Chunked\r\n"), { by: "chunks" });
  for (
    const wrong of [
      "Content-Length: 1\r\nContent-Length: 2\r\n",
      "Content-Length: -1\r\n",
      "Content-Length: 1e3\r\n",
      "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: gzip, chunked\r\n",
    ]
  ) assert.throws(() => framing(wrong), HttpError, wrong);
});

Deno.test("responseFraming() knows answers without a body", () => {
  const framing = (head: string, method = "GET") =>
    responseFraming(parseResponse(octets(`HTTP/1.1 ${head}\r\n`)), method);
  assert.deepEqual(framing("200 OK\r\nContent-Length: 5\r\n"), { by: "length", octets: 5 });
  assert.deepEqual(framing("200 OK\r\nContent-Length: 5\r\n", "HEAD"), { by: "length", octets: 0 });
  assert.deepEqual(framing("204 No Content\r\n"), { by: "length", octets: 0 });
  assert.deepEqual(framing("304 Not Modified\r\nContent-Length: 5\r\n"), { by: "length", octets: 0 });
  assert.deepEqual(framing("200 OK\r\nTransfer-Encoding: chunked\r\n"), { by: "chunks" });
  assert.deepEqual(framing("200 OK\r\n"), { by: "end" });
});

Deno.test("staysOpen() follows version and Connection", () => {
  const open = (text: string) => staysOpen(parseRequest(octets(`${text}\r\n`)));
  assert.equal(open("GET / HTTP/1.1\r\n"), true);
  assert.equal(open("GET / HTTP/1.1\r\nConnection: Close\r\n"), false);
  assert.equal(open("GET / HTTP/1.1\r\nConnection: Upgrade, close\r\n"), false);
  assert.equal(open("GET / HTTP/1.0\r\n"), false);
  assert.equal(open("GET / HTTP/1.0\r\nConnection: keep-alive\r\n"), true);
});

Deno.test("bodyEnd() finds the end of chunks, cut anywhere, and what they say", () => {
  const encoded = octets('5\r\nhello\r\n1;ext="a"\r\n,\r\n0006\r\n world\r\n0\r\nTrailer: x\r\n\r\n');
  const pieces = fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1 });
  fc.assert(fc.property(pieces, (lengths) => {
    const body = bodyEnd({ by: "chunks" });
    const said: Uint8Array[] = [];
    const stream = joined(encoded, octets("NEXT"));
    let at = 0;
    for (let i = 0; !body.done; i++) {
      const piece = stream.subarray(at, at + lengths[i % lengths.length]!);
      at += body.take(piece, (content) => said.push(content.slice()));
    }
    assert.equal(at, encoded.length);
    assert.equal(latin1(joined(...said)), "hello, world");
  }));
});

Deno.test("bodyEnd() refuses what are no chunks", () => {
  for (const text of ["x\r\n", "\r\n", "1\r\nab\r\n", "-1\r\n", "1".repeat(13) + "\r\n", "1;" + "e".repeat(5000)]) {
    assert.throws(() => bodyEnd({ by: "chunks" }).take(octets(text)), HttpError, text.slice(0, 20));
  }
  const endless = octets("0\r\n" + "A: b\r\n".repeat(20_000));
  assert.throws(() => bodyEnd({ by: "chunks" }).take(endless), /Trailers too large/);
});

Deno.test("bodyEnd() counts octets, and takes all where only the end of the connection ends it", () => {
  const sized = bodyEnd({ by: "length", octets: 5 } satisfies Framing);
  assert.equal(sized.take(octets("abc")), 3);
  assert.equal(sized.done, false);
  assert.equal(sized.take(octets("defg")), 2);
  assert.equal(sized.done, true);
  const endless = bodyEnd({ by: "end" });
  assert.equal(endless.take(octets("abc")), 3);
  assert.deepEqual([endless.done, endless.endsWithConnection], [false, true]);
  assert.equal(bodyEnd({ by: "length", octets: 0 }).done, true);
});

function octets(text: string): Uint8Array<ArrayBuffer> {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function latin1(octets: Uint8Array): string {
  return String.fromCharCode(...octets);
}
