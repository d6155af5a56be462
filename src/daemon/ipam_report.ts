/** What status, report and metrics say of addresses. Names of fields are Weave Net 2.8's, and ours after them. */
import type { IpamStatus } from "../ipam/status.ts";
import { type Cidr, formatCidr, formatIpv4 } from "../lib/ip.ts";
import { formatMac, NO_PEER, type PeerName } from "../lib/mac.ts";
import type { IpamReport, OwnerReport } from "./status.ts";

export interface IpamReportSources {
  readonly status: IpamStatus;
  readonly ourName: PeerName;
  readonly defaultSubnet: Cidr;
  readonly warnings: readonly string[];
}

export function makeIpamReport({ status: s, ourName, defaultSubnet, warnings }: IpamReportSources): IpamReport {
  const nickNames = new Map(s.entries.map(({ peer, nickname }) => [peer, nickname]));
  const named = (peer: PeerName) => `${formatMac(peer)}(${nickNames.get(peer) ?? ""})`;
  const owners = ownersOf(s, ourName);
  return {
    Paxos: s.election === undefined ? null : {
      Elector: s.election.elector,
      KnownNodes: s.election.knownNodes,
      Quorum: s.election.quorum,
    },
    Range: formatCidr(s.range),
    RangeNumIPs: s.size,
    ActiveIPs: s.active,
    DefaultSubnet: formatCidr(defaultSubnet),
    Entries: s.entries.map(({ token, size, peer, nickname, inReach, version }) => ({
      Token: formatIpv4(token),
      Size: size,
      Peer: formatMac(peer),
      Nickname: nickname,
      IsKnownPeer: inReach,
      Version: version,
    })),
    PendingClaims: s.pendingClaims.map(({ id, cidr }) => ({
      Ident: id,
      CIDR: { Addr: formatIpv4(cidr.address), PrefixLen: cidr.prefixLength },
    })),
    PendingAllocates: s.pendingAllocations.map(({ id, subnet }) => `${id} ${formatCidr(subnet)}`),
    Owners: owners,
    Conflicts: s.conflicts.map(({ peer, reason }) => ({
      Peer: peer === NO_PEER ? "" : formatMac(peer),
      Reason: reason,
    })),
    Contested: s.contests.map(({ id, cidr, owner, heldTwice }) => ({
      ContainerID: id,
      Address: cidr,
      Owner: formatMac(owner),
      HeldTwice: heldTwice,
    })),
    Reclaim: s.reclaim === undefined ? null : {
      AfterSeconds: Math.round(s.reclaim.afterMs / 1000),
      Majority: s.reclaim.majority,
      Fenced: s.reclaim.fenced,
      Absent: s.reclaim.absent.map(({ peer, forMs, reclaimable }) => ({
        Peer: formatMac(peer),
        ForSeconds: Math.floor(forMs / 1000),
        Reclaimable: reclaimable,
      })),
    },
    Warnings: [
      ...s.conflicts.map(({ reason }) => reason),
      ...s.contests.filter(({ heldTwice }) => heldTwice).map(({ id, cidr, owner }) =>
        `Address ${cidr} of ${id} is held twice: ${named(owner)} has given it to another one; detach one of them`
      ),
      ...s.reclaim?.fenced ? [FENCED] : [],
      ...warnings,
    ],
  };
}

const FENCED =
  "No addresses are given out: this router reached too few of their owners for too long, and others may have " +
  "taken over its own (--ipalloc-reclaim); 'weave rmpeer' removes owners that are dead";

/** Ourselves first, then those who have most. */
function ownersOf(s: IpamStatus, ourName: PeerName): OwnerReport[] {
  const owners = new Map<PeerName, { size: number; nickname: string; inReach: boolean }>();
  for (const { peer, size, nickname, inReach } of s.entries) {
    const owner = owners.get(peer);
    if (owner === undefined) owners.set(peer, { size, nickname, inReach });
    else owner.size += size;
  }
  const rank = (peer: PeerName) => peer === ourName ? Infinity : owners.get(peer)!.size;
  return [...owners].sort(([a], [b]) => rank(b) - rank(a) || a - b).map(([peer, { size, nickname, inReach }]) => ({
    Peer: formatMac(peer),
    NickName: nickname,
    Size: size,
    Reachable: inReach,
  }));
}
