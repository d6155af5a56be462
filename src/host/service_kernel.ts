/**
 * Services in the kernel: makes it do what a `ServicePlan` says, and nothing of it after `reset`. What is to be is computed whole
 * (`service_rules.ts`, `service_routes.ts`), compared with what is, and only the difference is changed: rules in one transaction.
 * Flows that are under way never notice, whether plans change, or another process of ours takes over.
 */
import type { ServicePlan } from "../service/plan.ts";
import type { AnnouncedAddress } from "./announce.ts";

export interface ServiceKernelOptions {
  /** Where is kept what we changed of the host's settings. */
  readonly runDir: string;
  /** Name of the overlay's bridge. */
  readonly bridge: string;
  /** Told of addresses that we answer for from now on, and no more: for gratuitous ARP. */
  readonly onAnswered?: (added: readonly AnnouncedAddress[], removed: readonly AnnouncedAddress[]) => void;
}

export class ServiceKernel {
  private constructor(readonly options: ServiceKernelOptions) {}

  /** Reads what an earlier process left; changes nothing. @throws OperationError where `nft` is missing */
  static open(_options: ServiceKernelOptions): Promise<ServiceKernel> {
    throw new Error("to come");
  }

  /**
   * Makes the kernel do what the plan says, after those that are being applied. Call it again with the same plan when links, addresses
   * or routes of the host have changed. Rejects saying what failed; rules are then as they were.
   * @returns whether anything was changed
   */
  apply(_plan: ServicePlan): Promise<boolean> {
    throw new Error("to come");
  }

  /**
   * Whether all is as `apply` left it; false where somebody flushed rules or changed settings, and `apply` will mend it. For a check
   * every 10 s.
   */
  isIntact(): Promise<boolean> {
    throw new Error("to come");
  }

  /** Takes everything away. */
  reset(): Promise<void> {
    throw new Error("to come");
  }
}

/** What `reset` of the command line does: as `ServiceKernel.reset()`, also where `nft` is missing. Nothing there is no error. */
export function resetServiceKernel(_options: ServiceKernelOptions): Promise<void> {
  throw new Error("to come");
}

