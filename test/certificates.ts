/** A certificate authority of a test, with a server `localhost` and a client that it knows. It needs `openssl`. */

import { join } from "node:path";
import { run } from "./netns/command.ts";

export interface Identity {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

export interface Certificates extends AsyncDisposable {
  readonly folder: string;
  readonly server: Identity;
  readonly client: Identity;
}

const MAKE = `
cd "$1"
openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=ca -keyout ca-key.pem -out ca.pem
for name in server client; do
  openssl req -newkey rsa:2048 -nodes -subj /CN=$name -keyout $name-key.pem -out $name.csr
  printf "subjectAltName=DNS:localhost,IP:127.0.0.1\\nextendedKeyUsage=clientAuth,serverAuth" > $name.ext
  openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 2 -extfile $name.ext -out $name.pem
done
`;

export async function makeCertificates(): Promise<Certificates> {
  const folder = await Deno.makeTempDir({ prefix: "weave-certificates-" });
  await run(["sh", "-ec", MAKE, "sh", folder]);
  const identity = (name: string) => ({
    ca: join(folder, "ca.pem"),
    cert: join(folder, `${name}.pem`),
    key: join(folder, `${name}-key.pem`),
  });
  return {
    folder,
    server: identity("server"),
    client: identity("client"),
    [Symbol.asyncDispose]: () => Deno.remove(folder, { recursive: true }),
  };
}
