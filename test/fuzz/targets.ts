/** Everything that is fuzzed. */

import { DECODER_TARGETS } from "./decoder_targets.ts";
import { DNS_TARGETS } from "./dns_targets.ts";
import { IPAM_TARGETS } from "./ipam_targets.ts";
import type { Target } from "./target.ts";

export const TARGETS: readonly Target[] = [...DECODER_TARGETS, ...DNS_TARGETS, ...IPAM_TARGETS];
