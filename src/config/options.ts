/**
 * Every option of the router and of the commands, once: flag, other spellings, environment variable, default, help.
 *
 *     flags of a command line ─┐
 *                              ├─ Given (texts) ─ readOptions() ─ RouterOptions (values, complete)
 *     environment variables ───┘
 */
import { resolve } from "node:path";
import { OptionError } from "../lib/errors.ts";
import type { Cidr, Endpoint, Ipv4 } from "../lib/ip.ts";
import type { ListenAddress } from "../lib/listen_address.ts";
import type { Level } from "../lib/log.ts";
import type { PeerName } from "../lib/mac.ts";
import { type IpamOptions, readIpamOptions } from "./ipam_options.ts";
import { PLUGIN_MESH_SOCKET, PLUGIN_SOCKET, type PluginOptions, readPluginOptions } from "./plugin_options.ts";
import { type ProxyOptions, readProxyOptions } from "./proxy_options.ts";
import { NETWORK, type NetworkOption } from "./service_options.ts";
import {
  address,
  domain,
  duration,
  endpoint,
  type Given,
  later,
  listenAddress,
  oneOf,
  type Option,
  type Options,
  peerName,
  readOptions,
  subnets,
  text,
  texts,
  toggle,
  wholeNumber,
} from "./option.ts";

/** Everything a router has to be told, resolved and checked: flags, environment and defaults are behind it. */
export interface RouterOptions {
  /** undefined: as the host's bridge, state or ids say. */
  readonly name: PeerName | undefined;
  readonly nickname: string;
  /** TCP and UDP, the control connections and the sleeve; the default port of targets. */
  readonly port: number;
  /** Address to listen at and to dial from; undefined: all. */
  readonly host: Ipv4 | undefined;
  /** Never empty, never logged. */
  readonly password: string | undefined;
  /** Peers of the command line, as written. Stored targets win over them at a restart. */
  readonly targets: readonly string[];
  /** Use the stored targets; `targets` is empty then. */
  readonly resume: boolean;
  readonly discovery: boolean;
  /** 0: no limit. */
  readonly connLimit: number;
  readonly trustedSubnets: readonly Cidr[];
  readonly minProtocolVersion: number;
  /** undefined: the default of `overlayMtu()`. */
  readonly mtu: number | undefined;
  readonly noFastdp: boolean;
  /** undefined, of each of the three: does not listen. */
  readonly httpAddr: ListenAddress | undefined;
  readonly statusAddr: ListenAddress | undefined;
  readonly metricsAddr: ListenAddress | undefined;
  /** P of the state files `P-*`, absolute. */
  readonly dbPrefix: string;
  readonly dockerBridge: string;
  /** undefined: the first address of that bridge. */
  readonly dockerBridgeIp: Ipv4 | undefined;
  /** undefined: addresses are not allocated. */
  readonly ipam: IpamOptions | undefined;
  readonly noDns: boolean;
  /** Besides Docker's bridge and what is exposed; undefined: nowhere else. */
  readonly dnsListenAddress: Endpoint | undefined;
  /** With its final dot. */
  readonly dnsDomain: string;
  /** Seconds. */
  readonly dnsTtl: number;
  readonly dnsFallbackTimeoutMs: number;
  readonly dnsGraceMs: number;
  /** Absolute, or empty: no other servers. */
  readonly resolvConf: string;
  /** undefined: there are no drivers for Docker's networks. */
  readonly plugin: PluginOptions | undefined;
  /** undefined: there is no Docker API proxy. */
  readonly proxy: ProxyOptions | undefined;
  /** Networks besides the mesh and the host's own, for services. */
  readonly networks: readonly NetworkOption[];
  readonly logLevel: Level;
  readonly logFormat: "text" | "json";
  /** Ids and keys of a recorded router, only in tests. */
  readonly testIdentity: TestIdentity | undefined;
  /** The control API can be told to keep the main thread busy, only in tests (`WEAVE_TEST_SPIN`). */
  readonly testSpin: boolean;
}

/** What a router normally draws at random. `WEAVE_TEST_IDENTITY` holds it as JSON, numbers as decimal and keys as hex text. */
export interface TestIdentity {
  readonly uid: bigint;
  readonly shortId: number;
  /** Of its connections, in the order they are made. */
  readonly connectionIds: readonly bigint[];
  /** For the session keys of its connections, in that order; 32 octets each. */
  readonly privateKeys: readonly Uint8Array[];
}

