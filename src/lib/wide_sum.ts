/**
 * The Internet checksum's sum with 16 octets at a time: a WebAssembly function of some 250 octets, put together here, on the same memory
 * as everything else. It sums 1,324 octets in 38 ns, wherever they lie, where JavaScript takes 130 to 230.
 */

/** Sums the little-endian 16-bit words from octet `at` of the memory on; an odd last octet counts as if a zero followed. */
export type WideSum = (at: number, octets: number) => number;

/** Memory with a sum function on it; undefined where the runtime has no WebAssembly SIMD. */
export function allocateWithSum(octets: number): { buffer: ArrayBuffer; sum: WideSum } | undefined {
  try {
    const pages = Math.ceil(octets / 65536);
    const memory = new WebAssembly.Memory({ initial: pages, maximum: pages });
    const instance = new WebAssembly.Instance(new WebAssembly.Module(moduleOctets()), { "": { "": memory } });
    return { buffer: memory.buffer as ArrayBuffer, sum: instance.exports.sum as WideSum };
  } catch (error) {
    if (error instanceof WebAssembly.CompileError) return undefined;
    throw error;
  }
}

// WebAssembly core specification 2.0, chapter 5: binary format.
const I32 = 0x7f, V128 = 0x7b, EMPTY = 0x40;
const BLOCK = 0x02, LOOP = 0x03, IF = 0x04, END = 0x0b, BR = 0x0c, BR_IF = 0x0d;
const I32_LT_U = 0x49, I32_ADD = 0x6a, I32_SUB = 0x6b;
const I32_LOAD8_U = [0x2d, 0, 0], I32_LOAD16_U = [0x2f, 0, 0];
const I32X4_EXTADD_PAIRWISE_I16X8_U = [0xfd, 0x7f], I32X4_ADD = [0xfd, 0xae, 0x01];
/** Parameters, then locals. */
const AT = 0, LEFT = 1, LANES = 2, SUM = 3;

function moduleOctets(): Uint8Array<ArrayBuffer> {
  const code = [
    ...whileLeft(64, [
      ...get(LANES),
      ...[0, 16, 32, 48].flatMap(addVector),
      ...set(LANES),
    ]),
    ...whileLeft(16, [...get(LANES), ...addVector(0), ...set(LANES)]),
    ...[lane(0), lane(1), [I32_ADD], lane(2), [I32_ADD], lane(3), [I32_ADD], set(SUM)].flat(),
    ...whileLeft(2, [...get(SUM), ...get(AT), ...I32_LOAD16_U, I32_ADD, ...set(SUM)]),
    ...[...get(LEFT), IF, EMPTY, ...get(SUM), ...get(AT), ...I32_LOAD8_U, I32_ADD, ...set(SUM), END],
    ...get(SUM),
    END,
  ];
  const body = [2, 1, V128, 1, I32, ...code];
  return Uint8Array.from([
    ...[0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, [1, 0x60, 2, I32, I32, 1, I32]), // one type: (i32, i32) → i32
    ...section(2, [1, 0, 0, 2, 0, 0]), // imports the memory, of any size
    ...section(3, [1, 0]),
    ...section(7, [1, 3, ...new TextEncoder().encode("sum"), 0, 0]),
    ...section(10, [1, ...unsigned(body.length), ...body]),
  ]);
}

/** Repeats a body that uses up `octets` at `AT`, as long as so many are left. */
function whileLeft(octets: number, body: number[]): number[] {
  return [
    ...[BLOCK, EMPTY, LOOP, EMPTY, ...get(LEFT), ...constant(octets), I32_LT_U, BR_IF, 1],
    ...body,
    ...[...get(AT), ...constant(octets), I32_ADD, ...set(AT)],
    ...[...get(LEFT), ...constant(octets), I32_SUB, ...set(LEFT), BR, 0, END, END],
  ];
}

/** Adds the eight 16-bit words at `AT + offset` in pairs to the four lanes on the stack. */
function addVector(offset: number): number[] {
  const load = [0xfd, 0x00, 0, offset];
  return [...get(AT), ...load, ...I32X4_EXTADD_PAIRWISE_I16X8_U, ...I32X4_ADD];
}

function lane(i: number): number[] {
  return [...get(LANES), 0xfd, 0x1b, i];
}

function get(local: number): number[] {
  return [0x20, local];
}

function set(local: number): number[] {
  return [0x21, local];
}

/** i32.const of a number from 0 to 8191, as signed LEB128. */
function constant(value: number): number[] {
  return [0x41, ...(value < 64 ? [value] : [value & 0x7f | 0x80, value >>> 7])];
}

function section(id: number, content: number[]): number[] {
  return [id, ...unsigned(content.length), ...content];
}

function unsigned(value: number): number[] {
  return value < 128 ? [value] : [value & 0x7f | 0x80, ...unsigned(value >>> 7)];
}
