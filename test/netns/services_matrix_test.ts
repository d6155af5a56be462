/** From where a service is used, and how: every origin, every kind of port. */

import assert from "node:assert/strict";
import type { EmulatedHost } from "./host.ts";
import { Lab } from "./lab.ts";
import { attachNew, waitEstablished } from "./mesh.ts";
import { ask, type Machine, serveName, service, type Transport, waitAnswer, waitKnown } from "./services.ts";
import { testAsRoot } from "../skip.ts";

/** What is asked for: a service's own port, where it is exported at, and who answers. */
interface Column {
  readonly title: string;
  readonly name: string;
  readonly port: number;
  readonly exported: number;
  readonly transport: Transport;
  readonly answer: string;
}

const RANGE = { first: 10_000, last: 10_010, exported: 20_000 };

const COLUMNS: readonly Column[] = [
  { title: "TCP", name: "t", port: 7000, exported: 8000, transport: "tcp", answer: "backend" },
  { title: "UDP", name: "u", port: 7000, exported: 8000, transport: "udp", answer: "backend" },
  ...(["tcp", "udp"] as const).flatMap((transport) =>
    [0, 5, 10].map((offset) => ({
      title: `${transport.toUpperCase()} +${offset}`,
      name: transport === "tcp" ? "tr" : "ur",
      port: RANGE.first + offset,
      exported: RANGE.exported + offset,
      transport,
      answer: `backend.${RANGE.first + offset}`,
    }))
  ),
];

interface Row {
  readonly from: string;
  readonly machine: Machine;
  readonly to: string;
  /** An address of a gateway; undefined: the virtual address of each service. */
  readonly address?: string;
}

testAsRoot("a service is used from every origin, by TCP, UDP and a range of ports", async () => {
  await using lab = new Lab();
  const [exporter, importer, third] = [await lab.host("exporter"), await lab.host("importer"), await lab.host("third")];
  const [client, backend, neighbour] = [
    await lab.host("client"),
    await lab.host("backend"),
    await lab.host("neighbour"),
  ];
  await lab.link(exporter, importer);
  await lab.link(importer, third);
  await lab.switch([exporter, client], ["192.168.50.1", "192.168.50.10"]);
  await lab.switch([importer, backend, neighbour], ["192.168.50.1", "192.168.50.10", "192.168.50.11"]);
  // As every real host, they have a default route, and what it leads to knows nothing of the mesh.
  for (const host of [exporter, importer]) await host.sh(`ip route add default via 192.168.50.10`);
  await importer.weave("launch");
  await exporter.weave("launch", importer.address(exporter));
  await third.weave("launch", importer.address(third));
  await waitEstablished(importer, [exporter, third]);
  const inside = await attachNew(exporter, "inside");
  const elsewhere = await attachNew(third, "elsewhere");
  const beside = await attachNew(importer, "beside");
  const bridged = await bridgedContainer(exporter);

  for (const transport of ["tcp", "udp"] as const) {
    await serveName(backend, 7000, transport);
    await serveName(backend, `${RANGE.first}-${RANGE.last}`, transport);
  }
  const range = `${RANGE.first}-${RANGE.last}`, exportedRange = `${RANGE.exported}-${RANGE.exported + 10}`;
  const services = [
    { name: "t", to: "7000", listen: "8000" },
    { name: "u", to: "7000/udp", listen: "8000/udp" },
    { name: "tr", to: range, listen: exportedRange },
    { name: "ur", to: `${range}/udp`, listen: `${exportedRange}/udp` },
  ];
  const virtual = new Map<string, string>();
  for (const { name, to, listen } of services) {
    virtual.set(name, await service(importer, "import", name, "--to", `192.168.50.10:${to}`));
    assert.equal(await waitKnown(exporter, name), virtual.get(name));
    for (const gateway of [exporter, importer]) await service(gateway, "export", name, "--listen", listen);
  }

  const rows: Row[] = [
    { from: "client in the exporting network", machine: client, to: "the exporting host", address: "192.168.50.1" },
    { from: "exporting host", machine: exporter, to: "its address", address: "192.168.50.1" },
    { from: "exporting host", machine: exporter, to: "another address of it", address: exporter.address(importer) },
    { from: "exporting host", machine: exporter, to: "127.0.0.1", address: "127.0.0.1" },
    { from: "exporting host", machine: exporter, to: "the service itself" },
    { from: "container on it", machine: inside, to: "the service itself" },
    { from: "container on a bridge of its own there", machine: bridged, to: "its host", address: "172.30.0.1" },
    {
      from: "container on a bridge of its own there",
      machine: bridged,
      to: "the exporting host",
      address: "192.168.50.1",
    },
    { from: "container elsewhere", machine: elsewhere, to: "the service itself" },
    { from: "container on the importing gateway", machine: beside, to: "the service itself" },
    { from: "backend itself", machine: backend, to: "the importing gateway", address: "192.168.50.1" },
    { from: "neighbour of the backend", machine: neighbour, to: "the importing gateway", address: "192.168.50.1" },
    { from: "importing gateway", machine: importer, to: "the service itself" },
    { from: "importing gateway", machine: importer, to: "its address", address: "192.168.50.1" },
    { from: "importing gateway", machine: importer, to: "127.0.0.1", address: "127.0.0.1" },
    { from: "importing gateway", machine: importer, to: "the exporting host", address: exporter.address(importer) },
    { from: "third host", machine: third, to: "the importing gateway", address: importer.address(third) },
  ];
  for (const { name, port, transport, answer } of COLUMNS.slice(0, 2)) {
    await waitAnswer(elsewhere, virtual.get(name)!, port, answer, { transport, witnesses: [exporter, importer] });
  }
  const table: string[][] = [];
  for (const row of rows) {
    const cells: string[] = [];
    for (const column of COLUMNS) cells.push(await cellOf(row, column, virtual.get(column.name)!));
    table.push([`${row.from} → ${row.to}`, ...cells]);
  }
  console.log(inColumns([["from → to", ...COLUMNS.map(({ title }) => title)], ...table]));
  const bad = table.filter(([, ...cells]) => cells.some((cell) => cell !== "works"));
  assert.deepEqual(bad, []);
});

/** `works`, or what came instead. Tried twice: what asks the first time may find no ARP entry yet, and UDP is lost then. */
async function cellOf(row: Row, column: Column, virtual: string): Promise<string> {
  const port = row.address === undefined ? column.port : column.exported;
  let answer = "";
  for (let i = 0; i < 2 && answer === ""; i++) {
    answer = await ask(row.machine, row.address ?? virtual, port, column.transport);
  }
  return answer === column.answer ? "works" : answer || "nothing";
}

/** A container as Docker's own bridge has them: behind the host, which is its way out. */
async function bridgedContainer(host: EmulatedHost): Promise<Machine> {
  const container = await host.container("bridged");
  await host.sh(`
    ip link add br0 type bridge
    ip address add 172.30.0.1/24 dev br0
    ip link add plug type veth peer name eth0 netns bridged
    ip link set plug master br0 up
    ip link set br0 up`);
  await container.sh(
    "ip address add 172.30.0.2/24 dev eth0; ip link set eth0 up; ip route add default via 172.30.0.1",
  );
  return container;
}

function inColumns(rows: readonly (readonly string[])[]): string {
  const widths = rows[0]!.map((_, i) => Math.max(...rows.map((row) => row[i]!.length)));
  return rows.map((row) => row.map((cell, i) => cell.padEnd(widths[i]!)).join("  ").trimEnd()).join("\n");
}
