/**
 * The control API, and the read-only part of it on listeners of its own. Endpoints are Weave Net 2.8's, those of parts that are
 * not there answer 404.
 *
 * Nothing here asks for a password. So the control API listens on loopback only, and a request that a browser may have been
 * talked into is refused: by its `Origin`, and, against names that are made to point here, by its `Host`.
 */
import { OperationError } from "../lib/errors.ts";
import { type Cidr, parseIpv4 } from "../lib/ip.ts";
import type { ListenAddress } from "../lib/listen_address.ts";
import type { Logger } from "../lib/log.ts";
import type { Head, HttpRequest, HttpResponse } from "./http.ts";
import { HttpServer, type SocketEnds } from "./http_server.ts";
import { checkLocal, isLocal, listen, type Listening } from "./listen.ts";
import type { ApiAnswer, ApiRequest, ReportViews, Route, RouterControl, StatusView } from "./types.ts";

export interface ApiOptions {
  readonly control: RouterControl;
  readonly views: ReportViews;
  readonly log: Logger;
  /** The control API listens on loopback or a unix socket only; undefined: not at all, like the others. */
  readonly httpAddr: ListenAddress | undefined;
  readonly statusAddr: ListenAddress | undefined;
  readonly metricsAddr: ListenAddress | undefined;
  /** The user of the program at the other end of a TCP connection from this host; undefined: nobody can say. */
  readonly uidOf?: (client: Deno.NetAddr, server: Deno.NetAddr) => number | undefined;
  /** `POST /debug/spin?ms=…` keeps the main thread busy, for tests of the packet thread. */
  readonly spin?: boolean;
}

export interface ApiServer {
  /** Where it listens: what was asked for, with the port that was given out for port 0. */
  readonly httpAddr: ListenAddress | undefined;
  readonly statusAddr: ListenAddress | undefined;
  readonly metricsAddr: ListenAddress | undefined;
  /** Ends listening at once, and what is being answered within a second. */
  stop(): Promise<void>;
}

/** What a program that only reads may need: a socket of the status or metrics listener is open to every user. */
const READ_ONLY_MODE = 0o666;
/** What changes more than anybody may change: for root. */
const CONTROL_MODE = 0o700;
/** What the largest service file becomes. */
const LARGE_BODY_OCTETS = 8 * 1024 * 1024;
const MAX_SPIN_MS = 5_000;
const JSON_TYPE = "application/json";

interface Role {
  readonly purpose: string;
  readonly address: ListenAddress | undefined;
  readonly routes: readonly Route[];
  readonly socketMode?: number;
}

/**
 * Starts to listen. Throws OptionError for an address the control API must not have, OperationError with address and errno where
 * listening fails; then nothing is left listening.
 */
export function serveApi(options: ApiOptions): ApiServer {
  const { control, views, log, httpAddr, statusAddr, metricsAddr } = options;
  if (httpAddr !== undefined) checkLocal(httpAddr);
  const metrics = metricsRoutes(control, views);
  const reading = [...reportRoutes(control, views), ...metrics];
  const all = [...reading, ...controlRoutes(control), ...control.routes ?? [], ...options.spin ? [SPIN] : []];
  const roles: readonly Role[] = [
    { purpose: "the control API", address: httpAddr, routes: all, socketMode: CONTROL_MODE },
    { purpose: "status", address: statusAddr, routes: reading, socketMode: READ_ONLY_MODE },
    { purpose: "metrics", address: metricsAddr, routes: metrics, socketMode: READ_ONLY_MODE },
  ];
  const opened = openAll(roles);
  const servers = roles.flatMap(({ routes }, i) => {
    const { listener, address } = opened[i] ?? {};
    if (listener === undefined || address === undefined) return [];
    const handle = handlerFor(routes, { anyHost: !isLocal(address), isRoot: (ends) => isRoot(ends, options), log });
    const large = new Set(routes.filter((route) => route.large === true).map(({ path }) => path));
    const bodyLimit = ({ target }: Head, ends: SocketEnds) =>
      large.has(target) && isRoot(ends, options) ? LARGE_BODY_OCTETS : undefined;
    return [new HttpServer(listener, { handle, bodyLimit, log })];
  });
  return {
    httpAddr: opened[0]?.address,
    statusAddr: opened[1]?.address,
    metricsAddr: opened[2]?.address,
    async stop() {
      await Promise.all(servers.map((server) => server.stop()));
    },
  };
}

/** One each, undefined for a role without an address; all or none. */
function openAll(roles: readonly Role[]): (Listening | undefined)[] {
  const opened: (Listening | undefined)[] = [];
  try {
    for (const { purpose, address, socketMode } of roles) {
      opened.push(address && listen(address, purpose));
      if (address?.transport === "unix" && socketMode !== undefined) Deno.chmodSync(address.path, socketMode);
    }
    return opened;
  } catch (error) {
    opened.forEach((one) => one?.listener.close());
    throw error;
  }
}

