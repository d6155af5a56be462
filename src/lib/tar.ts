/** Headers of a tar archive in the POSIX format (ustar), as far as a few files need them. */

export type TarEntry =
  | { readonly type: "file"; readonly name: string; readonly mode: number; readonly octets: number }
  | { readonly type: "directory"; readonly name: string; readonly mode: number }
  | { readonly type: "symlink"; readonly name: string; readonly target: string };

/** Everything in an archive comes in blocks of so many octets. */
export const TAR_BLOCK = 512;

const TYPE_FLAGS = { file: "0", symlink: "2", directory: "5" } as const;
const NAME_OCTETS = 100;

/** One block, to be followed by the octets of a file. Owner is root; the time is always the same one, so that an archive is. */
export function tarHeader(entry: TarEntry): Uint8Array<ArrayBuffer> {
  const header = new Uint8Array(TAR_BLOCK);
  const put = (at: number, text: string, room: number) => {
    const octets = new TextEncoder().encode(text);
    if (octets.length > room) throw new RangeError(`Cannot put "${text}" into a tar header: ${room} octets fit`);
    header.set(octets, at);
  };
  const number = (at: number, value: number, digits: number) =>
    put(at, value.toString(8).padStart(digits, "0"), digits);
  put(0, entry.type === "directory" ? `${entry.name}/` : entry.name, NAME_OCTETS);
  number(100, entry.type === "symlink" ? 0o777 : entry.mode, 7);
  number(108, 0, 7);
  number(116, 0, 7);
  number(124, entry.type === "file" ? entry.octets : 0, 11);
  number(136, 0, 11);
  put(148, " ".repeat(8), 8);
  put(156, TYPE_FLAGS[entry.type], 1);
  if (entry.type === "symlink") put(157, entry.target, NAME_OCTETS);
  put(257, "ustar", 6);
  put(263, "00", 2);
  const sum = header.reduce((total, octet) => total + octet, 0);
  put(148, `${sum.toString(8).padStart(6, "0")}\0 `, 8);
  return header;
}

/** How many zero octets follow a file, so that the next header begins a block. */
export function tarPadding(octets: number): number {
  return (TAR_BLOCK - octets % TAR_BLOCK) % TAR_BLOCK;
}

/** The end of an archive. */
export const TAR_END_OCTETS = 2 * TAR_BLOCK;