const LOOPBACK = "127.0.0.1";
const API_PORT = 6784;
const STATUS_PORT = 6782;

/** Where state is kept unless `--db-prefix` says otherwise. */
const DEFAULT_STATE_PREFIX = "/var/lib/weave/weave";

/** P of the state files. Also of `stop` and `reset`, for a router that does not run any more. */
export const DB_PREFIX = text({
  flag: "db-prefix",
  value: "PATH",
  default: DEFAULT_STATE_PREFIX,
  help: "state is kept in files PATH-*",
  kind: "rare",
});

/** Where the router's API is: `launch` serves it there, every other command asks there. */
export const HTTP_ADDR = listenAddress({
  flag: "http-addr",
  env: "WEAVE_HTTP_ADDR",
  default: { transport: "tcp", hostname: LOOPBACK, port: API_PORT },
  help: "control API; it has no password",
  kind: "rare",
});

export const DOCKER_BRIDGE = text({
  flag: "docker-bridge",
  env: "DOCKER_BRIDGE",
  value: "NAME",
  default: "docker0",
  help: "Docker's bridge",
  kind: "rare",
});

export const DOCKER_BRIDGE_IP = address({
  flag: "docker-bridge-ip",
  env: "DOCKER_BRIDGE_IP",
  help: "its address",
  kind: "rare",
});

export const PASSWORD = text({
  flag: "password",
  aliases: ["-password"],
  env: "WEAVE_PASSWORD",
  value: "TEXT",
  default: undefined,
  help: "encrypt everything; better given as WEAVE_PASSWORD",
});