function reportRoutes(control: RouterControl, views: ReportViews): Route[] {
  const status = (path: string, view: StatusView): Route => ({
    method: "GET",
    path,
    handle({ wantsJson }) {
      const report = control.report();
      const status = report.Ready ? 200 : 503;
      if (!wantsJson) return { status, body: views.text(view, report) };
      return { status, body: views.json(view, report), contentType: JSON_TYPE };
    },
  });
  return [
    { method: "GET", path: "/report", handle: (request) => answerReport(request, control, views) },
    status("/status", "main"),
    status("/status/targets", "targets"),
    status("/status/connections", "connections"),
    status("/status/peers", "peers"),
    status("/status/dns", "dns"),
    status("/status/ipam", "ipam"),
  ];
}

function answerReport({ wantsJson, parameters }: ApiRequest, control: RouterControl, views: ReportViews): ApiAnswer {
  if (wantsJson) return { status: 200, body: views.report(control.report()), contentType: JSON_TYPE };
  const formats = parameters.getAll("format");
  if (formats.length !== 1) return { status: 400, body: "error: must supply one format parameter\n" };
  const result = views.template(formats[0]!, control.report());
  if (result.ok) return { status: 200, body: result.text };
  return { status: result.stage === "parse" ? 400 : 500, body: `${result.message}\n` };
}

function metricsRoutes(control: RouterControl, views: ReportViews): Route[] {
  return [{
    method: "GET",
    path: "/metrics",
    handle: () => ({
      status: 200,
      body: views.metrics(control.report()),
      contentType: "text/plain; version=0.0.4; charset=utf-8",
    }),
  }];
}

function controlRoutes(control: RouterControl): Route[] {
  return [
    {
      method: "POST",
      path: "/connect",
      async handle({ parameters }) {
        const peers = parameters.getAll("peer");
        const { errors } = await control.connect(peers, { replace: parameters.get("replace") === "true" });
        return errors.length === 0 ? { status: 200 } : { status: 400, body: errors.map((e) => `${e}\n`).join("") };
      },
    },
    {
      method: "POST",
      path: "/forget",
      async handle({ parameters }) {
        await control.forget(parameters.getAll("peer"));
        return { status: 200 };
      },
    },
    { method: "POST", path: "/expose/{ip}/{prefixlen}", handle: (request) => answerExpose(request, control) },
    {
      method: "DELETE",
      path: "/peer",
      async handle() {
        await control.leave();
        return { status: 204 };
      },
    },
    {
      method: "DELETE",
      path: "/peer/{id}",
      async handle({ segments: { id } }) {
        const taken = await control.removePeer(id!);
        return taken === undefined ? { status: 200 } : { status: 200, body: `${taken} IPs taken over from ${id}\n` };
      },
    },
  ];
}

async function answerExpose({ segments, parameters }: ApiRequest, control: RouterControl): Promise<ApiAnswer> {
  const cidr = hostCidr(segments["ip"]!, segments["prefixlen"]!);
  if (cidr === undefined) {
    return { status: 400, body: `invalid address: ${segments["ip"]}/${segments["prefixlen"]}\n` };
  }
  const skipNat = parseBoolean(parameters.get("skipNAT") ?? "false");
  if (skipNat === undefined) {
    return { status: 400, body: `invalid skipNAT: "${parameters.get("skipNAT")}" is neither true nor false\n` };
  }
  try {
    await control.expose(cidr, { skipNat });
  } catch (error) {
    return { status: 500, body: `unable to expose: ${messageOf(error)}\n` };
  }
  return { status: 204 };
}

function hostCidr(ip: string, prefixLength: string): Cidr | undefined {
  const address = parseIpv4(ip);
  if (address === undefined || !/^\d{1,2}$/.test(prefixLength) || Number(prefixLength) > 32) return undefined;
  return { address, prefixLength: Number(prefixLength) };
}

/** The words Go's `strconv.ParseBool` takes. */
function parseBoolean(text: string): boolean | undefined {
  if (/^(1|t|T|true|TRUE|True)$/.test(text)) return true;
  return /^(0|f|F|false|FALSE|False)$/.test(text) ? false : undefined;
}

const SPIN: Route = {
  method: "POST",
  path: "/debug/spin",
  handle({ parameters }) {
    const ms = Math.min(Number(parameters.get("ms")), MAX_SPIN_MS);
    if (!(ms > 0)) return { status: 400, body: "ms: must be a number above 0\n" };
    const until = performance.now() + ms;
    while (performance.now() < until);
    return { status: 204 };
  },
};

