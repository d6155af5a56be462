/**
 * `POST /containers/create`: a container that shall be in the network is held until it is, and told how to look names up. Also what an
 * old client may send with `POST /containers/{id}/start`, which replaces what was said at its creation.
 */
import { ATTACH_LABEL, HELPER_ENTRYPOINT, HELPER_MOUNT, type NetworkWords } from "./container.ts";
import type { HostnameRule } from "./hostname.ts";
import { get, getObject, getText, getTexts, isObject, type Json, type JsonObject, parseJson, set } from "./json.ts";

/** Where the container looks names up. */
export interface NameServer {
  /** Of our DNS server. */
  readonly address: string;
  /** Without its final dot. */
  readonly domain: string;
}

/** What its image says. */
export interface ImageConfig {
  readonly entrypoint: readonly string[];
  readonly cmd: readonly string[];
  readonly env: readonly string[];
}

export interface CreateOptions {
  /** As `?name=` says; may be empty. */
  readonly name: string;
  readonly image: ImageConfig;
  /** The folder of this host with the program that holds it; undefined: there is none, and it is marked instead. */
  readonly helper: string | undefined;
  readonly dns: NameServer | undefined;
  readonly hostname: HostnameRule;
}

/** Longer ones the kernel does not take: HOST_NAME_MAX. */
const MAX_HOSTNAME = 64;

/** undefined for what is no object; the engine will say so. */
export function readCreate(text: string): JsonObject | undefined {
  const body = parseJson(text);
  return isObject(body) ? body : undefined;
}

export function imageOf(body: JsonObject): string {
  return getText(body, "Image");
}

/** @param answer to `GET /images/{name}/json`, parsed */
export function readImage(answer: unknown): ImageConfig {
  const config = isObject(answer as Json) ? getObject(answer as JsonObject, "Config") ?? {} : {};
  return {
    entrypoint: words(config, "Entrypoint") ?? [],
    cmd: words(config, "Cmd") ?? [],
    env: getTexts(config, "Env") ?? [],
  };
}

/** @param image undefined: as far as the request says */
export function networkWords(body: JsonObject, image: ImageConfig | undefined): NetworkWords {
  return {
    networkMode: getText(getObject(body, "HostConfig") ?? {}, "NetworkMode"),
    env: [...image?.env ?? [], ...getTexts(body, "Env") ?? []],
  };
}

/** Changes `body`. `warning`: something could not be done. `"no command"`: there is nothing to run, in the request or the image. */
export function rewriteCreate(
  body: JsonObject,
  o: CreateOptions,
): { readonly warning: string | undefined } | "no command" {
  const { entrypoint, cmd } = commandOf(body, o.image);
  if (entrypoint.length === 0 && cmd.length === 0) return "no command";
  const hostConfig = ownObject(body, "HostConfig");
  if (o.helper === undefined) ownObject(body, "Labels")[ATTACH_LABEL] = "1";
  else {
    set(body, "Entrypoint", entrypoint[0] === HELPER_ENTRYPOINT ? entrypoint : [HELPER_ENTRYPOINT, ...entrypoint]);
    set(body, "Cmd", cmd);
    mountHelper(hostConfig, o.helper);
  }
  if (o.dns === undefined) return { warning: undefined };
  const name = labelled(body, o.hostname.label) || o.name;
  const hostname = o.hostname.apply(name);
  let warning: string | undefined;
  if (getText(body, "Hostname") === "" && hostname !== "") {
    if (hostname.length + 1 + o.dns.domain.length <= MAX_HOSTNAME) {
      set(body, "Hostname", hostname);
      set(body, "Domainname", o.dns.domain);
    } else {
      warning = `"${hostname}.${o.dns.domain}" is too long for a hostname: ${MAX_HOSTNAME} characters at most`;
    }
  }
  lookUpNames(hostConfig, o.dns, name === "" ? o.dns.domain : domainOf(body));
  return { warning };
}

/**
 * Changes `body` of a container that shall not be in the network, where its image was made of one that was: nothing holds it.
 * @returns whether it did
 */
