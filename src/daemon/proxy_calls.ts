/** What the proxy does with each call it takes part in: src/proxy says what becomes of the texts, here they are asked for and waited on. */
import type { ProxyOptions } from "../config/proxy_options.ts";
import { askEngine, askEngineFor, messageOf } from "../host/docker_api.ts";
import type { Helper } from "../host/helper.ts";
import { OperationError } from "../lib/errors.ts";
import { formatIpv4 } from "../lib/ip.ts";
import type { Logger } from "../lib/log.ts";
import { formatMac } from "../lib/mac.ts";
import { readCall } from "../proxy/calls.ts";
import { HELPER_ENTRYPOINT, type Inspected, readInspected, wishOf } from "../proxy/container.ts";
import {
  imageOf,
  type NameServer,
  networkWords,
  readCreate,
  readImage,
  releaseCreate,
  rewriteCreate,
  rewriteExec,
  rewriteStart,
} from "../proxy/create.ts";
import type { RequestHead } from "../proxy/http.ts";
import { containerOfExec, rewriteInspect } from "../proxy/inspect.ts";
import { printJson } from "../proxy/json.ts";
import { checkGivenAddress } from "./address_book.ts";
import { type ContainerAttacher, readAddresses } from "./container_attacher.ts";
import { type Plan, Refusal } from "./proxy_connection.ts";
import { ps } from "./ps.ts";

export interface CallOptions {
  readonly settings: ProxyOptions;
  readonly attacher: Pick<ContainerAttacher, "expect" | "whenAttached">;
  /** undefined: containers are not held. */
  readonly helper: Helper | undefined;
  /** undefined: containers use other DNS servers. */
  readonly dns: () => NameServer | undefined;
  readonly log: Logger;
}

/** Images that are looked up may have to be read from a slow disk. */
const LOOK_UP_MS = 60_000;

export class ProxyCalls {
  readonly #o: CallOptions;

  constructor(o: CallOptions) {
    this.#o = o;
  }

  plan(request: RequestHead): Plan | undefined {
    const call = readCall(request.method, request.target);
    switch (call.call) {
      case "create":
        return { request: (body) => this.#create(body, call.name) };
      case "start":
        return this.#start(call.container, call.withSettings);
      case "restart":
        return this.#start(call.container, false);
      case "exec":
        return { request: (body) => this.#exec(body, call.container) };
      case "inspect":
        return this.#inspect((_body) => Promise.resolve(call.container));
      case "inspectExec":
        return this.#inspect((body) => Promise.resolve(containerOfExec(body)));
      case "other":
        return undefined;
      default:
        return call satisfies never;
    }
  }

  async #create(text: string, name: string): Promise<string | undefined> {
    const { settings, helper, dns, log } = this.#o;
    const body = readCreate(text);
    if (body === undefined) return undefined;
    const image = await this.#image(imageOf(body));
    const wish = wishOf(networkWords(body, image), settings);
    if (!wish.attach) return releaseCreate(body, image) ? printJson(body) : undefined;
    checkAddresses(wish.addresses);
    const result = rewriteCreate(body, {
      name,
      image,
      helper: helper?.waits,
      dns: settings.withoutDns ? undefined : dns(),
      hostname: settings.hostname,
    });
    if (result === "no command") throw new Refusal(400, "No command specified");
    if (result.warning !== undefined) log.warn("hostname not set", { container: name, reason: result.warning });
    return printJson(body);
  }

  /** Where there is no such image, the client gets the engine's own words and pulls it. */
  async #image(name: string) {
    const path = name.split("/").map(encodeURIComponent).join("/");
    const { status, json } = await asked(askEngine({ path: `/images/${path}/json`, limitMs: LOOK_UP_MS }));
    if (status !== 200) throw new Refusal(status, messageOf(json));
    return readImage(json);
  }

  #start(container: string, withSettings: boolean): Plan {
    const { attacher, helper, dns, settings } = this.#o;
    let id: string | undefined;
    let forget = () => {};
    return {
      request: async (body) => {
        const inspected = await this.#find(container);
        if (inspected?.ours !== true) return undefined;
        id = inspected.id;
        forget = attacher.expect(id);
        if (!withSettings || body.trim() === "") return undefined;
        const changed = rewriteStart(body, { helper, dns: settings.withoutDns ? undefined : dns() });
        return changed === undefined ? undefined : printJson(changed);
      },
      settle: async (status) => {
        try {
          if (id !== undefined && status < 400) await attacher.whenAttached(id);
        } catch (error) {
          throw new Refusal(500, (error as Error).message);
        }
        return undefined;
      },
      done: () => forget(),
    };
  }

  async #exec(body: string, container: string): Promise<string | undefined> {
    const inspected = await this.#find(container);
    if (inspected?.hasHelper !== true || !wishOf(inspected, this.#o.settings).attach) return undefined;
    if (!hasHelper(inspected)) return undefined;
    const changed = rewriteExec(body);
    return changed === undefined ? undefined : printJson(changed);
  }

  #inspect(containerOf: (body: string) => Promise<string>): Plan | undefined {
    if (!this.#o.settings.rewriteInspect) return undefined;
    return {
      settle: async (status, body) => {
        if (status !== 200) return undefined;
        const text = await body();
        try {
          return await this.#show(text, await containerOf(text));
        } catch (error) {
          this.#o.log.warn("inspect not rewritten", { reason: (error as Error).message });
          return undefined;
        }
      },
    };
  }

  async #show(text: string, container: string): Promise<string | undefined> {
    const inspected = container === "" ? undefined : await this.#find(container);
    if (inspected?.running !== true) return undefined;
    if (inspected.ours) await this.#o.attacher.whenAttached(inspected.id);
    const [entry] = await ps({ containers: [inspected.id] });
    const [cidr] = entry?.addresses ?? [];
    if (entry === undefined || cidr === undefined) return undefined;
    return rewriteInspect(text, {
      mac: formatMac(entry.mac),
      address: formatIpv4(cidr.address),
      prefixLength: cidr.prefixLength,
    });
  }

  /** undefined: there is none, which the engine will say itself. */
  async #find(container: string): Promise<Inspected | undefined> {
    const path = `/containers/${encodeURIComponent(container)}/json`;
    return readInspected(await asked(askEngineFor(path)));
  }
}

function checkAddresses(words: readonly string[]): void {
  try {
    for (const token of readAddresses(words)) if (token.kind === "given") checkGivenAddress(token.cidr);
  } catch (error) {
    throw new Refusal(400, (error as Error).message);
  }
}

/** One that was made before all of ours was removed from this host, say, may have lost it. */
function hasHelper({ pid, running }: Inspected): boolean {
  if (!running) return false;
  try {
    return Deno.statSync(`/proc/${pid}/root${HELPER_ENTRYPOINT}`).isFile;
  } catch {
    return false;
  }
}

/** What our own questions to the engine end with, if they do not end well. */
async function asked<T>(question: Promise<T>): Promise<T> {
  try {
    return await question;
  } catch (error) {
    if (error instanceof OperationError) throw new Refusal(500, error.message);
    throw error;
  }
}