interface Surroundings {
  readonly anyHost: boolean;
  readonly isRoot: (ends: SocketEnds) => boolean;
  readonly log: Logger;
}

/** Whoever can connect with a socket in the file system may: its mode says who that is. */
function isRoot({ local, remote }: SocketEnds, { uidOf }: ApiOptions): boolean {
  if (local.transport === "unix") return true;
  return remote.transport === "tcp" && local.transport === "tcp" && uidOf?.(remote, local) === 0;
}

/** What serves these routes over HTTP. It never rejects. */
function handlerFor(routes: readonly Route[], { anyHost, isRoot, log }: Surroundings) {
  return async (request: HttpRequest, signal: AbortSignal, ends: SocketEnds): Promise<HttpResponse> => {
    const [path, query] = splitTarget(request.target);
    const found = refusalOf(request, anyHost) ?? findRoute(routes, request.method, path);
    if ("status" in found) return found;
    const { route, segments } = found;
    if (route.root === true && !isRoot(ends)) return { status: 403, body: "needs root: sudo weave …\n" };
    const wantsJson = request.headers.get("accept") === JSON_TYPE;
    try {
      return responseOf(await route.handle({ segments, parameters: parametersOf(request, query), wantsJson, signal }));
    } catch (error) {
      if (!(error instanceof OperationError)) {
        log.error("api request failed", { name: `${request.method} ${route.path}`, error: String(error) });
      }
      return { status: 500, body: `${messageOf(error)}\n` };
    }
  };
}

/** A browser sends the page's origin, and the name by which the page was told to find us. */
function refusalOf({ headers }: HttpRequest, anyHost: boolean): HttpResponse | undefined {
  if (headers.has("origin")) return { status: 403, body: "Requests with an Origin are refused\n" };
  if (anyHost || isLoopbackHost(headers.get("host") ?? "")) return undefined;
  return { status: 403, body: "Host must be a loopback name or address\n" };
}

interface FoundRoute {
  readonly route: Route;
  readonly segments: Readonly<Record<string, string>>;
}

function findRoute(routes: readonly Route[], method: string, path: string): FoundRoute | HttpResponse {
  const segments = path.split("/").map(decodeSegment);
  if (!segments.every((segment) => segment !== undefined)) return { status: 400, body: "Malformed path\n" };
  const found = routes.flatMap((route): FoundRoute[] => {
    const matched = matchSegments(route.path.split("/"), segments);
    return matched === undefined ? [] : [{ route, segments: matched }];
  });
  if (found.length === 0) return { status: 404, body: "404 page not found\n" };
  const wanted = method === "HEAD" ? "GET" : method;
  const allowed = found.map(({ route }) => route.method).join(", ");
  return found.find(({ route }) => route.method === wanted) ?? { status: 405, headers: { "Allow": allowed } };
}

/** `localhost`, an address of 127.0.0.0/8 or `[::1]`, with any port. */
function isLoopbackHost(host: string): boolean {
  const name = host.replace(/:\d*$/, "").toLowerCase();
  if (name === "localhost" || name === "[::1]") return true;
  const address = parseIpv4(name);
  return address !== undefined && address >>> 24 === 127;
}

function splitTarget(target: string): [path: string, query: string] {
  const mark = target.indexOf("?");
  return mark < 0 ? [target, ""] : [target.slice(0, mark), target.slice(mark + 1)];
}

function decodeSegment(segment: string): string | undefined {
  try {
    return decodeURIComponent(segment);
  } catch {
    return undefined;
  }
}

function matchSegments(pattern: readonly string[], segments: readonly string[]): Record<string, string> | undefined {
  if (pattern.length !== segments.length) return undefined;
  const matched: Record<string, string> = {};
  for (const [i, part] of pattern.entries()) {
    const segment = segments[i]!;
    if (!part.startsWith("{")) {
      if (part !== segment) return undefined;
    } else if (segment === "") {
      return undefined;
    } else {
      matched[part.slice(1, -1)] = segment;
    }
  }
  return matched;
}

/** Those of the body come first, as in Go. */
function parametersOf({ method, headers, body }: HttpRequest, query: string): URLSearchParams {
  const parameters = new URLSearchParams();
  const type = /^[^;\s]*/.exec(headers.get("content-type") ?? "")![0].toLowerCase();
  if (method !== "DELETE" && type === "application/x-www-form-urlencoded") {
    for (const [name, value] of new URLSearchParams(new TextDecoder().decode(body))) parameters.append(name, value);
  }
  for (const [name, value] of new URLSearchParams(query)) parameters.append(name, value);
  return parameters;
}

function responseOf({ status, body, contentType }: ApiAnswer): HttpResponse {
  return {
    status,
    ...contentType === undefined ? {} : { headers: { "Content-Type": contentType } },
    ...body === undefined ? {} : { body },
  };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
