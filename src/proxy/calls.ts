/** Which calls of Docker's API we take part in; all others go through as they are. */

export type Call =
  | { readonly call: "create"; /** As `?name=` says; empty: Docker makes one up. */ readonly name: string }
  | {
    readonly call: "start";
    readonly container: string;
    /** Of an API in which it may say how the container runs; later ones take no such words. */
    readonly withSettings: boolean;
  }
  | { readonly call: "restart"; readonly container: string }
  | { readonly call: "exec"; readonly container: string }
  | { readonly call: "inspect"; readonly container: string }
  | { readonly call: "inspectExec"; readonly exec: string }
  | { readonly call: "other" };

const OTHER: Call = { call: "other" };

/** @param target of the request line: path and query, with or without a version in front */
export function readCall(method: string, target: string): Call {
  const [path, query = ""] = split(target, "?");
  const unversioned = path.replace(/^\/v\d+(\.\d+)*(?=\/)/, "");
  if (method === "POST") {
    if (unversioned === "/containers/create") {
      return { call: "create", name: (new URLSearchParams(query).get("name") ?? "").replace(/^\//, "") };
    }
    const [, container, verb] = /^\/containers\/(.+)\/(start|restart|exec)$/.exec(unversioned) ?? [];
    const name = decode(container);
    if (name === undefined) return OTHER;
    if (verb === "start") return { call: verb, container: name, withSettings: isBefore(path, 1, 24) };
    return { call: verb as "restart" | "exec", container: name };
  }
  if (method === "GET") {
    const [, kind, id] = /^\/(containers|exec)\/(.+)\/json$/.exec(unversioned) ?? [];
    const name = decode(id);
    if (name === undefined) return OTHER;
    return kind === "exec" ? { call: "inspectExec", exec: name } : { call: "inspect", container: name };
  }
  return OTHER;
}

/** A path without a version means the engine's own. */
function isBefore(path: string, major: number, minor: number): boolean {
  const [, ofMajor, ofMinor] = /^\/v(\d+)\.(\d+)/.exec(path) ?? [];
  if (ofMajor === undefined) return false;
  return Number(ofMajor) < major || Number(ofMajor) === major && Number(ofMinor) < minor;
}

function split(text: string, at: string): [string, string?] {
  const index = text.indexOf(at);
  return index < 0 ? [text] : [text.slice(0, index), text.slice(index + 1)];
}

/** A name may come with the slash that Docker puts in front of it. */
function decode(segment: string | undefined): string | undefined {
  if (segment === undefined) return undefined;
  try {
    return decodeURIComponent(segment).replace(/^\//, "") || undefined;
  } catch {
    return undefined;
  }
}
