/** What `launch` is told of addresses: the `--ipalloc-…` options together, as none of them means anything alone. */
import { OptionError } from "../lib/errors.ts";
import { type Cidr, cidrsOverlap, formatCidr, networkOf, parseCidr } from "../lib/ip.ts";
import { parsePeerName, type PeerName } from "../lib/mac.ts";
import { unusable } from "./option.ts";

/** How the first division of the range comes about. */
export type IpamInit =
  /** undefined: as many as there are targets, and one. */
  | { readonly mode: "consensus"; readonly peers: number | undefined }
  | { readonly mode: "seed"; readonly peers: readonly PeerName[] }
  | { readonly mode: "observer" };

export interface IpamOptions {
  /** Addresses are given out of this network, the same on all hosts. */
  readonly range: Cidr;
  /** The user chose it. */
  readonly rangeGiven: boolean;
  /** What is meant where no subnet is named. */
  readonly defaultSubnet: Cidr;
  readonly init: IpamInit;
  /** After how long the addresses of a peer that is out of reach are taken over; undefined: never. */
  readonly reclaimMs: number | undefined;
}

export const DEFAULT_RANGE = "10.32.0.0/12";
/** The first address and the last one of a subnet are given to nobody. */
const LONGEST_PREFIX = 30;

/** Texts as given; undefined: not. */
export interface IpamTexts {
  readonly range: string | undefined;
  readonly defaultSubnet: string | undefined;
  readonly init: string | undefined;
  readonly reclaimMs: number | undefined;
}

/** undefined: addresses are not allocated. Throws `OptionError`. */
export function readIpamOptions(
  { range: rangeText, defaultSubnet, init, reclaimMs }: IpamTexts,
): IpamOptions | undefined {
  if (rangeText === "") {
    refuseWithout("ipalloc-default-subnet", defaultSubnet);
    refuseWithout("ipalloc-init", init);
    return undefined;
  }
  const range = readSubnet("ipalloc-range", rangeText ?? DEFAULT_RANGE);
  checkUnicast("ipalloc-range", range);
  const subnet = defaultSubnet === undefined || defaultSubnet === ""
    ? range
    : readSubnet("ipalloc-default-subnet", defaultSubnet);
  if (!cidrsOverlap(range, subnet)) {
    throw new OptionError(
      `IP address allocation default subnet ${formatCidr(subnet)} does not overlap with allocation range ${
        formatCidr(range)
      }`,
      "ipalloc-default-subnet",
    );
  }
  return {
    range,
    rangeGiven: rangeText !== undefined,
    defaultSubnet: subnet,
    init: readInit(init ?? ""),
    reclaimMs,
  };
}

function refuseWithout(flag: string, text: string | undefined): void {
  if (text !== undefined && text !== "") throw new OptionError(`--${flag} specified without --ipalloc-range.`, flag);
}

function readSubnet(flag: string, text: string): Cidr {
  const cidr = parseCidr(text);
  if (cidr === undefined) throw unusable(flag, text, "a.b.c.d/length expected");
  if (networkOf(cidr) !== cidr.address) throw unusable(flag, text, "bits after network prefix are not all zero");
  if (cidr.prefixLength > LONGEST_PREFIX) {
    throw unusable(flag, text, `prefix length must be at most ${LONGEST_PREFIX}, is ${cidr.prefixLength}`);
  }
  return cidr;
}

function checkUnicast(flag: string, range: Cidr): void {
  const first = range.address >>> 24;
  const last = first + (range.prefixLength >= 8 ? 0 : 2 ** (8 - range.prefixLength) - 1);
  if (first === 0 || last >= 224 || first <= 127 && last >= 127) {
    throw unusable(flag, formatCidr(range), "it holds addresses that no host can have");
  }
}

function readInit(text: string): IpamInit {
  const equals = text.indexOf("=");
  const mode = equals < 0 ? text : text.slice(0, equals);
  const parameter = equals < 0 ? undefined : text.slice(equals + 1);
  switch (mode) {
    case "":
      return { mode: "consensus", peers: undefined };
    case "consensus":
      return { mode, peers: parameter === undefined ? undefined : readCount(parameter) };
    case "seed":
      if (parameter === undefined || parameter === "") throw badInit("seed mode requires peer name list");
      return { mode, peers: parameter.split(",").map(readSeed) };
    case "observer":
      if (parameter !== undefined) throw badInit("observer mode takes no parameter");
      return { mode };
    default:
      throw badInit(`unknown mode: ${mode}`);
  }
}

function readCount(text: string): number | undefined {
  if (!/^\d{1,6}$/.test(text)) throw badInit(`bad consensus parameter: "${text}" is no number of peers`);
  return Number(text) || undefined;
}

function readSeed(text: string): PeerName {
  const name = parsePeerName(text);
  if (name === undefined) throw badInit(`bad seed parameter: "${text}" is no peer name`);
  return name;
}

function badInit(why: string): OptionError {
  return new OptionError(`Unable to parse --ipalloc-init: ${why}`, "ipalloc-init");
}
