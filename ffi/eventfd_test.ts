import assert from "node:assert/strict";
import { EventFd } from "./eventfd.ts";
import { DescriptorTrace } from "./fd.ts";

Deno.test("EventFd holds signals until they are taken, all at once", () => {
  using trace = new DescriptorTrace();
  {
    using event = new EventFd();
    assert.equal(event.drain(), false);
    event.signal();
    event.signal();
    assert.equal(event.drain(), true);
    assert.equal(event.drain(), false);
  }
  assert.deepEqual(trace.left(), []);
});