export function releaseCreate(body: JsonObject, image: ImageConfig): boolean {
  const { entrypoint, cmd } = commandOf(body, image);
  if (entrypoint[0] !== HELPER_ENTRYPOINT) return false;
  set(body, "Entrypoint", entrypoint.slice(1));
  set(body, "Cmd", cmd);
  return true;
}

export interface StartOptions {
  /** Folders of this host; undefined: there is nothing to hold it with. */
  readonly helper: { readonly waits: string; readonly doesNotWait: string } | undefined;
  readonly dns: NameServer | undefined;
}

/** The text to send instead, for a container of ours; undefined: as it is. */
export function rewriteStart(text: string, o: StartOptions): Json | undefined {
  const body = parseJson(text);
  if (!isObject(body)) return undefined;
  const named = get(body, "HostConfig");
  const hostConfig = isObject(named) ? named : body;
  const mode = getText(hostConfig, "NetworkMode");
  const networked = mode !== "host" && !mode.startsWith("container:");
  if (o.helper !== undefined) mountHelper(hostConfig, networked ? o.helper.waits : o.helper.doesNotWait);
  if (o.dns !== undefined && networked) lookUpNames(hostConfig, o.dns, o.dns.domain);
  return body;
}

/** `POST /containers/{id}/exec`: the command waits too. undefined: as it is. */
export function rewriteExec(text: string): Json | undefined {
  const body = parseJson(text);
  if (!isObject(body)) return undefined;
  const cmd = words(body, "Cmd");
  if (cmd === undefined || cmd.length === 0 || cmd[0] === HELPER_ENTRYPOINT) return undefined;
  set(body, "Cmd", [HELPER_ENTRYPOINT, ...cmd]);
  return body;
}

/** What will run, by the engine's rules: `--entrypoint` takes the image's command away too. */
function commandOf(body: JsonObject, image: ImageConfig): { entrypoint: string[]; cmd: string[] } {
  const given = words(body, "Entrypoint");
  let cmd = words(body, "Cmd") ?? [];
  let entrypoint = given ?? [];
  if (entrypoint.length === 0) {
    if (cmd.length === 0) cmd = [...image.cmd];
    if (given === undefined) entrypoint = [...image.entrypoint];
  }
  // `--entrypoint ""`
  return { entrypoint: entrypoint.length === 1 && entrypoint[0] === "" ? [] : entrypoint, cmd };
}

/** A list, or a single text as old clients send it. */
function words(object: JsonObject, key: string): string[] | undefined {
  const value = get(object, key);
  return typeof value === "string" ? [value] : getTexts(object, key);
}

function mountHelper(hostConfig: JsonObject, folder: string): void {
  const others = (getTexts(hostConfig, "Binds") ?? []).filter((bind) => bind.split(":")[1] !== HELPER_MOUNT);
  set(hostConfig, "Binds", [...others, `${folder}:${HELPER_MOUNT}:ro`]);
}

function lookUpNames(hostConfig: JsonObject, dns: NameServer, search: string): void {
  const servers = (getTexts(hostConfig, "Dns") ?? []).filter((server) => server !== dns.address);
  set(hostConfig, "Dns", [...servers, dns.address]);
  if ((getTexts(hostConfig, "DnsSearch") ?? []).length === 0) set(hostConfig, "DnsSearch", [search]);
}

/** That of the container's own name: what resolvers take where they know that name whole. A dot where it has none: no list at all. */
function domainOf(body: JsonObject): string {
  const [, domain] = /^[^.]+\.(.+)$/.exec(getText(body, "Hostname")) ?? [];
  return getText(body, "Domainname") || (domain ?? ".");
}

function labelled(body: JsonObject, label: string | undefined): string {
  // Its key is the user's own: upper and lower case differ.
  const value = label === undefined ? undefined : getObject(body, "Labels")?.[label];
  return typeof value === "string" ? value : "";
}

/** The object under this key, which is there afterwards. */
function ownObject(object: JsonObject, key: string): JsonObject {
  const there = getObject(object, key);
  if (there !== undefined) return there;
  const made: JsonObject = {};
  set(object, key, made);
  return made;
}