/** What `runRouter` takes; the names are those of `RouterOptions`. */
export const ROUTER = {
  password: PASSWORD,
  trustedSubnets: subnets({
    flag: "trusted-subnets",
    help: "frames in clear to hosts there, if they agree",
  }),
  port: wholeNumber({
    flag: "port",
    aliases: ["-port"],
    env: "WEAVE_PORT",
    value: "N",
    default: 6783,
    from: 1,
    to: 65535,
    help: "TCP and UDP port, the same on all hosts",
  }),
  host: address({ flag: "host", help: "listen at this address only" }),
  name: peerName({ flag: "name", help: "peer name; taken from the machine's ids" }),
  nickname: text({ flag: "nickname", value: "TEXT", default: undefined, help: "name for people; the host's name" }),
  resume: toggle({ flag: "resume", help: "connect to the peers of the last time", kind: "rare" }),
  noDiscovery: toggle({ flag: "no-discovery", help: "connect to the given peers only" }),
  connLimit: wholeNumber({
    flag: "conn-limit",
    aliases: ["--connlimit"],
    value: "N",
    default: 200,
    from: 0,
    to: 1_000_000,
    help: "most connections; 0 is no limit",
    kind: "rare",
  }),
  mtu: wholeNumber({
    flag: "mtu",
    env: "WEAVE_MTU",
    value: "N",
    default: undefined,
    from: 576,
    to: 65535,
    help: "MTU of containers; 1376",
  }),
  noFastdp: toggle({ flag: "no-fastdp", env: "WEAVE_NO_FASTDP", help: "MTU of 65535 in containers", kind: "rare" }),
  minProtocolVersion: wholeNumber({
    flag: "min-protocol-version",
    value: "N",
    default: 2,
    from: 1,
    to: 2,
    help: "refuse older routers",
    kind: "rare",
  }),
  httpAddr: HTTP_ADDR,
  statusAddr: listenAddress({
    flag: "status-addr",
    env: "WEAVE_STATUS_ADDR",
    default: { transport: "tcp", hostname: LOOPBACK, port: STATUS_PORT },
    help: "status and metrics, read only",
    kind: "rare",
  }),
  metricsAddr: listenAddress({ flag: "metrics-addr", default: undefined, help: "metrics alone", kind: "rare" }),
  dbPrefix: DB_PREFIX,
  dockerBridge: DOCKER_BRIDGE,
  dockerBridgeIp: DOCKER_BRIDGE_IP,
  ipallocRange: text({
    flag: "ipalloc-range",
    aliases: ["--iprange", "-iprange"],
    value: "CIDR",
    default: undefined,
    help: "addresses to allocate, the same on all hosts",
  }),
  ipallocDefaultSubnet: text({
    flag: "ipalloc-default-subnet",
    value: "CIDR",
    default: undefined,
    help: "where no subnet is named; all of the range",
    kind: "rare",
  }),
  ipallocInit: text({
    flag: "ipalloc-init",
    value: "MODE",
    default: undefined,
    help: "consensus=N, seed=NAME,… or observer",
    kind: "rare",
  }),
  ipallocReclaim: duration({
    flag: "ipalloc-reclaim",
    default: undefined,
    // Less is no sign of having gone for good, and is not enough to make sure.
    from: 10 * 60_000,
    to: 365 * 86_400_000,
    example: "24h, 10m at least",
    help: "take over addresses of peers gone for so long",
    kind: "rare",
  }),
  noDns: toggle({ flag: "no-dns", help: "answer no DNS queries, and keep no names" }),
  dnsListenAddress: endpoint({
    flag: "dns-listen-address",
    defaultPort: 53,
    help: "answer DNS queries here too, not only at Docker's bridge and at exposed addresses",
    kind: "rare",
  }),
  dnsDomain: domain({
    flag: "dns-domain",
    default: "weave.local.",
    help: "domain of all names; weave.local",
    kind: "rare",
  }),
  dnsTtl: wholeNumber({
    flag: "dns-ttl",
    value: "SECONDS",
    default: 1,
    from: 0,
    to: 2_147_483_647,
    help: "how long answers may be kept; 1",
    kind: "rare",
  }),
  dnsFallbackTimeoutMs: duration({
    flag: "dns-fallback-timeout",
    default: 5_000,
    to: 3_600_000,
    help: "how long another DNS server may take; 5s",
    kind: "rare",
  }),
  dnsGraceMs: duration({
    flag: "dns-grace",
    default: 60_000,
    to: 30 * 86_400_000,
    help: "how long names of an unreachable peer are answered; 60s",
    kind: "rare",
  }),
  resolvConf: text({
    flag: "resolv-conf",
    value: "PATH",
    default: "/etc/resolv.conf",
    help: "where other DNS servers are named",
    kind: "rare",
  }),
  networks: NETWORK,
  plugin: toggle({ flag: "plugin", default: true, help: "serve networks to Docker; on", kind: "rare" }),
  proxy: toggle({
    flag: "proxy",
    default: true,
    help: "serve the Docker API and put new containers into the network; on",
    kind: "rare",
  }),
  proxyListen: texts({
    flag: "proxy-listen",
    aliases: ["-H"],
    value: "ENDPOINT",
    help: "where to: tcp://IP:PORT or unix:///PATH",
    kind: "rare",
  }),
  withoutDns: toggle({ flag: "without-dns", help: "its containers use other DNS servers", kind: "rare" }),
  noMulticastRoute: toggle({ flag: "no-multicast-route", help: "leave their route for multicast", kind: "rare" }),
  noRewriteHosts: toggle({ flag: "no-rewrite-hosts", help: "leave their /etc/hosts", kind: "rare" }),
  noDefaultIpalloc: toggle({
    flag: "no-default-ipalloc",
    help: "leave containers alone that do not say WEAVE_CIDR",
    kind: "rare",
  }),
  hostnameFromLabel: text({
    flag: "hostname-from-label",
    value: "KEY",
    default: undefined,
    help: "the label that names a container; its own name",
    kind: "rare",
  }),
  hostnameMatch: text({
    flag: "hostname-match",
    value: "REGEXP",
    default: "(.*)",
    help: "of its name, what becomes its hostname",
    kind: "rare",
  }),
  hostnameReplacement: text({
    flag: "hostname-replacement",
    value: "TEXT",
    default: "$1",
    help: "by what it is replaced",
    kind: "rare",
  }),
  rewriteInspect: toggle({
    flag: "rewrite-inspect",
    help: "docker inspect shows addresses in this network",
    kind: "rare",
  }),
  noDetectTls: toggle({ flag: "no-detect-tls", help: "do not look how Docker uses TLS", kind: "rare" }),
  tls: toggle({ flag: "tls", help: "the proxy speaks TLS", kind: "rare" }),
  tlsverify: toggle({ flag: "tlsverify", help: "and wants a certificate of its clients", kind: "rare" }),
  tlscacert: text({ flag: "tlscacert", value: "PATH", default: undefined, help: "signed by this one", kind: "rare" }),
  tlscert: text({ flag: "tlscert", value: "PATH", default: undefined, help: "its own certificate", kind: "rare" }),
  tlskey: text({ flag: "tlskey", value: "PATH", default: undefined, help: "and the key to it", kind: "rare" }),
  pluginSocket: text({
    flag: "plugin-socket",
    value: "PATH",
    default: PLUGIN_SOCKET,
    help: "of the driver for networks of a cluster; empty: none",
    kind: "rare",
  }),
  pluginMeshSocket: text({
    flag: "plugin-mesh-socket",
    value: "PATH",
    default: PLUGIN_MESH_SOCKET,
    help: "of the driver for networks of this host, and for addresses; empty: none",
    kind: "rare",
  }),
  pluginV2: toggle({ flag: "plugin-v2", help: "be a plugin that Docker manages", kind: "rare" }),
  pluginV2Multicast: toggle({ flag: "plugin-v2-multicast", help: "with multicast in its networks", kind: "rare" }),
  logLevel: oneOf<Level>({
    flag: "log-level",
    value: "LEVEL",
    default: "info",
    choices: ["debug", "info", "warn", "error"],
    also: { warning: "warn", trace: "trace" },
    help: "debug, info, warn or error",
  }),
  logFormat: oneOf<"text" | "json">({
    flag: "log-format",
    value: "FORMAT",
    default: "text",
    choices: ["text", "json"],
    help: "text or json",
    kind: "rare",
  }),
} as const satisfies Options;

