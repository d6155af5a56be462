/** `--rewrite-inspect`: what `docker inspect` shows of a container's network is ours. */
import { getObject, isObject, jsonInteger, parseJson, printJson, set } from "./json.ts";

export interface ShownAddress {
  readonly mac: string;
  readonly address: string;
  readonly prefixLength: number;
}

/** The answer to `GET /containers/{id}/json`, or to `GET /exec/{id}/json` of old engines; undefined: as it is. */
export function rewriteInspect(text: string, shown: ShownAddress): string | undefined {
  const answer = parseJson(text);
  if (!isObject(answer)) return undefined;
  const settings = getObject(answer, "NetworkSettings") ??
    getObject(getObject(answer, "Container") ?? {}, "NetworkSettings");
  if (settings === undefined) return undefined;
  set(settings, "MacAddress", shown.mac);
  set(settings, "IPAddress", shown.address);
  set(settings, "IPPrefixLen", jsonInteger(shown.prefixLength));
  return printJson(answer);
}

/** The container that an exec belongs to; empty where the answer does not say. */
export function containerOfExec(text: string): string {
  const answer = parseJson(text);
  if (!isObject(answer)) return "";
  const id = answer["ContainerID"] ?? getObject(answer, "Container")?.["ID"];
  return typeof id === "string" ? id : "";
}
