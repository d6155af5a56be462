import assert from "node:assert/strict";
import { OperationError } from "../lib/errors.ts";
import { type Cidr, formatCidr, type Ipv4, parseCidr } from "../lib/ip.ts";
import { type AddressBook, parseAddressToken } from "./address_book.ts";
import { lookUpAddresses, obtainAddresses, type Obtained, overlapWarning, undone } from "./addresses.ts";

Deno.test("overlapWarning() warns of routes elsewhere, in Weave's words", () => {
  const bridge = 7;
  const routes = [
    { destination: parseCidr("0.0.0.0/0")!, link: 2 },
    { destination: parseCidr("10.1.0.0/16")!, link: 2 },
    { destination: parseCidr("10.2.0.0/16")!, link: bridge },
  ];
  const warning = (text: string) => overlapWarning(parseCidr(text)!, routes, bridge);
  assert.equal(warning("10.1.2.3/24"), "Address 10.1.2.3 overlaps with existing route 10.1.0.0/16 on host");
  assert.equal(warning("10.1.2.0/24"), "Network 10.1.2.0/24 overlaps with existing route 10.1.0.0/16 on host");
  assert.equal(warning("10.2.2.3/24"), undefined);
  assert.equal(warning("10.3.2.3/24"), undefined);
});

Deno.test("obtainAddresses() keeps the order and says which addresses are new", async () => {
  const book = new Book({ held: ["10.0.0.1/24"] });
  assert.deepEqual(await obtained(book, "10.0.0.1/24", "net:10.9.0.0/24", "10.0.0.2/24"), [
    "10.0.0.1/24 given",
    "10.9.0.1/24 fresh",
    "10.0.0.2/24 given fresh",
  ]);
  assert.deepEqual(await obtained(new Book({}), ...[]), ["10.32.0.1/12 fresh"]);
});

Deno.test("obtainAddresses() does what is possible where nobody allocates", async () => {
  assert.deepEqual(await obtained(new Book({ unserved: "disabled" }), "10.0.0.1/24"), ["10.0.0.1/24 given"]);
  assert.deepEqual(await obtained(new Book({ unserved: "absent" }), "10.0.0.1/24"), ["10.0.0.1/24 given"]);
  const disabled = { message: "IP address allocation must be enabled to use 'net:'", exitStatus: 1 };
  await assert.rejects(obtained(new Book({ unserved: "disabled" }), "net:default"), disabled);
  const absent = { message: "weave is not present. Have you launched it?", exitStatus: 7 };
  await assert.rejects(obtained(new Book({ unserved: "absent" }), "net:default"), absent);
});

Deno.test("lookUpAddresses() never allocates, and means everything where nothing is named and nobody allocates", async () => {
  const look = async (book: Book, ...texts: string[]) => {
    const present = [parseCidr("10.5.0.1/24")!];
    const found = await lookUpAddresses({ id: "x", tokens: texts.map((t) => parseAddressToken(t)!), book, present });
    return found.map(formatCidr);
  };
  const book = new Book({ held: ["10.32.0.9/12", "10.7.0.3/24"] });
  assert.deepEqual(await look(book), ["10.32.0.9/12"]);
  assert.deepEqual(await look(book, "net:10.7.0.0/24", "10.0.0.1/24"), ["10.7.0.3/24", "10.0.0.1/24"]);
  assert.deepEqual(await look(new Book({ unserved: "disabled" })), ["10.5.0.1/24"]);
  await assert.rejects(look(new Book({ unserved: "absent" })), { exitStatus: 7 });
  await assert.rejects(look(new Book({ unserved: "disabled" }), "net:default"), { exitStatus: 1 });
});

Deno.test("undone() runs the steps backwards past those that fail, and says which failed", async () => {
  const order: number[] = [];
  const error = new OperationError("Cannot do it", 3);
  assert.equal(await undone(error, [() => void order.push(1), () => void order.push(2)]), error);
  assert.deepEqual(order, [2, 1]);
  const broken = () => Promise.reject(new Error("stuck"));
  const result = await undone(error, [() => void order.push(3), broken]) as OperationError;
  assert.equal(result.message, "Cannot do it; undoing it failed as well: stuck");
  assert.equal(result.exitStatus, 3);
  assert.deepEqual(order, [2, 1, 3]);
});

async function obtained(book: Book, ...texts: string[]): Promise<string[]> {
  const list: string[] = [];
  const tokens = texts.map((text) => parseAddressToken(text)!);
  const onObtained = ({ cidr, given, fresh }: Obtained) =>
    void list.push([formatCidr(cidr), ...(given ? ["given"] : []), ...(fresh ? ["fresh"] : [])].join(" "));
  await obtainAddresses({ id: "x", tokens, book, checkAlive: false, needsRouter: false, onObtained });
  return list;
}

/** Answers from a list; takes the first address of a subnet for a new allocation. */
class Book implements AddressBook {
  constructor(readonly o: { held?: string[]; unserved?: "disabled" | "absent" }) {}

  #answer<T>(value: T) {
    return Promise.resolve(this.o.unserved ?? value);
  }

  allocate(_id: string, subnet: Cidr | undefined) {
    const { address, prefixLength } = subnet ?? parseCidr("10.32.0.0/12")!;
    return this.#answer({ address: address + 1, prefixLength });
  }

  claim() {
    return this.#answer("claimed" as const);
  }

  lookup(_id: string, subnet: Cidr | undefined) {
    const { prefixLength } = subnet ?? parseCidr("10.32.0.0/12")!;
    return this.#answer((this.o.held ?? []).map((t) => parseCidr(t)!).filter((c) => c.prefixLength === prefixLength));
  }

  free(_id: string, _address: Ipv4) {
    return this.#answer("freed" as const);
  }

  registerName() {
    return this.#answer("done" as const);
  }

  removeName() {
    return this.#answer("done" as const);
  }
}
