/** The control API as the commands see it: requests in, texts and addresses out. */
import { NoAnswerError, OperationError, RouterAbsentError } from "../lib/errors.ts";
import { type Cidr, formatCidr, formatIpv4, type Ipv4, parseCidr } from "../lib/ip.ts";
import { formatListenAddress, type ListenAddress } from "../lib/listen_address.ts";
import type { AddressBook, Progress, Unserved } from "../daemon/address_book.ts";
import { type Answer, exchange, NotConnectedError } from "./exchange.ts";

export interface RequestOptions {
  readonly query?: URLSearchParams;
  readonly form?: URLSearchParams;
  readonly json?: boolean;
  /** Its answer may have to wait for other hosts: it has no time limit. */
  readonly patient?: boolean;
}

type Method = "GET" | "POST" | "PUT" | "DELETE";

/** Exit status for an endpoint that is not there. */
const NOT_FOUND = 4;
/** A router that says what it knows takes milliseconds, on a very busy machine a second. */
const ANSWER_MS = 10_000;

/** Methods reject with `RouterAbsentError`, or with `OperationError` whose message is what the router said. */
export class ApiClient {
  #toldWaiting = false;

  /** @param progress hears of an answer that lets itself be waited for */
  constructor(readonly address: ListenAddress, readonly progress?: Progress) {}

  /** Whatever the router says, as it says it. */
  async request(method: Method, path: string, options: RequestOptions = {}): Promise<Answer> {
    const { query, form, json, patient } = options;
    const where = formatListenAddress(this.address);
    const headers: Record<string, string> = {};
    if (json === true) headers["Accept"] = "application/json";
    if (form !== undefined) headers["Content-Type"] = "application/x-www-form-urlencoded";
    const request = { method, path: query === undefined ? path : `${path}?${query}`, headers };
    try {
      return await exchange(this.address, form === undefined ? request : { ...request, body: form.toString() }, {
        onWait: () => this.#tellWaiting(where),
        limitMs: patient === true ? undefined : ANSWER_MS,
      });
    } catch (error) {
      if (error instanceof NotConnectedError) throw new RouterAbsentError(undefined, { cause: error });
      throw new NoAnswerError(`Cannot talk to the router at ${where}: ${(error as Error).message}`, 1, {
        cause: error,
      });
    }
  }

  #tellWaiting(where: string): void {
    if (!this.#toldWaiting) this.progress?.warn(`Waiting for the router at ${where} to answer`);
    this.#toldWaiting = true;
  }

  /** The body of a good answer. 404 is silent and exits with 4, anything else is said. */
  async ask(method: Method, path: string, options: RequestOptions = {}): Promise<string> {
    return good(await this.request(method, path, options));
  }

  /** GET /report, as JSON or through a template. */
  async report(template?: string): Promise<string> {
    return template === undefined
      ? await this.ask("GET", "/report", { json: true })
      : await this.ask("GET", "/report", { query: new URLSearchParams({ format: template }) });
  }

  async connect(peers: readonly string[], options: { replace: boolean }): Promise<void> {
    const form = peerForm(peers);
    if (options.replace) form.set("replace", "true");
    // It looks names up.
    await this.ask("POST", "/connect", { form, patient: true });
  }

  async forget(peers: readonly string[]): Promise<void> {
    await this.ask("POST", "/forget", { form: peerForm(peers) });
  }

  /** What to print about it; empty where nobody allocates addresses. */
  async removePeer(id: string): Promise<string> {
    return await this.ask("DELETE", `/peer/${encodeURIComponent(id)}`);
  }

  /** Gives this host's address space away, before it is reset. */
  async leave(): Promise<void> {
    await this.ask("DELETE", "/peer");
  }
}

/** The router's addresses and names over HTTP; without a client it is as absent. */
export class ApiAddressBook implements AddressBook {
  constructor(readonly client: ApiClient | undefined) {}

