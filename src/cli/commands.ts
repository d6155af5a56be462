/** Every command, once. What they do is imported when they are run. */
import {
  COMMAND,
  DB_PREFIX,
  DOCKER_BRIDGE,
  DOCKER_BRIDGE_IP,
  HELP,
  HTTP_ADDR,
  JSON_OUTPUT,
  LATER,
  LAUNCH,
  LOCAL,
  ROUTER,
} from "../config/options.ts";
import { parseAddressToken } from "../daemon/address_book.ts";
import { type Command, command } from "./command.ts";
import { UsageError } from "./parse.ts";
import type { Terminal } from "./terminal.ts";

/** Every command takes these. */
const EVERYWHERE = { help: HELP, local: LOCAL };
const PRINTS = { json: JSON_OUTPUT };
/** Commands that talk to the router. */
const ASKS = { httpAddr: HTTP_ADDR };

const ADDRESSES = `ADDRESS is 10.0.0.1/24, say: an address and the length of its subnet's prefix.
Only containers of one subnet reach each other.`;

/** The words after `status`. */
export const STATUS_TOPICS = ["targets", "connections", "peers", "dns", "ipam"] as const;

export const SHELLS = ["bash", "zsh", "fish"] as const;

export const LAUNCH_OPTIONS = { ...ROUTER, ...LAUNCH, ...PRINTS, ...LATER, ...EVERYWHERE };
export const STOP_OPTIONS = { dbPrefix: DB_PREFIX, ...EVERYWHERE };
export const RESET_OPTIONS = { force: COMMAND.force, dbPrefix: DB_PREFIX, ...ASKS, ...EVERYWHERE };
export const LOGS_OPTIONS = { follow: COMMAND.follow, ...PRINTS, ...EVERYWHERE };
export const QUERY_OPTIONS = { ...PRINTS, ...ASKS, ...EVERYWHERE };
export const ENV_OPTIONS = { restore: COMMAND.restore, ...ASKS, ...EVERYWHERE };
export const TELL_OPTIONS = { ...ASKS, ...EVERYWHERE };
export const CONNECT_OPTIONS = { replace: COMMAND.replace, ...ASKS, ...EVERYWHERE };
export const REPORT_OPTIONS = { format: COMMAND.format, ...PRINTS, ...ASKS, ...EVERYWHERE };
export const RUN_OPTIONS = {
  withoutDns: COMMAND.withoutDns,
  noRewriteHosts: COMMAND.noRewriteHosts,
  noMulticastRoute: COMMAND.noMulticastRoute,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};
export const ATTACH_OPTIONS = {
  withoutDns: COMMAND.withoutDns,
  hostname: COMMAND.hostname,
  rewriteHosts: COMMAND.rewriteHosts,
  addHost: COMMAND.addHost,
  noMulticastRoute: COMMAND.noMulticastRoute,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};
export const EXPOSE_OPTIONS = {
  hostname: COMMAND.exposeName,
  withoutMasquerade: COMMAND.withoutMasquerade,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};
export const DNS_NAME_OPTIONS = {
  hostname: COMMAND.exposeName,
  record: COMMAND.record,
  ...ASKS,
  ...EVERYWHERE,
};
export const PS_OPTIONS = { ...PRINTS, ...EVERYWHERE };
export const SETUP_OPTIONS = { remove: COMMAND.remove, ...EVERYWHERE };
export const SETUP_CNI_OPTIONS = EVERYWHERE;
export const BRIDGE_TYPE_OPTIONS = { ...PRINTS, ...EVERYWHERE };
export const DOCKER_BRIDGE_OPTIONS = {
  dockerBridge: DOCKER_BRIDGE,
  dockerBridgeIp: DOCKER_BRIDGE_IP,
  ...PRINTS,
  ...EVERYWHERE,
};

