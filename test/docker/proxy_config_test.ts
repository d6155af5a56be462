import assert from "node:assert/strict";
import { makeCertificates } from "../certificates.ts";
import { Lab } from "../netns/lab.ts";
import { testAsRoot } from "../skip.ts";
import { DockerEngine, dockerEnvironment, IMAGE } from "./engine.ts";
import { attemptDocker, proxied, PROXY, PROXY_PATH } from "./proxy_client.ts";

const SHOW = ["ip", "-4", "-o", "address", "show", "ethwe"];

testAsRoot("weave env and weave config say how the proxy is reached, and nothing where there is none", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1");
  await using engine = await DockerEngine.start(host);
  const weave = host.weaveCommand().join(" ");
  const shell = (script: string) => host.sh(script.replaceAll("weave ", `${weave} `), { env: engine.env });
  for (const command of ["env", "config"]) {
    const { code, stdout } = await host.attemptWeave(command);
    assert.notEqual(code, 0);
    assert.equal(stdout, "");
  }
  await host.weave("launch");
  assert.equal(await host.weave("env"), `export DOCKER_HOST=${PROXY} ORIG_DOCKER_HOST=`);
  assert.equal(await host.weave("config"), `-H=${PROXY}`);
  assert.match(await shell(`docker $(weave config) run --rm ${IMAGE} ${SHOW.join(" ")}`), /10\.32\.0\.1/);
  assert.match(
    await shell(`eval "$(weave env)"; eval "$(weave env)"; docker run --rm ${IMAGE} ${SHOW.join(" ")}`),
    /10\.32/,
  );
  const original = "unix:///var/run/docker.sock";
  const there = `export DOCKER_HOST=${original}; eval "$(weave env)"; eval "$(weave env)"; `;
  assert.equal(await shell(`${there} weave env --restore`), `DOCKER_HOST=${original}`);
  assert.equal(await shell(`${there} eval "$(weave env --restore)"; echo $DOCKER_HOST`), original);
  const { code, stderr } = await host.attemptWeave("env", "--restore");
  assert.equal(code, 1);
  assert.match(stderr, /^Nothing to restore/);

  // A router that is launched by somebody who talks to Docker through the former one does not.
  const said = await shell(`eval "$(weave env)"; weave version; weave stop; weave launch`);
  assert.match(said, /^WARNING: DOCKER_HOST leads to weave, which stops now/m);
  assert.match(await proxied(engine, "run", "--rm", IMAGE, ...SHOW), /10\.32/);
  assert.match(await host.weave("status"), /^ +Service: proxy\n +Address: unix:\/\/\/var\/run\/weave\/weave.sock$/m);
  assert.equal(await host.weave("report", "-f", "{{.Proxy.Addresses}}"), `[${PROXY}]`);

  await host.weave("stop");
  const off = await host.attemptWeave("env");
  assert.deepEqual([off.code, off.stdout], [1, ""]);
  await host.weave("launch", "--proxy=false");
  const none = await host.attemptWeave("config");
  assert.deepEqual([none.code, none.stdout], [1, ""]);
  assert.match(none.stderr, /without its Docker proxy/);
  await host.weave("stop");
  await host.weave("launch", "-H", "tcp://0.0.0.0:12375", "-H", "unix:///tmp/other.sock");
  assert.equal(await host.weave("config"), "-H=tcp://127.0.0.1:12375");
  assert.match(await shell("PROXY_HOST=host9 weave env"), /^export DOCKER_HOST=tcp:\/\/host9:12375 /);
  assert.match(
    await shell("DOCKER_HOST=tcp://10.1.1.1:2375 weave env"),
    /=tcp:\/\/10.1.1.1:12375 ORIG_DOCKER_HOST=tcp:/,
  );
});

testAsRoot("the proxy listens where it is told, as Docker is reached otherwise", async () => {
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1", { errorsExpected: true });
  await using engine = await DockerEngine.start(host);
  const works = async (at: string) => (await attemptDocker(engine, "-H", at, "version")).code === 0;

  await host.weave("launch");
  assert.ok(await works(PROXY));
  assert.ok(!await works("tcp://127.0.0.1:12375"));
  const mode = (path: string) => host.sh(`stat -L -c '%a %u %g' ${path}`);
  assert.equal(await mode(PROXY_PATH), await mode("/var/run/docker.sock"));
  await host.weave("stop");

  // Other sockets are links to the one.
  const sockets = ["/run/one.sock", "/run/two.sock"];
  await host.weave("launch", ...sockets.flatMap((path) => ["-H", `unix://${path}`]));
  for (const path of sockets) {
    assert.equal(await host.sh(`readlink ${path}`), PROXY_PATH);
    assert.ok(await works(`unix://${path}`), path);
  }
  assert.equal(await host.weave("config"), "-H=unix:///run/one.sock");
  await host.weave("stop");
  for (const path of sockets) await assert.rejects(host.sh(`readlink ${path}`));

  await host.weave("launch", "-H", "tcp://127.0.0.1:1234");
  assert.ok(await works("tcp://127.0.0.1:1234"));
  assert.ok(!await works(PROXY), "what is named takes the place of what is usual");
  await host.weave("stop");

  // An engine elsewhere.
  await host.sh("ln -s /var/run/docker.sock /run/elsewhere.sock");
  const launch = [...host.weaveCommand(), "launch"];
  await host.exec(launch, { env: { ...engine.env, DOCKER_HOST: "unix:///run/elsewhere.sock" } });
  assert.match(await proxied(engine, "run", "--rm", IMAGE, ...SHOW), /10\.32/);
  await host.weave("stop");

  for (
    const [args, says] of [
      [["-H", "unix://relative.sock"], /unix sockets must be specified as an absolute path/],
      [["-H", "tcp://1.2.3.4"], /tcp:\/\/IP:PORT or unix:\/\/\/PATH expected/],
      [["-H", "tcp://127.0.0.1:6784"], /Cannot listen on 127.0.0.1:6784 for the Docker proxy: EADDRINUSE/],
      [["-H", "unix:///etc/passwd"], /Cannot make "\/etc\/passwd" for the Docker proxy: /],
      [["-H", "tcp://127.0.0.1:1", "--tls", "--tlscert", "/no.pem"], /Cannot use certificate "\/no.pem": No such file/],
    ] as const
  ) {
    const { code, stderr } = await host.attemptWeave("launch", ...args);
    assert.equal(code, 1, stderr);
    assert.match(stderr, says);
  }
  assert.match(await host.sh("head -1 /etc/passwd"), /^root:/);
});

