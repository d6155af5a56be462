/** What `launch` is told of the Docker API proxy: where it listens, how it proves who it is, and what it does to containers. */
import { resolve } from "node:path";
import { OptionError } from "../lib/errors.ts";
import type { ListenAddress } from "../lib/listen_address.ts";
import { HostnameRule } from "../proxy/hostname.ts";
import { unusable } from "./option.ts";

export interface ProxyOptions {
  /** Never empty, in the order given. */
  readonly listen: readonly ProxyEndpoint[];
  /** Of TCP listeners, and of the engine where that is reached over TCP; undefined: in clear. */
  readonly tls: TlsFiles | undefined;
  /** Where it is not said, the engine's own command line is asked. */
  readonly detectTls: boolean;
  readonly withoutDns: boolean;
  readonly noMulticastRoute: boolean;
  readonly rewriteHosts: boolean;
  /** Containers that do not say `WEAVE_CIDR` are left alone. */
  readonly noDefaultIpalloc: boolean;
  readonly hostname: HostnameRule;
  readonly rewriteInspect: boolean;
}

export interface ProxyEndpoint {
  /** As it was written, with its scheme: what `DOCKER_HOST` must be. */
  readonly text: string;
  readonly address: ListenAddress;
}

/** Absolute paths. */
export interface TlsFiles {
  readonly ca: string | undefined;
  readonly cert: string;
  readonly key: string;
  /** Clients need a certificate of that CA. */
  readonly verify: boolean;
}

/** The one socket that is served; other paths lead to it. */
export const PROXY_SOCKET = "/var/run/weave/weave.sock";
const PROXY_PORT = 12375;

/** Without a proxy: for containers that were made to be attached whenever they start. */
export const NO_PROXY: ProxyOptions = {
  listen: [],
  tls: undefined,
  detectTls: false,
  withoutDns: false,
  noMulticastRoute: false,
  rewriteHosts: true,
  noDefaultIpalloc: false,
  hostname: new HostnameRule({ label: undefined, match: "(.*)", replacement: "$1" }),
  rewriteInspect: false,
};

/** Values as `readOptions` gives them. */
export interface ProxyValues {
  readonly proxy: boolean;
  readonly proxyListen: readonly string[];
  readonly noDetectTls: boolean;
  readonly withoutDns: boolean;
  readonly noMulticastRoute: boolean;
  readonly noRewriteHosts: boolean;
  readonly noDefaultIpalloc: boolean;
  readonly hostnameFromLabel: string | undefined;
  readonly hostnameMatch: string;
  readonly hostnameReplacement: string;
  readonly rewriteInspect: boolean;
  readonly tls: boolean;
  readonly tlsverify: boolean;
  readonly tlscacert: string | undefined;
  readonly tlscert: string | undefined;
  readonly tlskey: string | undefined;
}

/** undefined: `--proxy=false`. Throws `OptionError`. */
export function readProxyOptions(v: ProxyValues, env: (name: string) => string | undefined): ProxyOptions | undefined {
  if (!v.proxy) return undefined;
  const listen = (v.proxyListen.length > 0 ? v.proxyListen : [defaultEndpoint(env)]).map(parseProxyEndpoint);
  return {
    listen,
    tls: readTls(v, env),
    detectTls: !v.noDetectTls,
    withoutDns: v.withoutDns,
    noMulticastRoute: v.noMulticastRoute,
    rewriteHosts: !v.noRewriteHosts,
    noDefaultIpalloc: v.noDefaultIpalloc,
    hostname: readHostnameRule(v),
    rewriteInspect: v.rewriteInspect,
  };
}

/** As Docker itself is reached. */
function defaultEndpoint(env: (name: string) => string | undefined): string {
  const host = env("DOCKER_HOST") ?? "";
  return host === "" || host.startsWith("unix://") ? `unix://${PROXY_SOCKET}` : `tcp://0.0.0.0:${PROXY_PORT}`;
}

/** `[tcp://][IP]:PORT` or `[unix://]/PATH`. */
export function parseProxyEndpoint(text: string): ProxyEndpoint {
  const path = /^unix:\/\/(.*)$/.exec(text)?.[1] ?? (text.startsWith("/") ? text : undefined);
  if (path !== undefined) {
    if (!path.startsWith("/")) {
      throw unusable("proxy-listen", text, "unix sockets must be specified as an absolute path");
    }
    return { text: `unix://${path}`, address: { transport: "unix", path } };
  }
  const [, host, digits] = /^(?:tcp:\/\/)?([^:/\s]*):(\d{1,5})\/?$/.exec(text) ?? [];
  const port = Number(digits);
  if (host === undefined || port === 0 || port > 65535) {
    throw unusable("proxy-listen", text, "tcp://IP:PORT or unix:///PATH expected");
  }
  const hostname = host === "" ? "0.0.0.0" : host;
  return { text: `tcp://${hostname}:${port}`, address: { transport: "tcp", hostname, port } };
}

function readTls(v: ProxyValues, env: (name: string) => string | undefined): TlsFiles | undefined {
  // As with Docker's own options, naming a file does not switch it on.
  if (!v.tls && !v.tlsverify) return undefined;
  const folder = env("DOCKER_CERT_PATH") || `${env("HOME") || "/root"}/.docker`;
  return {
    verify: v.tlsverify,
    ca: v.tlscacert === undefined ? v.tlsverify ? `${folder}/ca.pem` : undefined : resolve(v.tlscacert),
    cert: resolve(v.tlscert ?? `${folder}/cert.pem`),
    key: resolve(v.tlskey ?? `${folder}/key.pem`),
  };
}

function readHostnameRule(v: ProxyValues): HostnameRule {
  try {
    return new HostnameRule({ label: v.hostnameFromLabel, match: v.hostnameMatch, replacement: v.hostnameReplacement });
  } catch (error) {
    throw new OptionError(
      `Cannot use "${v.hostnameMatch}" as hostname-match: ${(error as Error).message}`,
      "hostname-match",
    );
  }
}
