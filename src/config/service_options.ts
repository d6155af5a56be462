/** Options of services and networks. What their values mean the router says, which alone knows this host's networks: here they are text. */
import { isNetworkName } from "../lib/network_name.ts";
import { type Option, type Options, text, texts, toggle, unusable, wholeNumber } from "./option.ts";

/** A network of this host, as `--network` names it. */
export interface NetworkOption {
  readonly name: string;
  /** Names of links, at least one. */
  readonly interfaces: readonly string[];
  readonly isolated: boolean;
}

const ISOLATED = ":isolated";
/** Names that stand for what every host has. */
const BUILT_IN = ["weave", "host"];

/** `NAME=INTERFACE[,…][:isolated]`; a text that says why not where it is anything else. */
export function parseNetwork(given: string): NetworkOption | string {
  const isolated = given.endsWith(ISOLATED);
  const [name, list] = (isolated ? given.slice(0, -ISOLATED.length) : given).split("=", 2);
  if (list === undefined) return "NAME=INTERFACE[,…][:isolated] expected";
  if (!isNetworkName(name!)) {
    return "its name must be of 1 to 31 small letters, digits and dashes";
  }
  if (BUILT_IN.includes(name!)) return `"${name}" is there on every host`;
  const interfaces = list.split(",");
  const wrong = interfaces.find((link) => !/^[^\s/:]{1,15}$/.test(link) || link === "." || link === "..");
  if (wrong !== undefined) return `"${wrong}" is no name of an interface`;
  if (new Set(interfaces).size < interfaces.length) return "an interface is named twice";
  return { name: name!, interfaces, isolated };
}

/** The reverse of `parseNetwork`. */
export function formatNetwork({ name, interfaces, isolated }: NetworkOption): string {
  return `${name}=${interfaces.join(",")}${isolated ? ISOLATED : ""}`;
}

/** Of `launch`. */
export const NETWORK: Option<readonly NetworkOption[]> = {
  ...texts({
    flag: "network",
    value: "NAME=IFS",
    help: "a network that interfaces lead to, for services",
  }),
  default: [],
  read(given) {
    const networks = given.map((one) => {
      const network = parseNetwork(one);
      if (typeof network === "string") throw unusable("network", one, network);
      return network;
    });
    const twice = networks.find(({ name }, i) => networks.findIndex((other) => other.name === name) < i);
    if (twice !== undefined) throw unusable("network", twice.name, "it is given twice");
    return networks;
  },
};

/** Of `weave service` and `weave network`, each under the name its command uses. */
export const SERVICE = {
  to: texts({ flag: "to", value: "TARGET", help: "where it really is; may be repeated" }),
  network: text({ flag: "network", value: "NETWORK", default: undefined, help: "network that it means; host" }),
  ports: texts({ flag: "port", value: "P[-Q][/udp],…", help: "its ports in the mesh; those of TARGET" }),
  priority: wholeNumber({
    flag: "priority",
    value: "N",
    default: undefined,
    from: 0,
    to: 255,
    help: "a lower number is taken first; 0",
  }),
  weight: wholeNumber({
    flag: "weight",
    value: "N",
    default: undefined,
    from: 1,
    to: 256,
    help: "its share among those of one priority; 1",
  }),
  check: text({
    flag: "check",
    value: "CHECK",
    default: undefined,
    help: "tcp, none, http:PATH or udp:TEXT; ,rise=2,fall=2",
  }),
  subnet: texts({ flag: "subnet", value: "CIDR", help: "subnet to offer it in; the default one" }),
  allowLocal: toggle({ flag: "allow-local", help: "even if TARGET is an address of this very host" }),
  listen: text({ flag: "listen", value: "[IP:]PORT", default: undefined, help: "where, as [IP:]PORT[-PORT][/udp]" }),
  allow: texts({ flag: "allow", value: "CIDR,…", help: "who may; everybody" }),
  dns: toggle({ flag: "dns", help: "answer its name with this address there" }),
  force: toggle({ flag: "force", help: "even if the host itself listens there" }),
  exportOnly: toggle({ flag: "export", help: "what is exported, at LISTEN alone if given" }),
  dryRun: toggle({ flag: "dry-run", help: "only say what would change" }),
  forceIsolated: toggle({ flag: "force", help: "even if peers are reached by an isolated interface" }),
  isolated: toggle({ flag: "isolated", help: "move the interfaces into a namespace of their own" }),
} as const satisfies Options;