testAsRoot("the proxy speaks TLS with clients who prove who they are", async () => {
  await using files = await makeCertificates();
  await using lab = new Lab({ env: await dockerEnvironment() });
  const host = await lab.host("host1", { errorsExpected: true });
  await using engine = await DockerEngine.start(host);
  const tls = ({ ca, cert, key }: { ca: string; cert: string; key: string }) => [
    "--tlsverify",
    `--tlscacert=${ca}`,
    `--tlscert=${cert}`,
    `--tlskey=${key}`,
  ];
  const at = ["-H", "tcp://localhost:12376"];
  await host.sh("echo 127.0.0.1 localhost > /etc/hosts");
  await host.weave("launch", "-H", "tcp://0.0.0.0:12376", ...tls(files.server));
  const run = ["run", "--rm", "-i", IMAGE];
  assert.match(await engine.docker(...at, ...tls(files.client), ...run, ...SHOW), /10\.32/);
  assert.notEqual((await attemptDocker(engine, ...at, "version")).code, 0, "in clear");
  const { ca, cert } = files.client;
  const nobody = await attemptDocker(engine, ...at, "--tls", `--tlscacert=${ca}`, `--tlscert=${cert}`, "version");
  assert.notEqual(nobody.code, 0);
  // Streams as well: both ways, with an end of their own.
  const client = ["docker", ...at, ...tls(files.client)].join(" ");
  assert.equal(await host.sh(`printf 'a\\nb\\n' | ${client} run --rm -i ${IMAGE} cat`, { env: engine.env }), "a\nb");
  await host.sh(`head -c 50000000 /dev/urandom > /run/big; ${client} run -d --name one ${IMAGE} sleep 1000`, {
    env: engine.env,
  });
  await host.sh(`${client} cp /run/big one:/big; ${client} cp one:/big - | tar -x -O | cmp - /run/big`, {
    env: engine.env,
  });
  // Who says nothing does not keep others out.
  using _silent = host.spawn(["nc", "127.0.0.1", "12376"]);
  assert.match(await engine.docker(...at, ...tls(files.client), ...run, ...SHOW), /10\.32/);
  await host.weave("stop");

  // As the engine does it.
  await engine.stop("SIGTERM");
  const dockerd = (at: string, ...args: string[]) => [
    ...["sh", "-c", 'rm -f /var/run/docker.pid; exec dockerd "$@"', "sh"],
    ...["--userland-proxy=false", "-H", "unix:///var/run/docker.sock", "-H", at, ...args],
  ];
  await using other = host.spawn(dockerd("tcp://127.0.0.1:2376", ...tls(files.server)), { env: engine.env });
  await host.sh(UNTIL_READY, { env: engine.env });
  await host.weave("launch", "-H", "tcp://127.0.0.1:12376");
  assert.match(await engine.docker(...at, ...tls(files.client), "version"), /Server/);
  assert.notEqual((await attemptDocker(engine, ...at, "version")).code, 0, "in clear");
  await host.weave("stop");
  await host.weave("launch", "-H", "tcp://127.0.0.1:12376", "--no-detect-tls");
  assert.equal((await attemptDocker(engine, ...at, "version")).code, 0, "in clear");
  await host.weave("stop");

  // An engine that is reached over TCP is spoken to as the proxy is told to speak.
  const launch = [...host.weaveCommand(), "launch", ...tls(files.server)];
  const env = (port: number) => ({ ...engine.env, DOCKER_HOST: `tcp://localhost:${port}` });
  await host.exec(launch, { env: env(2376) });
  const usual = ["-H", "tcp://localhost:12375", ...tls(files.client)];
  assert.match(await engine.docker(...usual, ...run, ...SHOW), /10\.32/);
  await host.weave("stop");
  await other[Symbol.asyncDispose]();
  await using clear = host.spawn(dockerd("tcp://127.0.0.1:2375"), { env: engine.env });
  await host.sh(UNTIL_READY, { env: engine.env });
  const refused = await host.attempt(launch, { env: env(2375) });
  assert.equal(refused.code, 1);
  assert.match(refused.stderr, /Cannot speak TLS with the Docker engine at tcp:\/\/localhost:2375: /);
  await clear[Symbol.asyncDispose]();
  await engine.startAgain();
});

const UNTIL_READY = "for i in $(seq 100); do docker version >/dev/null 2>&1 && exit; sleep 0.1; done; exit 1";