/** What `launch` decides itself. */
export const LAUNCH = {
  noRestart: toggle({ flag: "no-restart", help: "do not start it again when it dies" }),
  container: toggle({ flag: "container", help: "run it as a container of Docker, named weave" }),
  foreground: toggle({ flag: "foreground", help: "stay, log to stderr; for service managers" }),
  version: toggle({ flag: "version", help: "print the version and do nothing else", kind: "hidden" }),
  printPeerName: toggle({ flag: "print-peer-name", help: "print the peer name and do nothing else", kind: "rare" }),
} as const satisfies Options;

/** Accepted by `launch` for the parts of Weave Net that this version does not have. */
export const LATER = {
  token: later("token", "TEXT"),
  peerDiscoveryUrl: later("peer-discovery-url", "URL"),
  advertiseAddress: later("advertise-address", "IP"),
  noBridgedFastdp: later("no-bridged-fastdp"),
  datapath: later("datapath", "NAME"),
  weaveBridge: later("weave-bridge", "NAME"),
  dockerApi: later("docker-api", "ENDPOINT"),
  hostRoot: later("host-root", "PATH"),
  procPath: later("proc-path", "PATH"),
  expectNpc: later("expect-npc"),
  noMasqLocal: later("no-masq-local"),
  awsvpc: later("awsvpc"),
  bufsz: later("bufsz", "MB"),
  profile: later("profile", "PATH"),
  pktDebug: later("pkt-debug", undefined, ["--pktdebug"]),
} as const satisfies Options;

/** Of commands that print. */
export const JSON_OUTPUT = toggle({ flag: "json", help: "print JSON, for programs" });
/** Every command does what `--local` once asked for. */
export const LOCAL = toggle({ flag: "local", help: "has no effect", kind: "hidden" });
export const HELP = toggle({ flag: "help", help: "show this", kind: "hidden" });

