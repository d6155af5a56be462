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
import { SERVICE } from "../config/service_options.ts";
import { parseAddressToken } from "../daemon/address_book.ts";
import type { Options } from "../config/option.ts";
import { type Command, command, type Declaration, type Input, subcommandWord } from "./command.ts";
import { UsageError } from "./parse.ts";
import { suggest } from "./suggest.ts";
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

export const IMPORT_OPTIONS = {
  to: SERVICE.to,
  network: SERVICE.network,
  ports: SERVICE.ports,
  priority: SERVICE.priority,
  weight: SERVICE.weight,
  check: SERVICE.check,
  subnet: SERVICE.subnet,
  allowLocal: SERVICE.allowLocal,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};
export const EXPORT_OPTIONS = {
  listen: SERVICE.listen,
  network: SERVICE.network,
  allow: SERVICE.allow,
  dns: SERVICE.dns,
  force: SERVICE.force,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};
export const BIND_OPTIONS = { allowLocal: SERVICE.allowLocal, ...PRINTS, ...ASKS, ...EVERYWHERE };
export const REMOVE_SERVICE_OPTIONS = { exportOnly: SERVICE.exportOnly, ...PRINTS, ...ASKS, ...EVERYWHERE };
export const APPLY_OPTIONS = { dryRun: SERVICE.dryRun, force: SERVICE.force, ...PRINTS, ...ASKS, ...EVERYWHERE };
export const ADD_NETWORK_OPTIONS = {
  isolated: SERVICE.isolated,
  force: SERVICE.forceIsolated,
  ...PRINTS,
  ...ASKS,
  ...EVERYWHERE,
};

/** A command of two words. */
function subcommand<O extends Options>(declaration: Omit<Declaration<O>, "group" | "ours">): Command {
  return command<O>({ ...declaration, ours: true } as Declaration<O>);
}

const TARGET = `TARGET is HOST:PORT[-PORT][/udp]. HOST is an address or a name; a name in the
domain of the mesh is a container.`;

const SERVICE_COMMANDS: readonly Command[] = [
  subcommand({
    name: "service import",
    summary: "Bring a service into the mesh",
    usage: "NAME --to TARGET…",
    details: `${TARGET} Prints the address at which containers
find it; its name in DNS is NAME. Several hosts may import one NAME.`,
    options: IMPORT_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service import db --to 192.168.7.2:5432 --network plant"],
    load: async () => (await import("./service.ts")).importService,
  }),
  subcommand({
    name: "service export",
    summary: "Offer a service of the mesh to a network",
    usage: "NAME[:PORT] --listen LISTEN",
    details: `NAME is an imported service, or a container by its name in DNS. IP may be an
address that nobody has: one of the hosts that export there answers for it.
Without IP, all addresses of this host. Prints where it is offered.`,
    options: EXPORT_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service export db --listen 5432 --network office"],
    load: async () => (await import("./service.ts")).exportService,
  }),
  subcommand({
    name: "service bind",
    summary: "Move what this host imports to another place",
    usage: "NAME TARGET…",
    details: "Connections that are there stay where they are, new ones go to the new place.",
    options: BIND_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service bind db 192.168.7.3:5432"],
    load: async () => (await import("./service.ts")).bind,
  }),
  subcommand({
    name: "service revoke",
    summary: "Reset its connections here, and refuse new ones",
    usage: "NAME",
    details: "Until it is bound or imported again.",
    options: QUERY_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service revoke db"],
    load: async () => (await import("./service.ts")).revoke,
  }),
  subcommand({
    name: "service drain",
    summary: "Take no new connections here; show how many are left",
    usage: "NAME",
    details: "Until it is bound or imported again. Other hosts that import it go on.",
    options: QUERY_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service drain db"],
    load: async () => (await import("./service.ts")).drain,
  }),
  subcommand({
    name: "service rm",
    summary: "Import or export it no longer",
    usage: "NAME [--export [LISTEN]]",
    details: "Without --export, what this host imports and exports of it.",
    options: REMOVE_SERVICE_OPTIONS,
    root: true,
    completes: "services",
    examples: ["sudo weave service rm db", "sudo weave service rm db --export 5432"],
    load: async () => (await import("./service.ts")).remove,
  }),
  subcommand({
    name: "service ls",
    summary: "List the services of the mesh",
    usage: "",
    options: QUERY_OPTIONS,
    examples: ["weave service ls"],
    load: async () => (await import("./service.ts")).list,
  }),
  subcommand({
    name: "service show",
    summary: "Show who imports and exports it, and how it is",
    usage: "NAME",
    options: QUERY_OPTIONS,
    completes: "services",
    examples: ["weave service show db"],
    load: async () => (await import("./service.ts")).show,
  }),
  subcommand({
    name: "service apply",
    summary: "Make this host's services what a file says",
    usage: "FILE|-",
    details: "Prints what it changes. FILE is YAML, as export-config writes it; - is stdin.",
    options: APPLY_OPTIONS,
    root: true,
    examples: ["sudo weave service apply services.yaml"],
    load: async () => (await import("./service_config.ts")).apply,
  }),
  subcommand({
    name: "service export-config",
    summary: "Print this host's services as such a file",
    usage: "",
    options: QUERY_OPTIONS,
    examples: ["weave service export-config > services.yaml"],
    load: async () => (await import("./service_config.ts")).exportConfig,
  }),
];

