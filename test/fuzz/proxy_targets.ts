/** What clients and engines say to the proxy: HTTP in pieces, and the calls that are changed on their way. */

import assert from "node:assert/strict";
import { readAddresses } from "../../src/daemon/container_attacher.ts";
import { OperationError } from "../../src/lib/errors.ts";
import type { Random } from "../../src/lib/random.ts";
import { readCall } from "../../src/proxy/calls.ts";
import { readInspected, wishOf } from "../../src/proxy/container.ts";
import {
  networkWords,
  readCreate,
  readImage,
  releaseCreate,
  rewriteCreate,
  rewriteExec,
  rewriteStart,
} from "../../src/proxy/create.ts";
import { HostnameRule } from "../../src/proxy/hostname.ts";
import {
  bodyEnd,
  headLength,
  HttpError,
  parseRequest,
  parseResponse,
  printHead,
  requestFraming,
  responseFraming,
  staysOpen,
} from "../../src/proxy/http.ts";
import { containerOfExec, rewriteInspect } from "../../src/proxy/inspect.ts";
import { parseJson, printJson } from "../../src/proxy/json.ts";
import { decodes, makeInput } from "./inputs.ts";
import type { Target } from "./target.ts";

const CONVERSATIONS = [
  "POST /v1.41/containers/create?name=a HTTP/1.1\r\nHost: docker\r\nContent-Length: 3\r\n\r\n{}\n",
  "POST /build HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n5;a=b\r\nhello\r\n0\r\nA: b\r\n\r\n",
  "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nabc",
  "HTTP/1.0 200 OK\r\nConnection: keep-alive, close\r\nContent-Length: 1, 1\r\n\r\nx",
];

const BODIES = [
  '{"Image":"busybox","Cmd":["a"],"Entrypoint":null,"Env":["WEAVE_CIDR=10.0.0.1/24 net:default"],"Labels":{"a":"b"},"HostConfig":{"NetworkMode":"default","Binds":["/a:/b"],"MemorySwap":-1,"Memory":18446744073709551615,"Dns":[],"DnsSearch":null}}',
  '{"entrypoint":"/w/w","cmd":"x","HOSTCONFIG":{"networkmode":"container:x"},"Hostname":"h.x","Domainname":""}',
  '{"Id":"abababababababababababababababababababababababababababababababab","State":{"Running":true,"Pid":7},"Config":{"Entrypoint":["/w/w"],"Env":["A"],"Labels":{"works.weave.run":"without-dns"}},"HostConfig":{"NetworkMode":"","ExtraHosts":["a:1.2.3.4"]},"Mounts":[{"Destination":"/w"}],"NetworkSettings":{"IPAddress":""}}',
];

const DNS = { address: "172.17.0.1", domain: "weave.local" };
const HOSTNAME = new HostnameRule({ label: "a", match: "(.*)-(.*)", replacement: "$2.$1" });

export const PROXY_TARGETS: readonly Target[] = [
  {
    name: "HTTP through the proxy",
    takes: (octets) => takeConversation(octets, [octets.length]),
    prepare: () => (random) => {
      const octets = makeInput(random, CONVERSATIONS.map(encode));
      takeConversation(octets, Array.from({ length: 8 }, () => 1 + random.below(40)));
    },
  },
  {
    name: "calls that the proxy changes",
    takes: takeBody,
    prepare: () => (random: Random) => takeBody(makeInput(random, BODIES.map(encode))),
  },
];

function takeConversation(octets: Uint8Array, pieces: readonly number[]): void {
  decodes(octets, () => {
    const length = headLength(octets);
    if (length === undefined) return;
    const head = octets.subarray(0, length);
    const isAnswer = head[0] === "H".charCodeAt(0);
    const read = isAnswer ? parseResponse : parseRequest;
    const parsed = read(head);
    // What goes on is read as what came.
    assert.deepEqual(read(printHead(parsed)), parsed);
    staysOpen(parsed);
    if ("method" in parsed) readCall(parsed.method, parsed.target);
    const body = bodyEnd("method" in parsed ? requestFraming(parsed) : responseFraming(parsed, "GET"));
    let at = length;
    let said = 0;
    for (let i = 0; at < octets.length && !body.done; i++) {
      const piece = octets.subarray(at, at + pieces[i % pieces.length]!);
      const taken = body.take(piece, (content) => said += content.length);
      assert.ok(taken === piece.length || body.done);
      at += taken;
    }
    assert.ok(said <= octets.length - length);
  }, [HttpError]);
}

function takeBody(octets: Uint8Array): void {
  const text = new TextDecoder().decode(octets);
  decodes(octets, () => {
    const json = parseJson(text);
    if (json !== undefined) assert.equal(printJson(parseJson(printJson(json))!), printJson(json));
    const body = readCreate(text);
    if (body !== undefined) {
      const image = readImage(body);
      const wish = wishOf(networkWords(body, image), { noDefaultIpalloc: false });
      if (wish.attach) readAddresses(wish.addresses);
      releaseCreate(body, image);
      rewriteCreate(body, { name: text.slice(0, 20), image, helper: "/w", dns: DNS, hostname: HOSTNAME });
      assert.notEqual(readCreate(printJson(body)), undefined);
    }
    rewriteStart(text, { helper: { waits: "/a", doesNotWait: "/b" }, dns: DNS });
    rewriteExec(text);
    rewriteInspect(text, { mac: "", address: "", prefixLength: 1 });
    containerOfExec(text);
    if (json !== undefined) readInspected(JSON.parse(text));
  }, [OperationError]);
}

function encode(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}
