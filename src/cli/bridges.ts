/** Two commands that scripts written for Weave Net use to find out about bridges. */
import { dockerBridgeAddress, hasBridge } from "../daemon/host_facts.ts";
import { formatIpv4 } from "../lib/ip.ts";
import type { Input } from "./command.ts";
import { type BRIDGE_TYPE_OPTIONS, type DOCKER_BRIDGE_OPTIONS, noWords } from "./commands.ts";

/** Fails silently where there is none. */
export function bridgeType({ words, values, terminal }: Input<typeof BRIDGE_TYPE_OPTIONS>): number {
  noWords(words);
  if (!hasBridge()) return 1;
  terminal.printLine(values.json ? JSON.stringify({ type: "bridge" }) : "bridge");
  return 0;
}

export function dockerBridgeIp({ words, values, terminal }: Input<typeof DOCKER_BRIDGE_OPTIONS>): number {
  noWords(words);
  const address = formatIpv4(values.dockerBridgeIp ?? dockerBridgeAddress(values.dockerBridge));
  if (values.json) terminal.printLine(JSON.stringify({ address }));
  else terminal.print(address);
  return 0;
}