export const COMMANDS: readonly Command[] = [
  command({
    name: "launch",
    group: "Router",
    summary: "Start the router of this host and join others",
    usage: "[PEER…]",
    details: "PEER is a name or address of a host, or host:port.\nPrints the peer name of the router.",
    options: LAUNCH_OPTIONS,
    root: true,
    examples: ["sudo weave launch host1 192.0.2.7"],
    load: async () => (await import("./launch.ts")).launch,
  }),
  command({
    name: "stop",
    group: "Router",
    summary: "Stop it; containers of this host keep talking to each other",
    usage: "",
    options: STOP_OPTIONS,
    root: true,
    examples: ["sudo weave stop"],
    load: async () => (await import("./stop.ts")).stop,
  }),
  command({
    name: "status",
    group: "Router",
    summary: "Show how it is, or one thing in detail",
    usage: `[${STATUS_TOPICS.join("|")}]`,
    options: QUERY_OPTIONS,
    completes: STATUS_TOPICS,
    examples: ["weave status connections"],
    load: async () => (await import("./query.ts")).status,
  }),
  command({
    name: "report",
    group: "Router",
    summary: "Show everything it knows, as JSON",
    usage: "",
    options: REPORT_OPTIONS,
    examples: ["weave report -f '{{.Router.Name}}'"],
    load: async () => (await import("./query.ts")).report,
  }),
  command({
    name: "logs",
    group: "Router",
    summary: "Show what it has logged",
    usage: "",
    options: LOGS_OPTIONS,
    ours: true,
    examples: ["sudo weave logs -f"],
    load: async () => (await import("./logs.ts")).logs,
  }),
  command({
    name: "connect",
    group: "Router",
    summary: "Join further peers",
    usage: "PEER…",
    options: CONNECT_OPTIONS,
    examples: ["weave connect host3", "weave connect --replace host1 host2"],
    load: async () => (await import("./query.ts")).connect,
  }),
  command({
    name: "forget",
    group: "Router",
    summary: "Do not dial these peers again, named as they were given",
    usage: "PEER…",
    options: TELL_OPTIONS,
    examples: ["weave forget host3"],
    load: async () => (await import("./query.ts")).forget,
  }),
  command({
    name: "rmpeer",
    group: "Router",
    summary: "Take over the addresses of peers that are gone for good",
    usage: "PEER_NAME…",
    details: "PEER_NAME is a peer's name or nickname. Do this on one host only.",
    options: QUERY_OPTIONS,
    examples: ["weave rmpeer host3"],
    load: async () => (await import("./query.ts")).rmpeer,
  }),
  command({
    name: "reset",
    group: "Router",
    summary: "Stop it and remove all that is weave's from this host",
    usage: "",
    options: RESET_OPTIONS,
    root: true,
    examples: ["sudo weave reset"],
    load: async () => (await import("./stop.ts")).reset,
  }),
  command({
    name: "run",
    group: "Containers",
    summary: "Start a container of Docker in the network",
    usage: "[ADDRESS…] DOCKER_RUN_ARGUMENT…",
    details: `${ADDRESSES}\nPrints the id of the container. Options of weave come first.`,
    options: RUN_OPTIONS,
    root: true,
    leading: (word) => parseAddressToken(word) !== undefined,
    examples: ["sudo weave run 10.0.0.1/24 -t -i ubuntu"],
    load: async () => (await import("./containers.ts")).run,
  }),
  command({
    name: "start",
    group: "Containers",
    summary: "Start a container that is there, in the network",
    usage: "[ADDRESS…] CONTAINER",
    details: "Without ADDRESS, routers give one. Prints what docker start prints.",
    options: QUERY_OPTIONS,
    root: true,
    completes: "containers",
    examples: ["sudo weave start 10.0.0.2/24 web"],
    load: async () => (await import("./containers.ts")).start,
  }),
  command({
    name: "restart",
    group: "Containers",
    summary: "Restart a container; it keeps its addresses",
    usage: "CONTAINER",
    options: QUERY_OPTIONS,
    root: true,
    completes: "containers",
    examples: ["sudo weave restart web"],
    load: async () => (await import("./containers.ts")).restart,
  }),
  command({
    name: "attach",
    group: "Containers",
    summary: "Give a running container addresses in the network",
    usage: "[ADDRESS…] CONTAINER",
    details: `${ADDRESSES}\nCONTAINER is a name or id of Docker, pid:N or netns:PATH. Prints the addresses.`,
    options: ATTACH_OPTIONS,
    root: true,
    completes: "containers",
    examples: ["sudo weave attach 10.0.0.2/24 web", "sudo weave attach 10.0.0.3/24 netns:/run/netns/mine"],
    load: async () => (await import("./containers.ts")).attach,
  }),
  command({
    name: "detach",
    group: "Containers",
    summary: "Take addresses from a container again",
    usage: "[ADDRESS…] CONTAINER",
    details: "Without ADDRESS, all of them. CONTAINER is as for attach. Prints the addresses.",
    options: QUERY_OPTIONS,
    root: true,
    completes: "containers",
    examples: ["sudo weave detach 10.0.0.2/24 web"],
    load: async () => (await import("./containers.ts")).detach,
  }),
  command({
    name: "ps",
    group: "Containers",
    summary: "List who is in the network on this host",
    usage: "[CONTAINER…]",
    details: "A line each: container, MAC address, addresses. weave:expose is the host itself.",
    options: PS_OPTIONS,
    root: true,
    completes: "containers",
    examples: ["sudo weave ps"],
    load: async () => (await import("./containers.ts")).ps,
  }),
  command({
    name: "env",
    group: "Containers",
    summary: "Print what makes this shell's docker use the network",
    usage: "",
    details: `Containers that are started then are in the network before their process starts.
WEAVE_CIDR says with which addresses: docker run -e WEAVE_CIDR=10.0.0.1/24 …`,
    options: ENV_OPTIONS,
    examples: ['eval "$(weave env)"', 'eval "$(weave env --restore)"'],
    load: async () => (await import("./docker_env.ts")).env,
  }),
  command({
    name: "config",
    group: "Containers",
    summary: "The same for one docker command",
    usage: "",
    options: TELL_OPTIONS,
    examples: ["docker $(weave config) run -ti ubuntu"],
    load: async () => (await import("./docker_env.ts")).config,
  }),
  command({
    name: "prime",
    group: "This host",
    summary: "Wait until addresses can be allocated",
    usage: "",
    details: `Returns once peers have agreed who allocates which addresses. That happens by
itself when the first address is needed.`,
    options: QUERY_OPTIONS,
    examples: ["weave prime"],
    load: async () => (await import("./query.ts")).prime,
  }),
  command({
    name: "dns-add",
    group: "Names",
    summary: "Name a container, or any address",
    usage: "[IP…] CONTAINER | IP… -h FQDN",
    details: `Without IP, all addresses of CONTAINER; without FQDN, its own name. IP may be
IPv6, RECORD is SRV or TXT in words. Names last as long as the container.`,
    options: DNS_NAME_OPTIONS,
    completes: "containers",
    examples: ["weave dns-add 192.0.2.7 -h db.weave.local"],
    load: async () => (await import("./names.ts")).dnsAdd,
  }),
  command({
    name: "dns-remove",
    group: "Names",
    summary: "Take names away again",
    usage: "[IP…] CONTAINER | IP…",
    details: "Without FQDN, all names of these addresses. The rest is as for dns-add.",
    options: DNS_NAME_OPTIONS,
    completes: "containers",
    examples: ["weave dns-remove 192.0.2.7 -h db.weave.local"],
    load: async () => (await import("./names.ts")).dnsRemove,
  }),
  command({
    name: "dns-lookup",
    group: "Names",
    summary: "Print the addresses of a name",
    usage: "NAME",
    options: QUERY_OPTIONS,
    examples: ["weave dns-lookup web"],
    load: async () => (await import("./names.ts")).dnsLookup,
  }),
  command({
    name: "dns-args",
    group: "Names",
    summary: "Print what makes docker run use these names",
    usage: "",
    options: QUERY_OPTIONS,
    examples: ["weave dns-args"],
    load: async () => (await import("./names.ts")).dnsArgs,
  }),
  command({
    name: "expose",
    group: "This host",
    summary: "Give the host itself an address in the network",
    usage: "[ADDRESS…]",
    details: "It then reaches every container of that subnet. Prints the addresses.",
    options: EXPOSE_OPTIONS,
    root: true,
    examples: ["sudo weave expose 10.0.0.100/24"],
    load: async () => (await import("./containers.ts")).expose,
  }),
  command({
    name: "hide",
    group: "This host",
    summary: "Take it away again",
    usage: "[ADDRESS…]",
    details: "Without ADDRESS, all of them. Prints the addresses.",
    options: QUERY_OPTIONS,
    root: true,
    examples: ["sudo weave hide 10.0.0.100/24"],
    load: async () => (await import("./containers.ts")).hide,
  }),
  command({
    name: "setup",
    group: "This host",
    summary: "Install what other programs look for; or a unit for systemd",
    usage: "[systemd [LAUNCH_ARGUMENT…]]",
    details: `Alone, what container runtimes look for. With systemd, a unit that runs the
router from now on and at every boot, with these arguments of launch; --remove
undoes that. WEAVE_PASSWORD in the environment is kept for it.`,
    options: SETUP_OPTIONS,
    root: true,
    leading: (word) => word === "systemd",
    examples: ["sudo weave setup", "sudo weave setup systemd host1 192.0.2.7"],
    load: async () => (await import("./setup.ts")).setup,
  }),
  command({
    name: "version",
    group: "Other",
    summary: "Show the version of this program, and of the router that runs",
    usage: "",
    options: QUERY_OPTIONS,
    examples: ["weave version"],
    load: async () => (await import("./query.ts")).version,
  }),
  command({
    name: "completion",
    group: "Other",
    summary: "Print what makes your shell complete weave commands",
    usage: SHELLS.join("|"),
    options: EVERYWHERE,
    ours: true,
    completes: SHELLS,
    examples: ["weave completion bash > /etc/bash_completion.d/weave"],
    load: async () => {
      const { completion } = await import("./completion.ts");
      return (input) => completion(input, COMMANDS);
    },
  }),
  command({
    name: "help",
    group: "Other",
    summary: "Show this, or more about a command",
    usage: "[COMMAND]",
    options: EVERYWHERE,
    examples: ["weave help attach"],
    load: async () => {
      const { help } = await import("./help.ts");
      return (input) => help(input, COMMANDS);
    },
  }),
  command({
    name: "setup-cni",
    summary: "Install what container runtimes look for",
    usage: "",
    options: SETUP_CNI_OPTIONS,
    root: true,
    examples: ["sudo weave setup-cni"],
    load: async () => (await import("./setup.ts")).setupCni,
  }),
  command({
    name: "bridge-type",
    summary: "Print how frames get from containers to the router",
    usage: "",
    options: BRIDGE_TYPE_OPTIONS,
    examples: ["weave bridge-type"],
    load: async () => (await import("./bridges.ts")).bridgeType,
  }),
  command({
    name: "docker-bridge-ip",
    summary: "Print the address of Docker's bridge",
    usage: "",
    options: DOCKER_BRIDGE_OPTIONS,
    examples: ["weave docker-bridge-ip"],
    load: async () => (await import("./bridges.ts")).dockerBridgeIp,
  }),
];

/** Gone since Weave Net 2.0. */
export const REMOVED: readonly string[] = [
  "launch-router",
  "stop-router",
  "launch-proxy",
  "stop-proxy",
  "launch-plugin",
  "stop-plugin",
];

/** Of parts that this version does not have: the exit status is what their callers can do with. */
export const COMMANDS_LATER: Readonly<Record<string, number>> = {
  "attach-bridge": 1,
};

/** Refuses words where a command takes none. */
export function noWords(words: readonly string[]): void {
  if (words.length > 0) throw new UsageError(`Unexpected argument "${words[0]}"`);
}

export function commandLater(name: string, terminal: Terminal): number {
  terminal.warn(`WARNING: 'weave ${name}' is not in this version yet`);
  return COMMANDS_LATER[name]!;
}
