/** What this machine must offer before a router is started here; asked before anything is made. */
import { describeLack, type Lack, probeMachine } from "../../ffi/probe.ts";
import { findProgram } from "../host/command.ts";
import { nftMissing } from "../host/nft.ts";
import { OperationError } from "../lib/errors.ts";
import type { Progress } from "./address_book.ts";

/** Programs of one package; each looks for its own variants. */
const IPTABLES = ["iptables", "iptables-save", "iptables-restore"];

/** Rejects naming all that is missing; what the router can do without is a warning. */
export function checkHost(progress: Progress): void {
  refuseLacks(probeMachine(), IPTABLES.filter((name) => findProgram(name) === undefined), progress);
  const missing = nftMissing();
  if (missing !== undefined) progress.warn(`WARNING: services cannot be offered: ${missing}`);
}

export function refuseLacks(lacks: readonly Lack[], programs: readonly string[], progress: Progress): void {
  for (const lack of lacks) if (!lack.essential) progress.warn(`WARNING: ${describeLack(lack)}`);
  const missing = lacks.filter((lack) => lack.essential).map(describeLack);
  for (const name of programs) {
    missing.push(
      `Cannot do without ${name}: stat: ENOENT (No such file or directory), program ${JSON.stringify(name)}: ` +
        "the packet filter cannot be set up; install the package iptables",
    );
  }
  if (missing.length > 0) throw new OperationError(missing.join("\n"));
}