const NETWORK_COMMANDS: readonly Command[] = [
  subcommand({
    name: "network add",
    summary: "Name a network that interfaces of this host lead to",
    usage: "NAME=INTERFACE[,…]",
    details: `Networks may use the same addresses, those of the mesh too. The interfaces of an
isolated one are moved: then it may even have addresses of this host.`,
    options: ADD_NETWORK_OPTIONS,
    root: true,
    examples: ["sudo weave network add plant=eth1"],
    load: async () => (await import("./network.ts")).add,
  }),
  subcommand({
    name: "network rm",
    summary: "Forget a network that no service uses",
    usage: "NAME",
    options: QUERY_OPTIONS,
    root: true,
    examples: ["sudo weave network rm plant"],
    load: async () => (await import("./network.ts")).remove,
  }),
  subcommand({
    name: "network ls",
    summary: "List the networks of this host",
    usage: "",
    options: QUERY_OPTIONS,
    examples: ["weave network ls"],
    load: async () => (await import("./network.ts")).list,
  }),
];

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
    name: "service",
    group: "Services",
    summary: "Use services of one network in another: import, export, bind, …",
    usage: "COMMAND",
    options: EVERYWHERE,
    ours: true,
    subcommands: SERVICE_COMMANDS,
    examples: ["weave service ls"],
    load: () =>
      Promise.resolve(({ words }: Input<typeof EVERYWHERE>) => refuseWord("service", words, SERVICE_COMMANDS)),
  }),
  command({
    name: "network",
    group: "Services",
    summary: "Say which networks interfaces of this host lead to: add, rm, ls",
    usage: "COMMAND",
    options: EVERYWHERE,
    ours: true,
    subcommands: NETWORK_COMMANDS,
    examples: ["weave network ls"],
    load: () =>
      Promise.resolve(({ words }: Input<typeof EVERYWHERE>) => refuseWord("network", words, NETWORK_COMMANDS)),
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

/** There is no such subcommand, or none was named. */
function refuseWord(name: string, [word]: readonly string[], subcommands: readonly Command[]): never {
  if (word === undefined) throw new UsageError("");
  const meant = suggest(word, subcommands.map(subcommandWord));
  throw new UsageError(
    `Unknown weave command '${name} ${word}'${meant === undefined ? "" : `: did you mean '${meant}'?`}`,
  );
}

/** Refuses words where a command takes none. */
export function noWords(words: readonly string[]): void {
  if (words.length > 0) throw new UsageError(`Unexpected argument "${words[0]}"`);
}

export function commandLater(name: string, terminal: Terminal): number {
  terminal.warn(`WARNING: 'weave ${name}' is not in this version yet`);
  return COMMANDS_LATER[name]!;
}
