/** Ends flows of backends that were revoked. */
import type { BackendId } from "../service/plan.ts";

export interface ResetOptions {
  readonly backends: ReadonlySet<BackendId>;
  /** Paths of the namespaces of isolated networks, beside this one, that may have flows of these backends. */
  readonly namespaces?: readonly string[];
}

export interface ResetResult {
  /** Flows that were ended. */
  readonly flows: number;
}

/**
 * Ends every flow of these backends within a second, TCP with a reset to both sides. Rules must refuse all of their packets, TCP by a
 * reset, before this is called, and go on to refuse them until it is done.
 */
export function resetFlows(_options: ResetOptions): Promise<ResetResult> {
  throw new Error("to come");
}
