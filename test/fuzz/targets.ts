/** Everything that is fuzzed. */

import { API_TARGETS } from "./api_targets.ts";
import { DECODER_TARGETS } from "./decoder_targets.ts";
import { DNS_TARGETS } from "./dns_targets.ts";
import { IPAM_TARGETS } from "./ipam_targets.ts";
import { MESH_TARGETS } from "./mesh_targets.ts";
import { PACKET_TARGETS } from "./packet_targets.ts";
import { PROXY_TARGETS } from "./proxy_targets.ts";
import { SERVICE_TARGETS } from "./service_targets.ts";
import type { Target } from "./target.ts";
import { TEXT_TARGETS } from "./text_targets.ts";

export const TARGETS: readonly Target[] = [
  ...DECODER_TARGETS,
  ...DNS_TARGETS,
  ...IPAM_TARGETS,
  ...TEXT_TARGETS,
  ...API_TARGETS,
  ...MESH_TARGETS,
  ...SERVICE_TARGETS,
  ...PACKET_TARGETS,
  ...PROXY_TARGETS,
];
