/**
 * What stands between the API and the daemon: the daemon implements `RouterControl`, and hands over how its report is put into
 * words. Paths, parameters and texts are Weave Net 2.8's. What is ours: with `Accept: application/json` (exactly) on `/status`
 * and below it the answer is JSON, and is the same snapshot.
 *
 * The text of `GET /status` begins with the first label and ends with one line end: the blank lines around it that
 * `weave status` prints are the command's.
 */
import type { Cidr } from "../lib/ip.ts";
import type { Report } from "../daemon/status.ts";

/** What the API may ask of a running router. A rejected promise answers 500 with the error's message. */
export interface RouterControl {
  /** A fresh snapshot. Called once a request, so it must be cheap. */
  report(): Report;
  /**
   * Adds targets, or replaces them all, and dials at once. Names that cannot be used are told, one line each, and the others are
   * added all the same.
   */
  connect(peers: readonly string[], options: { readonly replace: boolean }): Promise<ConnectResult>;
  /** Takes targets away that were given by exactly these texts; unknown ones are ignored. */
  forget(peers: readonly string[]): Promise<void>;
  /** Gives the host an address on the overlay. A message of its error follows `unable to expose: `. */
  expose(cidr: Cidr, options: { readonly skipNat: boolean }): Promise<void>;
  /** Hands our address space to others, before `reset`; nothing where there is no address allocation. */
  leave(): Promise<void>;
  /** Takes the address space of a peer (name or nickname) that is gone; how many addresses, undefined without allocation. */
  removePeer(id: string): Promise<number | undefined>;
  /** Endpoints of further parts: addresses (`/ip…`, `/ring`), names (`/name…`, `/domain`). What is absent answers 404. */
  readonly routes?: readonly Route[];
}

export interface ConnectResult {
  readonly errors: readonly string[];
}

const STATUS_VIEWS = ["main", "targets", "connections", "peers", "dns", "ipam"] as const;
/** `main` is `/status` itself, the others are below it. */
export type StatusView = typeof STATUS_VIEWS[number];

/** The report in words. `REPORT_VIEWS` of src/daemon/status.ts is all of it. */
export interface ReportViews {
  /** JSON of the whole, indented by 4 spaces. */
  report(report: Report): string;
  /** Whole lines, or nothing. */
  text(view: StatusView, report: Report): string;
  json(view: StatusView, report: Report): string;
  /** Prometheus text exposition. */
  metrics(report: Report): string;
  /** What `weave report -f` prints; never throws for what a user may write. */
  template(template: string, report: Report): TemplateResult;
}

export type TemplateResult =
  | { readonly ok: true; readonly text: string }
  /** A template that cannot be parsed is the user's mistake, one that cannot be executed here may work elsewhere. */
  | { readonly ok: false; readonly stage: "parse" | "execute"; readonly message: string };

/** One endpoint. */
export interface Route {
  readonly method: "GET" | "POST" | "PUT" | "DELETE";
  /** As in `/expose/{ip}/{prefixlen}`: a name in braces stands for one segment, which arrives decoded. */
  readonly path: string;
  /** Refused unless the client is root: the control API has no password. */
  readonly root?: true;
  /** Its body may be that of a large file, from root. */
  readonly large?: true;
  readonly handle: (request: ApiRequest) => ApiAnswer | Promise<ApiAnswer>;
}

export interface ApiRequest {
  /** Segments that stand for the braces of the path. */
  readonly segments: Readonly<Record<string, string>>;
  /** Parameters of the query, and of an urlencoded body except for DELETE. */
  readonly parameters: URLSearchParams;
  /** Whether the `Accept` header is exactly `application/json`. */
  readonly wantsJson: boolean;
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal;
}

export interface ApiAnswer {
  readonly status: number;
  readonly body?: string;
  /** Plain text where absent. */
  readonly contentType?: string;
}
