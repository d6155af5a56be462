/** `apply` and `export-config`: this host's services as a file. */
import { OperationError } from "../lib/errors.ts";
import type { Input } from "./command.ts";
import type { APPLY_OPTIONS, QUERY_OPTIONS } from "./commands.ts";

export function apply(_input: Input<typeof APPLY_OPTIONS>): Promise<number> {
  throw new OperationError("not there yet");
}

export function exportConfig(_input: Input<typeof QUERY_OPTIONS>): Promise<number> {
  throw new OperationError("not there yet");
}
