import assert from "node:assert/strict";
import { OptionError } from "../lib/errors.ts";
import { formatCidr } from "../lib/ip.ts";
import { type IpamTexts, readIpamOptions } from "./ipam_options.ts";

const NONE: IpamTexts = { range: undefined, defaultSubnet: undefined, init: undefined, reclaimMs: undefined };

function read(texts: Partial<IpamTexts>) {
  return readIpamOptions({ ...NONE, ...texts });
}

Deno.test("readIpamOptions() allocates out of 10.32.0.0/12 unless told otherwise, and not at all for an empty range", () => {
  assert.equal(formatCidr(read({})!.range), "10.32.0.0/12");
  assert.equal(read({})!.rangeGiven, false);
  assert.equal(read({ range: "10.32.0.0/12" })!.rangeGiven, true);
  assert.equal(read({ range: "" }), undefined);
});

Deno.test("readIpamOptions() has the default subnet within the range, or around it", () => {
  const subnet = (range: string, defaultSubnet: string) => formatCidr(read({ range, defaultSubnet })!.defaultSubnet);
  assert.equal(subnet("10.0.0.0/8", "10.5.0.0/16"), "10.5.0.0/16");
  assert.equal(subnet("10.5.0.0/16", "10.0.0.0/8"), "10.0.0.0/8");
  assert.equal(formatCidr(read({ range: "10.5.0.0/16" })!.defaultSubnet), "10.5.0.0/16");
});

Deno.test("readIpamOptions() reads how the range is divided first", () => {
  const init = (text: string) => read({ init: text })!.init;
  assert.deepEqual(init(""), { mode: "consensus", peers: undefined });
  assert.deepEqual(init("consensus"), { mode: "consensus", peers: undefined });
  assert.deepEqual(init("consensus=3"), { mode: "consensus", peers: 3 });
  assert.deepEqual(init("consensus=0"), { mode: "consensus", peers: undefined });
  assert.deepEqual(init("observer"), { mode: "observer" });
  assert.deepEqual(init("seed=::1,::2"), { mode: "seed", peers: [1, 2] });
});

const REFUSED: readonly [Partial<IpamTexts>, RegExp][] = [
  [{ range: "10.32.0.0" }, /a\.b\.c\.d\/length expected/],
  [{ range: "10.32.0.1/12" }, /bits after network prefix are not all zero/],
  [{ range: "10.32.0.0/31" }, /at most 30, is 31/],
  [{ range: "224.0.0.0/8" }, /no host can have/],
  [{ range: "0.0.0.0/0" }, /no host can have/],
  [{ range: "127.0.0.0/16" }, /no host can have/],
  [{ range: "64.0.0.0/2" }, /no host can have/],
  [{ range: "10.0.0.0/8", defaultSubnet: "192.168.0.0/16" }, /192\.168\.0\.0\/16 does not overlap .*10\.0\.0\.0\/8/],
  [{ range: "10.0.0.0/8", defaultSubnet: "10.0.0.1/24" }, /not all zero/],
  [{ range: "", defaultSubnet: "10.0.0.0/8" }, /--ipalloc-default-subnet specified without --ipalloc-range/],
  [{ range: "", init: "observer" }, /--ipalloc-init specified without --ipalloc-range/],
  [{ init: "majority" }, /Unable to parse --ipalloc-init: unknown mode: majority/],
  [{ init: "consensus=many" }, /bad consensus parameter/],
  [{ init: "seed" }, /seed mode requires peer name list/],
  [{ init: "seed=host1" }, /bad seed parameter/],
  [{ init: "observer=1" }, /observer mode takes no parameter/],
];

for (const [texts, message] of REFUSED) {
  Deno.test(`readIpamOptions() refuses ${JSON.stringify(texts)}`, () => {
    assert.throws(() => read(texts), (error) => {
      assert.ok(error instanceof OptionError);
      assert.match(error.message, message);
      return true;
    });
  });
}
