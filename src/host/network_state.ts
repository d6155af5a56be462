/** What is noted of an isolated network while its links are in its namespace: what they had, so that nothing is lost wherever we are killed. */
import { removeIfThere, StoreFile, type StoreFormat } from "./store.ts";
import { decodeLinkConfig, encodeLinkConfig, type LinkConfig } from "./link_config.ts";

/** A link that was moved, is being moved, or is being moved back. */
export interface MovedLink {
  readonly config: LinkConfig;
  /** It was switched on before it came. */
  readonly up: boolean;
  /** It has its config, in the namespace. Otherwise it may lack parts of it, wherever it is. */
  readonly settled: boolean;
  /** Sentences on what it lost on the way. */
  readonly warnings: readonly string[];
}

export interface NetworkState {
  readonly id: number;
  /** By name. */
  readonly links: Readonly<Record<string, MovedLink>>;
}

const PREFIX = "network-", SUFFIX = ".json";
/** Lists in a file are no longer than anybody's machine needs. */
const LINKS_LIMIT = 1000;

export class NetworkStateFile {
  readonly #file: StoreFile<NetworkState>;

  constructor(readonly folder: string, name: string) {
    this.#file = new StoreFile(`${folder}/${PREFIX}${name}${SUFFIX}`, FORMAT);
  }

  /** undefined where there is none. @throws OperationError where it cannot be understood */
  read(): Promise<NetworkState | undefined> {
    return this.#file.read();
  }

  write(state: NetworkState): Promise<void> {
    return this.#file.write(state);
  }

  async remove(): Promise<void> {
    await this.#file.remove();
    await removeIfThere(`${this.#file.path}.new`);
  }
}

/** Names of networks of which something is noted. */
export function listNetworkStates(folder: string): string[] {
  try {
    return [...Deno.readDirSync(folder)].map(({ name }) => name)
      .filter((name) => name.startsWith(PREFIX) && name.endsWith(SUFFIX))
      .map((name) => name.slice(PREFIX.length, -SUFFIX.length)).toSorted();
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return [];
    throw error;
  }
}

const FORMAT: StoreFormat<NetworkState> = {
  what: "network",
  major: 1,
  minor: 0,
  check: checkState,
  encode: ({ id, links }) => ({
    id,
    links: Object.entries(links).map(([name, { config, ...rest }]) => ({ name, ...rest, ...encodeLinkConfig(config) })),
  }),
};

function checkState(data: unknown): NetworkState {
  const { id, links } = (data ?? {}) as { id?: unknown; links?: unknown };
  if (typeof id !== "number" || !Number.isInteger(id) || id < 1 || id > 62) throw new Error("id: 1 to 62 expected");
  if (!Array.isArray(links) || links.length > LINKS_LIMIT) throw new Error("links: a list expected");
  return { id, links: Object.fromEntries(links.map(checkLink)) };
}

function checkLink(data: unknown): [string, MovedLink] {
  const { name, up, settled, warnings } = (data ?? {}) as { [key: string]: unknown };
  if (typeof name !== "string" || typeof up !== "boolean" || typeof settled !== "boolean") {
    throw new Error("links: name, up and settled expected");
  }
  if (!Array.isArray(warnings) || !warnings.every((one) => typeof one === "string")) {
    throw new Error("warnings: texts expected");
  }
  return [name, { up, settled, warnings, config: decodeLinkConfig(data) }];
}
