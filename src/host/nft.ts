/**
 * The program `nft`, version 1.0 or later: scripts to the kernel, each wholly or not at all, and tables from it.
 */
import { SysError } from "../../ffi/errno.ts";
import { NetlinkSocket } from "../../ffi/netlink_socket.ts";
import { OperationError } from "../lib/errors.ts";
import { NETLINK_NETFILTER } from "../wire/conntrack.ts";
import { decodeAttributes, decodeMessages, encodeMessage, FLAG } from "../wire/netlink.ts";
import { findProgram, run, type RunOptions } from "./command.ts";

export interface NftPlace {
  /** Runs the program in another network namespace. */
  readonly within?: NonNullable<RunOptions["within"]>;
}

/** undefined where `nft` can be run, else what to do. */
export function nftMissing(): string | undefined {
  return findProgram("nft") === undefined ? '"nft" is not installed: install package nftables' : undefined;
}

/** Runs a script as one transaction. @throws OperationError one line, with what `nft` says of its first mistake */
export async function runNft(script: string, place: NftPlace = {}): Promise<void> {
  const { code, stderr } = await start(["-f", "-"], { ...place, input: script });
  if (code !== 0) throw new NftError(firstMistake(stderr, script));
}

/** One object as `nft -j` lists it: its only field is its kind. */
export type NftObject = Readonly<Record<string, Readonly<Record<string, unknown>>>>;

/** What a table holds; undefined where there is no such table. */
export async function readNftTable(table: string, place: NftPlace = {}): Promise<readonly NftObject[] | undefined> {
  const { code, stdout, stderr } = await start(["-j", "list", "table", "ip", table], place);
  if (code !== 0) {
    if (/No such file or directory/.test(stderr)) return undefined;
    throw new NftError(firstMistake(stderr, ""));
  }
  const { nftables } = JSON.parse(stdout) as { nftables?: unknown };
  if (!Array.isArray(nftables)) throw new NftError("its list of a table is not as expected");
  return nftables as NftObject[];
}

/** Asks the kernel how often the rules of a namespace were changed, by whomever: cheap, however many there are. */
export class NftGeneration implements Disposable {
  readonly #socket: NetlinkSocket;

  /** In the namespace of this thread, where it stays. */
  constructor() {
    this.#socket = new NetlinkSocket(NETLINK_NETFILTER);
  }

  /** A number that each transaction makes greater by one; undefined where the kernel does not tell. */
  read(): number | undefined {
    try {
      for (const { type, body } of this.#socket.request(GET_GENERATION).flatMap((octets) => decodeMessages(octets))) {
        if (type !== NEW_GENERATION || body.length < NFGENMSG_OCTETS) continue;
        const id = decodeAttributes(body.subarray(NFGENMSG_OCTETS)).get(NFTA_GEN_ID);
        if (id?.length === 4) return new DataView(id.buffer, id.byteOffset).getUint32(0);
      }
    } catch (error) {
      if (!(error instanceof SysError)) throw error;
    }
    return undefined;
  }

  [Symbol.dispose](): void {
    this.#socket[Symbol.dispose]();
  }
}

/** linux/netfilter/nfnetlink.h and nf_tables.h: NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_…, with a struct nfgenmsg in front. */
const NEW_GENERATION = 10 << 8 | 15, NFGENMSG_OCTETS = 4, NFTA_GEN_ID = 1;
const GET_GENERATION = encodeMessage({
  type: 10 << 8 | 16,
  flags: FLAG.request,
  body: new Uint8Array(NFGENMSG_OCTETS),
});

/** `nft` is not there, or has refused; nothing was changed. */
export class NftError extends OperationError {
  constructor(why: string) {
    super(`Cannot change packet filter: ${why}`);
  }
}

async function start(args: readonly string[], options: RunOptions) {
  const program = findProgram("nft");
  if (program === undefined) throw new NftError(nftMissing()!);
  return await run(program, args, options);
}

/** `/dev/stdin:3:1-9: Error: No such file or directory` and the line it is about, as one. */
function firstMistake(stderr: string, script: string): string {
  const line = stderr.split("\n").find((text) => text.trim() !== "")?.trim() ?? "no reason given";
  const place = /^\/dev\/stdin:(\d+):\d+-\d+: (?:Error: )?(.*)$/.exec(line);
  if (place === null) return `nft: ${line}`;
  const about = script.split("\n")[Number(place[1]) - 1]?.trim() ?? "";
  return `nft: ${place[2]}${about === "" ? "" : ` in "${about.length > 120 ? `${about.slice(0, 117)}...` : about}"`}`;
}
