import assert from "node:assert/strict";
import { parseCidr } from "../lib/ip.ts";
import { checkGivenAddress, parseAddressToken } from "./address_book.ts";

Deno.test("parseAddressToken() reads the four shapes and nothing else", () => {
  const cidr = parseCidr("10.0.0.1/24")!;
  assert.deepEqual(parseAddressToken("10.0.0.1/24"), { kind: "given", cidr });
  assert.deepEqual(parseAddressToken("ip:10.0.0.1/24"), { kind: "given", cidr });
  assert.deepEqual(parseAddressToken("net:10.0.0.1/24"), { kind: "net", subnet: cidr });
  assert.deepEqual(parseAddressToken("net:default"), { kind: "default" });
  for (
    const text of ["", "10.0.0.1", "ip:default", "net:", "10.0.0.1/33", "10.0.0.256/8", "net:10.0.0.1", "ubuntu", "-t"]
  ) {
    assert.equal(parseAddressToken(text), undefined, text);
  }
});

Deno.test("checkGivenAddress() says why no interface can hold an address", () => {
  const cases = [
    ["10.0.0.1/0", "prefix length must be 1 to 32, is 0"],
    ["0.0.0.1/8", "it means this network"],
    ["127.0.0.1/8", "it is a loopback address"],
    ["224.0.0.1/24", "it is no unicast address"],
    ["255.255.255.255/32", "it is no unicast address"],
    ["10.0.0.255/24", "it is the broadcast address of its network"],
  ] as const;
  for (const [text, why] of cases) {
    const message = `Cannot use "${text}" as address: ${why}`;
    assert.throws(() => checkGivenAddress(parseCidr(text)!), { name: "OptionError", message });
  }
  for (const text of ["10.0.0.1/24", "10.0.0.0/31", "10.0.0.1/31", "10.0.0.0/32", "10.1.0.0/16"]) {
    checkGivenAddress(parseCidr(text)!);
  }
});