/** Of the other commands, each under the name its command uses. */
export const COMMAND = {
  replace: toggle({ flag: "replace", help: "forget the former peers first" }),
  follow: toggle({ flag: "follow", aliases: ["-f"], help: "go on with what is written from now on" }),
  format: text({
    flag: "format",
    aliases: ["-f"],
    value: "TEMPLATE",
    default: undefined,
    help: "print what this Go template makes of the report",
  }),
  restore: toggle({ flag: "restore", help: "print what undoes it" }),
  withoutDns: toggle({ flag: "without-dns", help: "register no name" }),
  rewriteHosts: toggle({ flag: "rewrite-hosts", help: "replace its /etc/hosts" }),
  noRewriteHosts: toggle({ flag: "no-rewrite-hosts", help: "leave its /etc/hosts" }),
  addHost: texts({ flag: "add-host", value: "NAME:IP", help: "a line more in /etc/hosts, with --rewrite-hosts" }),
  noMulticastRoute: toggle({ flag: "no-multicast-route", help: "leave its route for multicast" }),
  hostname: text({ flag: "hostname", value: "FQDN", default: undefined, help: "its name, where Docker knows none" }),
  exposeName: texts({ flag: "hostname", aliases: ["-h"], value: "FQDN", help: "name these addresses" }),
  record: texts({ flag: "record", value: "RECORD", help: 'another record: "SRV 0 5 80 web.weave.local", "TXT hello"' }),
  withoutMasquerade: toggle({ flag: "without-masquerade", help: "keep source addresses of what comes from outside" }),
  remove: toggle({ flag: "remove", help: "undo it" }),
  force: toggle({ flag: "force", help: "accepted; a router that does not run is reset all the same" }),
} as const satisfies Options;

/** What is outside the command line. */
export interface Surroundings {
  env(name: string): string | undefined;
  hostname(): string;
}

/** @param given completed by `withEnvironment(ROUTER, …)`. Throws `OptionError`. */
export function routerOptions(given: Given, targets: readonly string[], around: Surroundings): RouterOptions {
  const {
    noDiscovery,
    nickname,
    password,
    dbPrefix,
    resolvConf,
    ipallocRange: range,
    ipallocDefaultSubnet: defaultSubnet,
    ipallocInit: init,
    ipallocReclaim: reclaimMs,
    plugin,
    pluginSocket,
    pluginMeshSocket,
    pluginV2,
    pluginV2Multicast,
    proxy,
    proxyListen,
    withoutDns,
    noMulticastRoute,
    noRewriteHosts,
    noDefaultIpalloc,
    hostnameFromLabel,
    hostnameMatch,
    hostnameReplacement,
    rewriteInspect,
    noDetectTls,
    tls,
    tlsverify,
    tlscacert,
    tlscert,
    tlskey,
    ...same
  } = readOptions(ROUTER, given);
  if (same.resume && targets.length > 0) {
    throw new OptionError("You must not specify an initial peer list in conjunction with --resume", "resume");
  }
  return {
    ...same,
    nickname: nickname ?? around.hostname(),
    password: password === "" ? undefined : password,
    dbPrefix: resolve(dbPrefix),
    resolvConf: resolvConf === "" ? "" : resolve(resolvConf),
    ipam: readIpamOptions({ range, defaultSubnet, init, reclaimMs }),
    plugin: readPluginOptions({ plugin, pluginSocket, pluginMeshSocket, pluginV2, pluginV2Multicast }),
    proxy: readProxyOptions({
      proxy,
      proxyListen,
      withoutDns,
      noMulticastRoute,
      noRewriteHosts,
      noDefaultIpalloc,
      hostnameFromLabel,
      hostnameMatch,
      hostnameReplacement,
      rewriteInspect,
      noDetectTls,
      tls,
      tlsverify,
      tlscacert,
      tlscert,
      tlskey,
    }, around.env),
    discovery: !noDiscovery,
    targets,
    testIdentity: testIdentity(around.env("WEAVE_TEST_IDENTITY")),
    testSpin: (around.env("WEAVE_TEST_SPIN") ?? "") !== "",
  };
}

function testIdentity(json: string | undefined): TestIdentity | undefined {
  if (json === undefined || json === "") return undefined;
  const { uid, shortId, connectionIds = [], privateKeys = [] } = JSON.parse(json) as Record<string, never> & {
    connectionIds?: string[];
    privateKeys?: string[];
  };
  return {
    uid: BigInt(uid!),
    shortId: Number(shortId),
    connectionIds: connectionIds.map(BigInt),
    privateKeys: privateKeys.map((key) => Uint8Array.fromHex(key)),
  };
}

/** Options of later parts that were given, as they are written; switching off what is not there needs no warning. */
export function laterGiven(given: Given): string[] {
  return Object.values<Option<undefined>>(LATER)
    .filter(({ flag }) => given.has(flag) && given.get(flag)!.at(-1) !== "false")
    .map(({ flag }) => flag.length === 1 ? `-${flag}` : `--${flag}`);
}