  async allocate(id: string, subnet: Cidr | undefined, options: { checkAlive: boolean }): Promise<Cidr | Unserved> {
    const body = await this.#ask("POST", addressPath(id, subnet), {
      ...aliveQuery(options),
      patient: true,
    });
    if (isUnserved(body)) return body;
    if (body.text.trim() === "cancelled") throw new OperationError("Cannot allocate an address: cancelled");
    return readCidr(body.text);
  }

  async claim(id: string, cidr: Cidr, options: { checkAlive: boolean }): Promise<"claimed" | Unserved> {
    const body = await this.#ask("PUT", `/ip/${encodeURIComponent(id)}/${formatCidr(cidr)}`, {
      ...aliveQuery(options),
      patient: true,
    });
    if (isUnserved(body)) return body;
    if (body.text.trim() === "cancelled") throw new OperationError(`Cannot claim ${formatCidr(cidr)}: cancelled`);
    return "claimed";
  }

  async lookup(id: string, subnet: Cidr | undefined): Promise<readonly Cidr[] | Unserved> {
    const body = await this.#ask("GET", addressPath(id, subnet));
    return isUnserved(body) ? body : body.text.split(/\s+/).filter((word) => word !== "").map(readCidr);
  }

  async free(id: string, address: Ipv4): Promise<"freed" | "unknown" | Unserved> {
    const answer = await this.#answer("DELETE", `/ip/${encodeURIComponent(id)}/${formatIpv4(address)}`);
    if (isUnserved(answer)) return answer;
    if (answer.status === 400 && answer.body.includes("not found for")) return "unknown";
    good(answer);
    return "freed";
  }

  async registerName(
    id: string,
    address: Ipv4,
    fqdn: string,
    options: { checkAlive: boolean },
  ): Promise<"done" | Unserved> {
    const { query = new URLSearchParams() } = aliveQuery(options);
    query.set("fqdn", fqdn);
    const body = await this.#ask("PUT", namePath(id, address), { query });
    return isUnserved(body) ? body : "done";
  }

  async removeName(id: string, address: Ipv4, fqdn: string | undefined): Promise<"done" | Unserved> {
    const options = fqdn === undefined ? {} : { query: new URLSearchParams({ fqdn }) };
    const body = await this.#ask("DELETE", namePath(id, address), options);
    return isUnserved(body) ? body : "done";
  }

  async #ask(method: Method, path: string, options?: RequestOptions): Promise<{ text: string } | Unserved> {
    const answer = await this.#answer(method, path, options);
    return isUnserved(answer) ? answer : { text: good(answer) };
  }

  async #answer(method: Method, path: string, options?: RequestOptions): Promise<Answer | Unserved> {
    if (this.client === undefined) return "absent";
    try {
      const answer = await this.client.request(method, path, options);
      return answer.status === 404 ? "disabled" : answer;
    } catch (error) {
      if (error instanceof RouterAbsentError) return "absent";
      throw error;
    }
  }
}

function isUnserved(answer: object | Unserved): answer is Unserved {
  return typeof answer === "string";
}

function good({ status, body }: Answer): string {
  if (status >= 200 && status < 300) return body;
  throw new OperationError(
    status === 404 ? "" : body.trimEnd() || `The router answered ${status}`,
    status === 404 ? NOT_FOUND : 1,
  );
}

function peerForm(peers: readonly string[]): URLSearchParams {
  return new URLSearchParams(peers.map((peer) => ["peer", peer]));
}

function addressPath(id: string, subnet: Cidr | undefined): string {
  return `/ip/${encodeURIComponent(id)}${subnet === undefined ? "" : `/${formatCidr(subnet)}`}`;
}

function namePath(id: string, address: Ipv4): string {
  return `/name/${encodeURIComponent(id)}/${formatIpv4(address)}`;
}

function aliveQuery(options: { checkAlive: boolean }): { query?: URLSearchParams } {
  return options.checkAlive ? { query: new URLSearchParams({ "check-alive": "true" }) } : {};
}

function readCidr(text: string): Cidr {
  const cidr = parseCidr(text.trim());
  if (cidr === undefined) {
    throw new OperationError(`Cannot understand the router: address expected, got "${text.trim()}"`);
  }
  return cidr;
}
