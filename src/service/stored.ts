/**
 * Records of services as they are kept between two starts. As JSON:
 *
 *     [{ owner, life, floor, seq, secondHand?: true, records: [[seq, { kind, … } | key], …] }, …]
 */
import { formatMac, parsePeerName, type PeerName } from "../lib/mac.ts";
import { checkRecord, encodeRecord, keyOf, MAX_NUMBER, type RecordKey, type ServiceRecord } from "../wire/service.ts";

export interface StoredOwner {
  readonly owner: PeerName;
  readonly life: number;
  readonly floor: number;
  readonly seq: number;
  readonly secondHand: boolean;
  readonly records: readonly StoredRecord[];
}

export interface StoredRecord {
  readonly key: RecordKey;
  /** Of ours, 0: nobody has heard of it yet. */
  readonly seq: number;
  /** Undefined: it was removed. */
  readonly record: ServiceRecord | undefined;
}

/** As JSON says it. */
export function encodeStored(owners: readonly StoredOwner[]): unknown {
  return owners.map(({ owner, life, floor, seq, secondHand, records }) => ({
    owner: formatMac(owner),
    life,
    floor,
    seq,
    ...secondHand ? { secondHand } : {},
    records: records.map(({ key, seq, record }) => [seq, record === undefined ? key : encodeRecord(record)]),
  }));
}

/** From parsed JSON. Throws an Error that says what is wrong. */
export function checkStored(data: unknown): readonly StoredOwner[] {
  if (!Array.isArray(data)) throw new Error("a list of owners is missing");
  return data.map(checkOwner);
}

function checkOwner(data: unknown): StoredOwner {
  const { owner, life, floor, seq, secondHand, records } = (data ?? {}) as Readonly<Record<string, unknown>>;
  const name = typeof owner === "string" ? parsePeerName(owner) : undefined;
  if (name === undefined) throw new Error(`"${owner}" is no peer`);
  if (!Array.isArray(records)) throw new Error(`records of ${owner} are no list`);
  return {
    owner: name,
    life: checkNumber(life),
    floor: checkNumber(floor),
    seq: checkNumber(seq),
    secondHand: secondHand === true,
    records: records.map(checkNumbered),
  };
}

function checkNumbered(data: unknown): StoredRecord {
  const [seq, said] = (Array.isArray(data) ? data : []) as readonly unknown[];
  if (typeof said === "string") return { seq: checkNumber(seq), key: said, record: undefined };
  const record = checkRecord(said);
  return { seq: checkNumber(seq), key: keyOf(record), record };
}

function checkNumber(data: unknown): number {
  if (typeof data !== "number" || !Number.isInteger(data) || data < 0 || data > MAX_NUMBER) {
    throw new Error(`"${data}" is no number from 0 to ${MAX_NUMBER}`);
  }
  return data;
}
