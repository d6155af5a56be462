/** What the API says of services and networks, as JSON: `GET /service`, `GET /service/{name}`, `GET /network`. */

export interface ServiceJson {
  readonly name: string;
  /** `5432`, `5060/udp`, `10000-20000/udp`. */
  readonly ports: readonly string[];
  /** Where containers of each subnet find it. */
  readonly addresses: readonly {
    readonly subnet: string;
    readonly address: string;
    /** Peer that answers for it; null: nobody can. */
    readonly holder: string | null;
  }[];
  readonly imports: readonly ImportJson[];
  readonly exports: readonly ExportJson[];
  /** What an operator must know, a plain line each. */
  readonly warnings: readonly string[];
}

export interface ImportJson {
  /** Peer name, as `formatMac` writes it. */
  readonly owner: string;
  readonly nickname: string;
  readonly reachable: boolean;
  readonly priority: number;
  readonly weight: number;
  readonly backends: readonly BackendJson[];
  readonly check: string;
  /** `drained`: takes no new flows; `revoked`: takes none at all. */
  readonly state: "active" | "drained" | "revoked";
}

export interface BackendJson {
  /** As given. */
  readonly target: string;
  readonly network: string;
  readonly health: "up" | "down" | "unknown";
  /** Established through this host; null: another one's. */
  readonly flows: number | null;
  /** Why it is not up, where that is known. */
  readonly reason?: string;
}

export interface ExportJson {
  readonly owner: string;
  readonly nickname: string;
  readonly reachable: boolean;
  readonly network: string;
  /** Which of the service's ports is meant, as `5432`, `10000-10010`; null: it has no other. */
  readonly port: string | null;
  /** `5432`, `192.168.7.9:5432/udp`. */
  readonly listen: string;
  /** Empty: everybody. */
  readonly allow: readonly string[];
  readonly dns: boolean;
  /** It takes flows there now. */
  readonly answers: boolean;
}

export interface NetworkJson {
  readonly name: string;
  /** Empty: of the host itself. */
  readonly interfaces: readonly string[];
  readonly isolated: boolean;
  readonly warnings: readonly string[];
}
