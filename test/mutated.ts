/** Octets that are nearly right, for decoders: what was right is changed, cut, doubled or has a piece missing. */
import fc from "fast-check";

/** A few changes to octets that are well formed. */
export function mutated(octets: Uint8Array): fc.Arbitrary<Uint8Array> {
  const place = fc.nat(0xffff_ffff);
  const change = fc.oneof(
    fc.tuple(place, fc.nat(255)).map(([i, octet]) => (o: Uint8Array) => o.with(i % o.length, octet)),
    place.map((i) => (o: Uint8Array) => o.slice(0, i % o.length)),
    place.map((i) => (o: Uint8Array) => joined(o.subarray(0, i % o.length), o.subarray(i % o.length + 1))),
    fc.tuple(place, place).map(([i, j]) => (o: Uint8Array) =>
      joined(o.subarray(0, i % o.length), o.subarray(j % o.length))
    ),
  );
  return fc.array(change, { minLength: 1, maxLength: 4 }).map((changes) =>
    changes.reduce((o, apply) => o.length === 0 ? o : apply(o), octets)
  );
}

function joined(a: Uint8Array, b: Uint8Array): Uint8Array {
  const octets = new Uint8Array(a.length + b.length);
  octets.set(a);
  octets.set(b, a.length);
  return octets;
}
